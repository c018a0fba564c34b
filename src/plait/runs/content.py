"""Hash what a table holds, to notice when it has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_128

Hash = xxh3_128


def content(data: pa.Table) -> dict[str, str]:
    """Return a hash of all cells of each column. How the table is cut into chunks makes no difference."""
    return {name: column_hash(data.column(name)) for name in data.column_names}


def column_hash(column: pa.ChunkedArray) -> str:
    """Return a hash of a column's cells and of their type."""
    hashes: dict[str, Hash] = {}
    for chunk in column.chunks:
        _add(hashes, "", chunk)

    # `large_string` and `string` hold the same texts.
    together = Hash(str(column.type).replace("large_", "").encode())
    for name, partial in sorted(hashes.items()):
        together.update(f"/{name}={partial.hexdigest()}".encode())
    return str(together.hexdigest())


def media_hash(digests: Sequence[set[bytes]]) -> str:
    """Return a hash of the files in a media column, from the digests of each row's files."""
    together = Hash()
    for row_digests in digests:
        together.update(len(row_digests).to_bytes(4, "little"))
        for digest in sorted(row_digests):
            together.update(digest)
    return str(together.hexdigest())


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the columns in both whose hashes differ."""
    return [name for name in before if name in now and before[name] != now[name]]


def _add(hashes: dict[str, Hash], name: str, array: pa.Array) -> None:
    """Add the cells of an array to the hashes of what it is made of.

    Where a cell is null, how long the cells are, and what they hold are hashed apart: each of them goes on
    from chunk to chunk as if there were one.
    """
    array = _simplified(array)
    kind = array.type
    _hash_of(hashes, f"{name}.present").update(_bytes(pc.is_valid(array)))

    # What lies in the place of a null is left to chance.
    filled = array.drop_null()
    if pa.types.is_struct(kind):
        for number, field in enumerate(filled.flatten()):
            _add(hashes, f"{name}.{number}", field)
    elif _is_list(kind):
        lengths = pc.list_value_length(filled).cast(pa.int64())
        _hash_of(hashes, f"{name}.lengths").update(_bytes(lengths))
        _add(hashes, f"{name}.items", filled.flatten())
    elif _is_fixed(kind):
        _hash_of(hashes, f"{name}.cells").update(_bytes(filled))
    elif not pa.types.is_null(kind):
        _add_texts(hashes, name, filled)


def _simplified(array: pa.Array) -> pa.Array:
    """Return an array of a type whose bytes can be hashed: texts of what Python prints for rare types."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _simplified(array.storage)
    if pa.types.is_dictionary(kind):
        return _simplified(array.cast(kind.value_type))
    if _is_text(kind):
        return array.cast(pa.large_string())
    if _is_bytes(kind):
        return array.cast(pa.large_binary())
    if pa.types.is_struct(kind) or pa.types.is_null(kind) or _is_list(kind) or _is_fixed(kind):
        return array
    return pa.array([repr(cell) for cell in array.to_pylist()], pa.large_string())


def _add_texts(hashes: dict[str, Hash], name: str, filled: pa.Array) -> None:
    """Add texts or bytes, none of them null."""
    lengths = pc.binary_length(filled).cast(pa.int64())
    _hash_of(hashes, f"{name}.lengths").update(_bytes(lengths))

    # All texts lie in one buffer, one after the other. A slice has the buffer of the whole array, so its
    # first and its last offset say which bytes are its own.
    _, offsets, cells = filled.buffers()
    if len(filled) and cells is not None:
        bounds = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1]
        _hash_of(hashes, f"{name}.cells").update(memoryview(cells)[int(bounds[0]) : int(bounds[-1])])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_fixed(kind: pa.DataType) -> bool:
    """Return whether all cells of a type have the same number of bytes."""
    is_simple = pa.types.is_primitive(kind) and not pa.types.is_interval(kind)
    return bool(is_simple or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _bytes(array: pa.Array) -> memoryview:
    """Return the bytes of cells of a fixed width, without null."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return memoryview(b"")
    width = array.type.byte_width
    return memoryview(buffer)[array.offset * width : (array.offset + len(array)) * width]


def _hash_of(hashes: dict[str, Hash], name: str) -> Hash:
    return hashes.setdefault(name, Hash())
