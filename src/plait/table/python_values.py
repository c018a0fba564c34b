"""One of Python's values as a cell: a scalar, bytes, a list of such, or the dict of a media file."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import io
import os
import sys
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np

from plait.errors import TableError

# The types that cells have once they are simple, besides lists and the dicts of media.
SIMPLE = frozenset(
    {
        type(None),
        str,
        bool,
        int,
        float,
        bytes,
        decimal.Decimal,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
    }
)

LISTS = (list, tuple, set, frozenset, deque, range)
NULLS = ("NAType", "NaTType", "MaskedConstant")  # of pandas, which need not be installed, and of NumPy

# Modes of Pillow that PNG has; TIFF has the others.
PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})

MAX_RATE = 1e9  # samples a second; a WAV file has 32 bits for them

MICROSECOND = datetime.timedelta(microseconds=1)

REMEDIES = {
    "Interval": "convert it to text by .astype(str), or to its middle by .mid",
    "complex": "give its real and imaginary part as two columns",
    "AudioDecoder": "read the column undecoded: dataset.cast_column(name, datasets.Audio(decode=False))",
    "VideoDecoder": "read the column undecoded: dataset.cast_column(name, datasets.Video(decode=False))",
}


@runtime_checkable
class Tensor(Protocol):
    """A tensor of torch, which need not be imported."""

    dtype: object

    def detach(self) -> Tensor:
        """Return it without its history."""

    def cpu(self) -> Tensor:
        """Return it in the memory of the processor."""

    def float(self) -> Tensor:
        """Return it as float32."""

    def numpy(self) -> np.ndarray:
        """Return it as NumPy has it."""


@runtime_checkable
class OpenFile(Protocol):
    """A file that is open for reading."""

    def read(self) -> bytes | str:
        """Return what lies behind the position."""

    def seek(self, position: int, /) -> object:
        """Go to a position."""

    def tell(self) -> int:
        """Return the position."""


@runtime_checkable
class Period(Protocol):
    """A span of time of pandas."""

    def to_timestamp(self) -> datetime.datetime:
        """Return its begin."""


class Position:
    """The column and the row of a cell, for messages."""

    def __init__(self, column: str, row: int) -> None:
        self.column, self.row = column, row

    def __str__(self) -> str:
        return f"column '{self.column}', row {self.row}"


def simple(value: object, position: Position) -> object:
    """Return a value as one of `SIMPLE`, a list of such, or a dict of bytes and path.

    Images become PNG, and waves with a rate WAV, without loss. Raises `TableError` for other values.
    """
    kind = type(value)
    if kind in SIMPLE:
        return value
    if kind.__name__ in NULLS:
        return None
    for classes, convert in _SCALARS:
        if isinstance(value, classes):
            return convert(value)
    if isinstance(value, Mapping):
        return _media(value, position)
    if isinstance(value, LISTS):
        # A set has another order in each run of Python.
        entries = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [_entry(entry, position) for entry in entries]
    return _of_object(value, position)


def _entry(value: object, position: Position) -> object:
    """Return an entry of a list as `simple` does. Later, nobody knows which row it came from."""
    if isinstance(value, str):
        check_characters(value, position)
    return simple(value, position)


def _of_object(value: object, position: Position) -> object:
    """Return what an image, an array, an open file or a period holds. Raises `TableError` for the rest."""
    if _is_image(value):
        return _image_bytes(value)
    if isinstance(value, np.ma.MaskedArray):
        return simple(value.tolist(), position)
    if isinstance(value, (np.ndarray, np.generic, Tensor)) or hasattr(value, "__array__"):
        return _of_array(_numpy(value), position)
    if isinstance(value, OpenFile):
        return _content(value)
    if isinstance(value, Period):
        return simple(value.to_timestamp(), position)
    raise refused(type(value), position)


def refused(kind: type, position: Position) -> TableError:
    """Return the error for a value that is no cell."""
    remedy = REMEDIES.get(kind.__name__, "convert it to a text, a number, a date, bytes or a list")
    return TableError(f"{position}: plait reads no cells of type {kind.__name__}; {remedy}")


def text_of(value: object) -> str | None:
    """Return a scalar as a text file would have it. Whole floats have no fraction: 3.0 is 3."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def check_characters(text: str, position: object) -> None:
    """Raise `TableError` for half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TableError(
            f"{position}: the text holds {text[error.start]!a}, half of a surrogate pair and no character; "
            f"repair such texts: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error


# --- scalars ---------------------------------------------------------------------------------------------


def _of_enum(value: enum.Enum) -> object:
    return value.value if isinstance(value.value, str) else value.name


def _of_numpy_time(value: np.datetime64 | np.timedelta64) -> object:
    """Return a date, instant or duration in microseconds, as Python has them."""
    return None if np.isnat(value) else value.astype(f"{value.dtype.kind}8[us]").item()


def _of_instant(value: datetime.datetime) -> datetime.datetime:
    """Return an instant as Python has it; that of pandas may count nanoseconds."""
    nanosecond = getattr(value, "nanosecond", 0)
    if type(value) is datetime.datetime or nanosecond is None:
        return value
    return datetime.datetime(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.tzinfo,
        fold=value.fold,
    )


def _of_duration(value: datetime.timedelta) -> datetime.timedelta:
    return datetime.timedelta(microseconds=value // MICROSECOND)


# Types by their bases, in this order: a Timestamp of pandas is a datetime, and np.float64 a float.
_SCALARS: tuple[tuple[tuple[type, ...], Callable[..., object]], ...] = (
    ((enum.Enum,), _of_enum),
    ((np.datetime64, np.timedelta64), _of_numpy_time),
    ((str,), str.__str__),
    ((np.bool_,), bool),
    ((int, np.integer), int),
    ((float, np.floating, fractions.Fraction), float),
    ((decimal.Decimal,), decimal.Decimal),
    ((bytes, bytearray, memoryview), bytes),
    ((os.PathLike,), os.fspath),
    ((uuid.UUID,), str),
    ((datetime.timedelta,), _of_duration),
    ((datetime.datetime,), _of_instant),
)


# --- arrays and images -----------------------------------------------------------------------------------


def _numpy(value: object) -> np.ndarray:
    """Return an array of NumPy, torch or another library as NumPy has it."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    tensor = value.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such numbers
        tensor = tensor.float()
    return tensor.numpy()


