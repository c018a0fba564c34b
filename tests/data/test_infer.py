from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import plait
from plait.data.arguments import parse_columns
from plait.errors import RecipeError, TableError

N = 60
RNG = np.random.default_rng(0)


def columns(folder: Path) -> dict[str, tuple[Any, str]]:
    """Cells as real tables have them, and what they are."""
    for i in range(N):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"blob{i}").write_bytes((folder / f"{i}.png").read_bytes())
        (folder / f"{i}.wav").write_bytes(b"RIFF")
    words = ["red", "green", "old", "new", "house", "garden", "street", "with", "a"]
    return {
        "photo": ([f"{i}.png" for i in range(N)], "image"),
        "no_suffix": ([f"blob{i}" for i in range(N)], "image"),
        "bytes": ([(folder / f"{i}.png").read_bytes() for i in range(N)], "image"),
        "hugging_face": (
            [{"bytes": (folder / f"{i}.png").read_bytes(), "path": None} for i in range(N)],
            "image",
        ),
        "sound": ([f"{i}.wav" for i in range(N)], "audio"),
        "title": ([" ".join(RNG.choice(words, 5)) + str(i) for i in range(N)], "text"),
        "one_word": ([f"{''.join(RNG.choice(list('abcdefgh'), 6))}" for _ in range(N)], "text"),
        "chinese": ([f"我在北京的第{i}条街上看见一只猫" for i in range(N)], "text"),
        "shop": ([["north", "south", "east"][i % 3] for i in range(N)], "category"),
        "breed": ([f"{words[i % 5]} {words[5 + i % 30 // 5 % 4]}{i % 30}" for i in range(N)], "text"),
        "town": ([f"{words[i % 5]}{i % 30}" for i in range(N)], "category"),
        "zip": ([f"0{1000 + i % 7}" for i in range(N)], "category"),
        "flag": ([bool(i % 2) for i in range(N)], "category"),
        "price": (RNG.normal(size=N).tolist(), "number"),
        "count": (RNG.integers(0, 9, N).tolist(), "number"),
        "money": ([f"${i},000.50" for i in range(N)], "number"),
        "day": ([f"2024-03-{1 + i % 28:02d}" for i in range(N)], "datetime"),
        "day_dotted": ([f"{1 + i % 28}.03.2024" for i in range(N)], "datetime"),
        "stamp": (np.arange(N).astype("datetime64[s]"), "datetime"),
        "embedding": (RNG.normal(size=(N, 4)).tolist(), "vector"),
        "nth": (list(range(N)), "id"),
        "row_names": ([3 * i + 7 for i in range(N)], "id"),
        "year": (list(range(1950, 1950 + N)), "number"),
        "dose": (list(range(0, 20 * N, 20)), "number"),
        "user_id": ([f"u{i:03d}" for i in range(N)], "id"),
        "sku": ([f"AB-{i}-{i * 7}" for i in range(N)], "id"),
        "path_like": (
            [f"animals/small/{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}" for i in range(N)],
            "id",
        ),
        "constant": (["same"] * N, "ignored"),
        "drawing": ([f"data:image/svg+xml;base64,PHN2Zz{i:04d}" for i in range(N)], "ignored"),
        "empty": ([None] * N, "ignored"),
        "split": ([{7: "valid", 13: "test"}.get(i % 30, "train") for i in range(N)], "split"),
        "label": ([["x", "y"][i % 2] for i in range(N)], "target"),
    }


def test_every_kind_of_column_is_recognised(tmp_path: Path) -> None:
    cells, expected = {}, {}
    for name, (column_cells, modality_or_role) in columns(tmp_path).items():
        cells[name] = pa.array(column_cells)
        expected[name] = modality_or_role
    schema = plait.inspect(pa.table(cells), "label", root=tmp_path).schema
    assert {column.name: column.modality or column.role for column in schema} == expected
    assert all(column.reason for column in schema)


