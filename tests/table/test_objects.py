"""Everything that Python and Arrow can put in a cell is read as what it is, or refused by name."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import io
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import soundfile
import torch
from PIL import Image

from plait.errors import TableError
from plait.table.read import read

IMAGE = Image.new("RGB", (4, 3), (1, 2, 3))
COLOUR = enum.Enum("Colour", "RED GREEN")
Exact = decimal.Decimal
DAY = dt.date(2023, 1, 2)
HOUR = dt.timezone(dt.timedelta(hours=1))


def as_frame(*values: object) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(list(values), dtype=object)})


def as_rows(*values: object) -> list[dict[str, object]]:
    return [{"x": value} for value in values]


def as_rows_of_series(*values: object) -> list[Any]:
    return [pd.Series({"x": value}, dtype=object) for value in values]


ENTRIES: list[Callable[..., object]] = [as_frame, as_rows, as_rows_of_series]


def column(source: object) -> pa.ChunkedArray:
    return read(source).data["x"]


def cells(source: object) -> list[Any]:
    return column(source).to_pylist()


# --- Python's values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ENTRIES)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("a", None, float("nan"), pd.NA, pd.NaT, np.ma.masked), ["a", None, None, None, None, None]),
        ((5, "n/a"), ["5", "n/a"]),
        ((0.5, "?", 2.0), ["0.5", "?", "2"]),
        (("1", 1), ["1", "1"]),
        ((True, "x", False), ["true", "x", "false"]),
        ((True, None, float("nan")), [True, None, None]),
        ((np.bool_(True), None), [True, None]),
        ((3, float("nan")), [3, None]),
        ((1, 2.5), [1.0, 2.5]),
        ((np.int8(1), np.float16(2.5), np.uint64(3)), [1.0, 2.5, 3.0]),
        ((10**30, 5), [str(10**30), "5"]),
        ((2**63, 5), [2**63, 5]),
        ((2**60 + 1, 2.5), [float(2**60), 2.5]),
        ((10**400, 2.5), [str(10**400), "2.5"]),
        ((Exact("1.50"), 2, Exact("NaN")), [Exact("1.50"), Exact(2), None]),
        ((fractions.Fraction(1, 2), 2), [0.5, 2.0]),
        ((dt.date(9999, 12, 31), dt.date(2023, 1, 2)), [dt.date(9999, 12, 31), dt.date(2023, 1, 2)]),
        ((DAY, dt.datetime(2023, 1, 2, 3)), [dt.datetime(2023, 1, 2), dt.datetime(2023, 1, 2, 3)]),
        ((pd.Timestamp("2023-01-02"), np.datetime64("NaT", "us")), [dt.datetime(2023, 1, 2), None]),
        ((dt.time(5, 6), None), [dt.time(5, 6), None]),
        ((dt.timedelta(1), pd.Timedelta("1s")), [dt.timedelta(1), dt.timedelta(0, 1)]),
        ((np.timedelta64(2, "s"), None), [dt.timedelta(0, 2), None]),
        ((dt.date(2023, 1, 2), "soon"), ["2023-01-02", "soon"]),
        ((pathlib.Path("img/a.png"), "b.png", None), ["img/a.png", "b.png", None]),
        ((io.BytesIO(b"abc"), bytearray(b"d"), memoryview(b"e"), None), [b"abc", b"d", b"e", None]),
        ((["a", "b"], ("c",), {"z", "y"}, None), [["a", "b"], ["c"], ["y", "z"], None]),
        (([1, "a"], [2.5]), [["1", "a"], ["2.5"]]),
        (([pathlib.Path("a.png"), "b.png"], []), [["a.png", "b.png"], []]),
        ((np.zeros(3, np.float32), np.ones(2, np.float32)), [[0.0] * 3, [1.0] * 2]),
        ((torch.zeros(2), torch.ones(3, dtype=torch.bfloat16)), [[0.0] * 2, [1.0] * 3]),
        ((torch.tensor(3), np.array(4)), [3, 4]),
        ((np.array(["a", "b"]), None), [["a", "b"], None]),
        ((np.zeros((2, 2)), np.ones((2, 2)), None), [[0.0] * 4, [1.0] * 4, None]),
        ((pd.Period("2023-01"), None), [dt.datetime(2023, 1, 1), None]),
        ((COLOUR.RED, COLOUR.GREEN), ["RED", "GREEN"]),
        ((uuid.UUID(int=5),), ["00000000-0000-0000-0000-000000000005"]),
        (({"path": "a.png", "bytes": None}, None), [{"bytes": None, "path": "a.png"}, None]),
        (({"bytes": b"x", "other": 1},), [{"bytes": b"x", "path": None}]),
        (({"path": "a.wav", "sampling_rate": 16000},), [{"bytes": None, "path": "a.wav"}]),
        (("a.png", b"x"), [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": None}]),
    ],
)  # fmt: skip
def test_values_of_python(
    make: Callable[..., object], values: tuple[object, ...], expected: list[Any]
) -> None:
    assert cells(make(*values)) == expected


@pytest.mark.parametrize("make", ENTRIES)
def test_instants_with_time_zones_are_in_utc(make: Callable[..., object]) -> None:
    found = cells(make(dt.datetime(2023, 1, 2, 3, tzinfo=HOUR), dt.datetime(2023, 1, 2, 3, tzinfo=dt.UTC)))
    assert [instant.hour for instant in found] == [2, 3]


@pytest.mark.parametrize("make", ENTRIES)
@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        np.arange(8, dtype=np.uint8).reshape(2, 4),
        np.arange(32, dtype=np.uint8).reshape(2, 4, 4),
    ],
)
def test_pixels_become_an_image_without_loss(make: Callable[..., object], pixels: np.ndarray) -> None:
    channels_first = torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), 2, 0)))
    for value in (pixels, Image.fromarray(pixels), torch.from_numpy(pixels)):
        (content,) = cells(make(value))
        assert (np.asarray(Image.open(io.BytesIO(content))) == pixels).all()
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        wide = torch.cat([channels_first] * 2, 2)
        (content,) = cells(make(wide))
        assert Image.open(io.BytesIO(content)).size == (8, 2)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "I", "I;16", "YCbCr", "LAB"]
)
def test_images_of_every_mode_keep_their_pixels(mode: str) -> None:
    image = Image.new(mode, (5, 4))
    (content,) = cells(as_rows(image))
    read_back = Image.open(io.BytesIO(content))
    assert read_back.mode == mode
    assert read_back.tobytes() == image.tobytes()


def test_an_image_keeps_the_way_it_is_turned() -> None:
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    IMAGE.save(file, "JPEG", exif=exif)
    (content,) = cells(as_rows(Image.open(file)))
    assert Image.open(io.BytesIO(content)).getexif()[274] == 6


def test_decoded_audio_becomes_a_file() -> None:
    wave = np.linspace(-1, 1, 100, dtype=np.float32)
    (content,) = cells(as_rows({"array": wave, "sampling_rate": 8000, "path": None}))
    read_back, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == 8000
    assert (read_back == wave).all()
    # Equal waves must be equal files; this part of a file has the time at which it was written.
    assert b"PEAK" not in content


@pytest.mark.parametrize("make", ENTRIES)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "plait reads no cells of type object; convert it to a text"),
        (pd.Interval(0, 1), r"no cells of type Interval; convert it to text by .astype\(str\)"),
        (1j, "no cells of type complex; give its real and imaginary part as two columns"),
        (np.complex64(1j), "no cells of type complex"),
        ({"a": 1}, "a cell holds an object with a; make each of its keys a column of its own, such as 'x.a'"),
        ({"bytes": 5}, "no cells of type int"),
        (
            np.zeros((4, 3, 3), np.float32),
            "an array of float32 and shape 4x3x3 is no cell; give an image as uint8",
        ),
        (np.zeros((0, 3), np.uint8), "expected an image of 1, 3 or 4 channels, came an array of shape 0x3"),
        ("hi \ud83d there", "the text holds .*half of a surrogate pair"),
        (lambda: 0, "no cells of type function"),
    ],
)
def test_other_values_are_refused_by_column_row_and_type(
    make: Callable[..., object], value: object, message: str
) -> None:
    with pytest.raises(TableError, match=f"column 'x', row 1: .*{message}"):
        read(make(None, value))


def test_a_word_among_lists_of_words_is_a_list_of_one() -> None:
    rows = [{"made of": ["wood", "iron"]}, {"made of": "wood"}, {"made of": None}]
    assert read(rows).data.to_pydict() == {"made of": [["wood", "iron"], ["wood"], None]}


def test_rows_without_a_column_are_rows() -> None:
    assert len(read({})) == 1
    assert len(read([{}, {}])) == 2
    assert len(read([])) == 0


def test_values_that_share_no_kind_are_refused() -> None:
    with pytest.raises(
        TableError, match=r"column 'x' has values of several kinds: list \(row 0\), int \(row 1\)"
    ):
        read(as_rows([1], 2))
    with pytest.raises(TableError, match="make the rows of each matrix equally long"):
        read(as_rows([[1, 2], [3]]))
    with pytest.raises(TableError, match="give one vector a cell, all of one length"):
        read(as_rows(np.zeros((2, 3)), np.zeros((3, 3))))


# --- pandas ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pd.Series(["a", "b", None], dtype="category"), ["a", "b", None]),
        (pd.Series([1, 2], dtype="category"), [1, 2]),
        (pd.Series(pd.cut([1, 2, 3], 2)), ["(0.998, 2.0]", "(0.998, 2.0]", "(2.0, 3.0]"]),
        (pd.Series([None, None], dtype="category"), [None, None]),
        (pd.Series(pd.period_range("2023-01", periods=1, freq="M")), [dt.datetime(2023, 1, 1)]),
        (pd.Series([0, 0, 1], dtype="Sparse[int]"), [0, 0, 1]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series(["a", None], dtype="string"), ["a", None]),
        (pd.Series([1.5, float("nan")], dtype="float16"), [1.5, None]),
        (pd.Series([dt.timedelta(1)]), [dt.timedelta(1)]),
        (pd.Series([Exact("1.2")], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), [Exact("1.20")]),
        (pd.Series(["a"], dtype=pd.ArrowDtype(pa.string_view())), ["a"]),
    ],
)  # fmt: skip
def test_columns_of_pandas(series: Any, expected: list[Any]) -> None:
    assert cells(pd.DataFrame({"x": series})) == expected


def test_intervals_of_pandas_are_refused() -> None:
    with pytest.raises(
        TableError, match=r"column 'x', row 0: .* type Interval; convert it to text by .astype"
    ):
        read(pd.DataFrame({"x": pd.interval_range(0, 3)}))


def test_an_index_is_a_column_only_if_it_has_a_name() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    by_class = pd.concat([frame, frame])
    assert read(by_class).data.column_names == ["a"]
    assert read(frame.rename_axis("id")).data.to_pydict() == {"id": [0, 1], "a": [1, 2]}
    levels = pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=["p", None])
    assert read(frame.set_index(levels)).data.to_pydict() == {"p": [1, 3], "a": [1, 2]}


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(TableError, match="more than one column named 'a'; rename one"):
        read(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(TableError, match="more than one column named 'a'; rename one"):
        read(pd.DataFrame({"a": [1]}).rename_axis("a"))


def test_names_of_columns_are_texts() -> None:
    assert read(pd.DataFrame([[1, 2]])).data.to_pydict() == {"0": [1], "1": [2]}
    with pytest.raises(TableError, match="the name of column 0: the text holds"):
        read([{"a\ud800": 1}])


# --- polars ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
        (pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])), ["a", "b"]),
        (pl.Series([pathlib.Path("a"), None], dtype=pl.Object), ["a", None]),
        (pl.Series([1.0, float("nan")]), [1.0, None]),
        (pl.Series([["a.png", "b.png"]]), [["a.png", "b.png"]]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)), [[1, 2]]),
        (pl.Series([[[1, 2], [3, 4]]], dtype=pl.Array(pl.Float32, (2, 2))), [[1.0, 2.0, 3.0, 4.0]]),
        (pl.Series(["1.5"]).cast(pl.Decimal(10, 2)), [decimal.Decimal("1.50")]),
        (pl.Series([1], dtype=pl.Int128), [1]),
        (pl.Series([dt.timedelta(1)]), [dt.timedelta(1)]),
    ],
)
def test_columns_of_polars(series: pl.Series, expected: list[Any]) -> None:
    assert cells(pl.DataFrame({"x": series})) == expected


def test_other_objects_of_polars_are_refused_with_what_to_do() -> None:
    with pytest.raises(TableError, match=r"got LazyFrame; call .collect\(\) on it"):
        read(pl.DataFrame({"x": [1]}).lazy())
    with pytest.raises(TableError, match=r"got Series; call .to_frame\(\) on it"):
        read(pl.Series("x", [1]))
    with pytest.raises(TableError, match="column 'x': plait reads no cells of type struct with a"):
        read(pl.DataFrame({"x": [{"a": 1}]}))


# --- Arrow -----------------------------------------------------------------------------------------------

TENSOR = np.arange(12, dtype=np.float32).reshape(2, 3, 2)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), ["a", "a", "b"]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array([["a"], None], pa.list_(pa.string_view())), [["a"], None]),
        (pa.array([[1], [2, 3]], pa.list_view(pa.int8())), [[1], [2, 3]]),
        (pa.array([["a"], None], pa.large_list_view(pa.string())), [["a"], None]),
        (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
        (pa.ListArray.from_arrays([0, 2], pa.array(["a", "b"]).dictionary_encode()), [["a", "b"]]),
        (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), [["a", "b"]]),
        (pa.array([["a"], ["b", "c"], None, ["d"]]).slice(1), [["b", "c"], None, ["d"]]),
        (pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        (pa.array([b"ab"], pa.binary_view()), [b"ab"]),
        (pa.array(np.array([1.5], np.float16)), [1.5]),
        (pa.array([1.0, float("nan")]), [1.0, None]),
        (pa.array([decimal.Decimal(1)], pa.decimal256(50, 2)), [decimal.Decimal("1.00")]),
        (pa.array([1], pa.duration("s")), [dt.timedelta(0, 1)]),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), ["00000000-0000-0000-0000-000000000001"]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())), [True, False]),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(TENSOR), TENSOR.reshape(2, 6).tolist()),
        (
            pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
            ["1", "b"],
        ),
        (
            pa.array([{"path": "a.wav", "sampling_rate": 8000}, None]),
            [{"bytes": None, "path": "a.wav"}, None],
        ),
        (pa.array([[{"bytes": b"x", "path": "a"}]]), [[{"bytes": b"x", "path": "a"}]]),
        (pa.nulls(2), [None, None]),
        (pa.array([[], None]), [[], None]),
    ],
)
def test_types_of_arrow(array: pa.Array, expected: list[Any]) -> None:
    assert cells(pa.table({"x": array})) == expected


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "map<string, int8>"),
        (pa.array([{"a": 1}]), "struct with a"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "month_day_nano_interval"),
        (pa.array([[["a"]]]), "list<item: list<item: string>>"),
    ],
)
def test_other_types_of_arrow_are_refused(array: pa.Array, kind: str) -> None:
    with pytest.raises(TableError, match=f"column 'x': plait reads no cells of type {kind}; "):
        read(pa.table({"x": array}))


def test_damaged_arrow_tables_are_refused() -> None:
    offsets = pa.py_buffer(np.array([0, 900, 5], np.int32).tobytes())
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"hello")])
    with pytest.raises(TableError, match="column 'x' is not valid"):
        read(pa.table({"x": broken}))


# --- tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        pd.Series({"a": 1, "b": "x"}),
        {"a": 1, "b": "x"},
        [{"a": 1, "b": "x"}],
        ({"a": 1, "b": "x"} for _ in range(1)),
        pa.record_batch({"a": [1], "b": ["x"]}),
        pa.table({"a": [1], "b": ["x"]}).to_reader(),
        np.array([(1, "x")], [("a", "i4"), ("b", "U3")]),
        np.rec.fromrecords([(1, "x")], names="a,b"),
        datasets.Dataset.from_dict({"a": [1], "b": ["x"]}),
    ],
)
def test_objects_that_hold_a_table(source: object) -> None:
    assert read(source).data.to_pydict() == {"a": [1], "b": ["x"]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 2)), r"an array of shape \(2, 2\) has no names of columns; use pandas.DataFrame"),
        ([[1, 2]], "got list whose item 0 is list"),
        ([{"a": 1}, None], "got list whose item 1 is NoneType"),
        ({"a": pd.Series([1])}, "a dict is one row"),
        ({1}, "got set"),
        (
            datasets.Dataset.from_dict({"x": [1]}).to_iterable_dataset(),
            "got IterableDataset, which may not end",
        ),
    ],
)
def test_objects_that_hold_no_table(source: object, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read(source)


def test_features_of_hugging_face() -> None:
    features = datasets.Features(
        {
            "labels": datasets.List(datasets.ClassLabel(names=["no", "yes"])),
            "matrix": datasets.Array2D((2, 2), "float32"),
            "pixels": datasets.Array3D((4, 4, 3), "uint8"),
            "image": datasets.Image(),
        }
    )
    rows = {
        "labels": [[0, 1]],
        "matrix": [[[1.0, 2.0], [3.0, 4.0]]],
        "pixels": [np.zeros((4, 4, 3), np.uint8)],
        "image": [IMAGE],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    found = read(data).data.to_pylist()[0]
    assert found["labels"] == ["no", "yes"]
    assert found["matrix"] == [1.0, 2.0, 3.0, 4.0]
    assert Image.open(io.BytesIO(found["pixels"])).size == (4, 4)
    assert Image.open(io.BytesIO(found["image"]["bytes"])).size == (4, 3)
    decoded = read(list(data.select_columns("image"))).data["image"][0].as_py()
    assert Image.open(io.BytesIO(decoded)).size == (4, 3)