def _of_array(array: np.ndarray, position: Position) -> object:
    """Return the scalar in an array of no dimension, the list of one, the PNG of an image, or a matrix."""
    kind = array.dtype.kind
    if kind in "mM":
        array = array.astype(f"{kind}8[us]")  # Python counts no nanoseconds
    if kind in "cV":
        raise refused(complex if kind == "c" else np.void, position)
    if array.ndim < 2:
        return simple(array.tolist(), position)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        return _pixels(array, position)
    if array.ndim == 2 and kind in "biuf":
        return array.tolist()
    raise TableError(
        f"{position}: an array of {array.dtype} and shape {_shape(array)} is no cell; give an image as uint8 "
        f"of shape (height, width, 3), and a vector as one dimension"
    )


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def _pixels(array: np.ndarray, position: Position) -> bytes:
    """Return the PNG of pixels, (height, width) or (height, width, channels); torch has channels first."""
    from PIL import Image

    shape = _shape(array)
    has_channels_first = array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 2, 3, 4)
    if array.ndim == 3 and has_channels_first:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_image = array.ndim == 2 or array.shape[2] in (2, 3, 4)
    if not is_image or 0 in array.shape:
        raise TableError(
            f"{position}: expected an image of 1, 3 or 4 channels, came an array of shape {shape}"
        )
    return _image_bytes(Image.fromarray(np.ascontiguousarray(array)))


class _Image(Protocol):
    """An image of Pillow."""

    @property
    def mode(self) -> str: ...
    def getexif(self) -> object: ...
    def save(self, fp: io.BytesIO, format: str, **options: object) -> None: ...


def _is_image(value: object) -> TypeGuard[_Image]:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _image_bytes(image: _Image) -> bytes:
    """Return an image as a file, without loss. It keeps its frames and the way it is turned."""
    buffer = io.BytesIO()
    options: dict[str, object] = {"exif": image.getexif()}
    if getattr(image, "n_frames", 1) > 1:
        options["save_all"] = True
    if image.mode in PNG_MODES:
        image.save(buffer, "PNG", compress_level=1, **options)
    else:
        image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


# --- files -----------------------------------------------------------------------------------------------


def _content(file: OpenFile) -> bytes | str:
    """Return all that an open file holds, and leave its position as it was."""
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _media(value: Mapping[object, object], position: Position) -> dict[str, object] | bytes | None:
    """Return the dict of a media cell with no other keys than bytes and path; None if both are empty.

    Hugging Face datasets have such cells, and decoded audio as an array with its rate.
    """
    if "array" in value and "sampling_rate" in value:
        if value["array"] is not None:
            return _wave_bytes(value["array"], _rate(value["sampling_rate"], position), position)
        value = {"bytes": value.get("bytes"), "path": value.get("path")}
    if not {"bytes", "path"} & set(value):
        keys = ", ".join(map(str, list(value)[:5])) or "no keys"
        raise TableError(
            f"{position}: a cell holds an object with {keys}; make each of its keys a column of its own, "
            f"such as '{position.column}.{next(iter(value), 'key')}' (pandas.json_normalize does)"
        )
    content, path = value.get("bytes"), value.get("path")
    if content is None and path is None:
        return None
    return {"bytes": _bytes_or_none(content, position), "path": _path_or_none(path, position)}


def _bytes_or_none(content: object, position: Position) -> bytes | None:
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if content is None:
        return None
    raise refused(type(content), position)


def _path_or_none(path: object, position: Position) -> object:
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    if path is None:
        return None
    raise refused(type(path), position)


def _rate(value: object, position: Position) -> int:
    """Return how many samples a second has. Raises `TableError` for what is no such number."""
    try:
        rate = float(str(value))
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= MAX_RATE:
        raise TableError(f"{position}: expected a sampling_rate in samples a second, came {value!r:.40}")
    return round(rate)


def _wave_bytes(array: object, rate: int, position: Position) -> bytes:
    """Return the WAV file of a wave, (steps,) or (channels, steps), in the precision that it has.

    Raises `TableError` for an array that is no wave.
    """
    from scipy.io import wavfile

    wave = np.asarray(array) if isinstance(array, list) else _numpy(array)
    if wave.dtype.kind not in "biuf" or wave.ndim not in (1, 2):
        raise TableError(
            f"{position}: expected audio as numbers of shape (steps,) or (channels, steps), came an array of "
            f"{wave.dtype} and shape {_shape(wave)}"
        )
    # WAV has steps first. No recording has more channels than steps.
    if wave.ndim == 2 and wave.shape[0] < wave.shape[1]:
        wave = wave.T
    if wave.dtype != np.int16:
        wave = wave.astype(np.float32)
    buffer = io.BytesIO()
    # Equal waves must give equal bytes, by which the cache and the search for leaks know them. soundfile
    # writes the time into the file.
    wavfile.write(buffer, rate, wave)
    return buffer.getvalue()
