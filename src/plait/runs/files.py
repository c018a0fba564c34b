"""The files of a run: JSON and tensors that carry a checksum of themselves.

A file is written with zeros in the place of its checksum, which is then the hash of all its bytes. So every
byte counts, those of names and numbers as those of the format.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from xxhash import xxh3_128

from plait.disk.whole import write_text, writing
from plait.errors import ArtifactError, PlaitError
from plait.table.json import JSON, JSONValue

CHECKSUM = "checksum"  # the entry of a file that holds its checksum
ZEROS = b"0" * 32
IN_FILE = re.compile(rb'"checksum": ?"([0-9a-f]{32})"')
BLOCK = 1 << 20  # bytes that are hashed at once
LONGEST_HEADER = 100 << 20  # bytes; safetensors itself allows no more
LARGEST_JSON = 1 << 30  # bytes
AGAIN = "copy the folder again from where it was whole, or train again"

T = TypeVar("T")


def write_json(path: Path, content: JSONValue) -> None:
    """Write JSON for people and other programs. Numbers that are not finite become null."""
    write_text(path, _dumped(content))


def write_checked(path: Path, content: JSON) -> None:
    """Write JSON with a checksum, which `read_checked` verifies. Numbers that are not finite become null."""
    text = _dumped({CHECKSUM: ZEROS.decode(), **content}).encode("utf-8", "backslashreplace")
    _write_sealed(path, text)


def read_checked(path: Path) -> JSON:
    """Read what `write_checked` wrote. Raises `ArtifactError` if a byte of it has changed."""
    content = read_json(path)
    _verify(path, has_header=False)
    content.pop(CHECKSUM, None)
    return content


def read_json(path: Path) -> JSON:
    """Read names and values as JSON, whatever its checksum. Raises `ArtifactError` if the file holds none."""
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST_JSON:
            raise ArtifactError(
                f"'{path}' is damaged: it is larger than {LARGEST_JSON / 1e9:.0f} GB; {AGAIN}"
            )
        text = file.read()
    try:
        content: object = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"'{path}' is damaged: no JSON that plait writes ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"'{path}' is damaged: expected names and values; {AGAIN}")
    return content


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and `metadata` with a checksum. A crash leaves the old file or the new one."""
    _write_sealed(
        path, safetensors.torch.save(_unshared(tensors), {**(metadata or {}), CHECKSUM: ZEROS.decode()})
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata that `write_tensors` wrote.

    Raises `ArtifactError` if a byte of the file has changed. Nothing is allocated before that is known.
    """
    _verify(path, has_header=True)
    try:
        with safe_open(path, "pt") as opened:
            metadata = dict(opened.metadata() or {})
        mapped = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is damaged: {error}; {AGAIN}") from error
    metadata.pop(CHECKSUM, None)

    # safetensors maps the file into memory: writing over it would change the tensors, or end the process.
    return {name: tensor.clone() for name, tensor in mapped.items()}, metadata


def prefixed(prefix: str, state: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a state, with a prefix before their names, so that one file can hold several."""
    tensors = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            tensors[prefix + name] = tensor
    return tensors


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it. It inverts `prefixed`."""
    state = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            state[name.removeprefix(prefix)] = tensor
    return state


def check_shapes(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ArtifactError` unless a file holds tensors of the expected names, shapes and types."""
    for name, tensor in expected.items():
        if name not in tensors:
            raise ArtifactError(f"'{path}' lacks the tensor '{name}', or belongs to another plan; {AGAIN}")
        came = tensors[name]
        if came.shape != tensor.shape or came.dtype != tensor.dtype:
            raise ArtifactError(
                f"'{path}': the tensor '{name}' is {_described(came)}, expected {_described(tensor)}; {AGAIN}"
            )
    for name in tensors:
        if name not in expected:
            raise ArtifactError(f"'{path}' has a tensor '{name}' that its plan does not know; {AGAIN}")


def wrong_entry(path: Path | str, error: ValidationError) -> ArtifactError:
    """Return the error for a file whose entries are not those that plait writes: it names the first one."""
    first = error.errors()[0]
    entry = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    name = f"'{path}'" if isinstance(path, Path) else path
    return ArtifactError(f"{name} is damaged: {entry}: {reason[:1].lower()}{reason[1:]}; {AGAIN}")


def load_part(name: str, load: Callable[[], T]) -> T:
    """Return what `load` makes of a part of a file. Raises `ArtifactError` with the part's name otherwise."""
    try:
        return load()
    except PlaitError:
        raise
    except KeyError as error:
        raise ArtifactError(f"{name} is damaged: {error.args[0]!r} is missing; {AGAIN}") from error
    except ValidationError as error:
        raise wrong_entry(name, error) from error
    except Exception as error:  # tokenizers, written in Rust, raise `Exception` itself
        raise ArtifactError(f"{name} is damaged: {error}; {AGAIN}") from error
    except BaseException as error:
        # Rust's panics are no `Exception`, so that nobody catches them.
        if type(error).__name__ != "PanicException":
            raise
        raise ArtifactError(f"{name} is damaged: {error}; {AGAIN}") from error


def _described(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {tuple(tensor.shape)}"


def _write_sealed(path: Path, content: bytes) -> None:
    """Write bytes that hold zeros for a checksum, with the checksum in their place."""
    match = IN_FILE.search(content)
    assert match is not None

    # The bytes around the checksum are views: a copy of all weights would take as much memory again.
    checksum = xxh3_128(content).hexdigest().encode()
    with writing(path) as file:
        view = memoryview(content)
        file.write(view[: match.start(1)])
        file.write(checksum)
        file.write(view[match.end(1) :])


def _verify(path: Path, has_header: bool) -> None:
    """Raise `ArtifactError` unless a file's bytes have the checksum that they hold.

    It lies in the header of tensors, which begins with its own length, or at the beginning of JSON.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(8)
        header, longest = size, LARGEST_JSON
        if has_header:
            header, longest = int.from_bytes(begin, "little"), LONGEST_HEADER
        if len(begin) < 8 or header > min(longest, size):
            raise ArtifactError(f"'{path}' is damaged: it is cut short, or no file of plait; {AGAIN}")

        # The checksum is the first entry of JSON, but any entry of a header.
        begin += file.read(header if has_header else min(header, BLOCK))
        match = IN_FILE.search(begin)
        if match is None:
            raise ArtifactError(f"'{path}' is damaged: it holds no checksum; {AGAIN}")
        digest = xxh3_128(begin[: match.start(1)] + ZEROS + begin[match.end(1) :])
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest().encode() != match[1]:
        raise ArtifactError(f"'{path}' is damaged or was edited: its checksum does not fit; {AGAIN}")


def _opened(path: Path) -> BinaryIO:
    """Open a file. Raises `ArtifactError` if it cannot be read, or is a device that never ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"'{path}' cannot be read: {reason}; {AGAIN}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError(f"'{path}' is no file; {AGAIN}")
    return os.fdopen(descriptor, "rb")


def _dumped(content: JSONValue) -> str:
    return json.dumps(finite(content), ensure_ascii=False, indent=1, allow_nan=False)


def finite(content: JSONValue) -> JSONValue:
    """Return JSON with null for numbers that are not finite, which JSON does not know."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [finite(value) for value in content]
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, each with memory of its own.

    safetensors refuses tensors that share memory, such as weights that a network uses in two places.
    """
    unshared: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().cpu().contiguous()

        # An empty tensor has no memory: many of them have the address 0.
        if on_cpu.numel() and on_cpu.data_ptr() in addresses:
            on_cpu = on_cpu.clone()
        addresses.add(on_cpu.data_ptr())
        unshared[name] = on_cpu
    return unshared