def test_inspection_prints_each_column_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plait.inspect([{"a": "red", "y": 1.5}, {"a": "blue", "y": 2.5}], "y").show()
    shown = capsys.readouterr().out
    assert "2 rows, 2 columns" in shown
    assert "regression: numbers" in shown


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b", "a"], "classification"),
        ([True, False, None], "classification"),
        ([0.0, 1.0, 0.0] * 5, "classification"),
        ([1, 2, 3] * 5, "classification"),
        (list(range(50)), "regression"),
        ([0.1, 0.2], "regression"),
        ([*(f"{i / 7:.2f}" for i in range(40)), "6.2\x1a"], "regression"),
        ([f"0{i}" for i in range(40)], "classification"),
        ([["a"], ["a", "b"], []], "multilabel"),
    ],
)
def test_tasks_are_inferred_from_the_target(cells: list[Any], task: str) -> None:
    table = pa.table({"x": RNG.normal(size=len(cells)), "y": pa.array(cells)})
    assert plait.inspect(table, "y").tasks["y"][0] == task


def test_nothing_is_learned_from_one_or_two_cells() -> None:
    sides = ["valid"] * 9 + ["train"] * 51
    rows: list[dict[str, Any]] = [{"x": i / 3, "y": i / 7, "split": side} for i, side in enumerate(sides)]
    rows[20]["once"] = rows[21]["twice"] = rows[22]["twice"] = rows[23]["asked"] = "a text of some words"
    columns = parse_columns(["asked=input"])
    schema = {column.name: column for column in plait.inspect(rows, "y", columns=columns).schema}
    assert schema["once"].reason == "only 1 row that trains has a value"
    assert schema["twice"].reason == "only 2 rows that train have a value"
    assert schema["asked"].role == "input"
    assert "ignored" not in {column.role for column in plait.inspect(rows[:50], "y").schema}


def test_a_column_may_be_constant_in_the_rows_that_train_only() -> None:
    rows = [{"x": i, "old": "no", "new": "yes" if i > 35 else "no", "y": i / 7} for i in range(40)]
    for row in rows:
        row["split"] = "valid" if row["x"] > 30 else "train"
    reasons = {column.name: column.reason for column in plait.inspect(rows, "y").schema}
    assert reasons["old"] == "the same value in every row"
    assert reasons["new"] == "the same value in every row that trains"


def test_columns_can_be_overridden() -> None:
    rows = [{"year": 2000 + i % 5, "note": f"n {i}", "y": i % 2} for i in range(40)]
    schema = plait.inspect(rows, "y", columns=parse_columns(["year=category", "note=ignored"])).schema
    assert [column.modality or column.role for column in schema] == ["category", "ignored", "target"]


def test_a_table_without_inputs_says_which_columns_were_left_out() -> None:
    rows = [{"nth": i, "same": "x", "y": i % 2} for i in range(40)]
    with pytest.raises(
        TableError,
        match=r"no column to learn from; left out: 'nth' \(id\), 'same' \(ignored\); .*--column NAME=number",
    ):
        plait.fit(rows, "y")
    with pytest.raises(TableError, match="it has the target alone"):
        plait.fit([{"y": row["y"]} for row in rows], "y")


def test_wrong_names_get_the_nearest_one() -> None:
    rows = [{"price": 1.0, "label": "a"}, {"price": 2.0, "label": "b"}]
    with pytest.raises(TableError, match="no column 'lable': did you mean 'label'"):
        plait.inspect(rows, "lable")
    with pytest.raises(TableError, match="no column 'prize': did you mean 'price'"):
        plait.inspect(rows, "label", columns={"prize": {"modality": "number"}})
    with pytest.raises(RecipeError, match="no modality or role 'numbr': did you mean 'number'"):
        parse_columns(["price=numbr"])
    with pytest.raises(TableError, match="has no rows"):
        plait.inspect(pa.table({"a": pa.array([], pa.string())}))
