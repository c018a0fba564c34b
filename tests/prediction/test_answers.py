"""Answers for tables without rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import plait
from plait.table.read import read
from support.tables import FAST, make_rows

TREES = "ensemble.members={forest: {name: trees, rounds: 5}}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("rows")
    rows = make_rows(folder, 40)
    for i, row in enumerate(rows):
        row |= {"name": f"thing-{i}", "size": 1.5 * i, "tags": [["a"], ["a", "b"], []][i % 3]}
        row["photo"] = str(folder / row["photo"])
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    ("targets", "overrides"),
    [
        (["label", "size", "tags"], []),
        (["label"], [TREES, "ensemble.folds=2"]),
        (["text"], ["tasks.text={name: generation, width: 16, layers: 1}"]),
    ],
)
def test_no_rows_have_the_columns_of_a_row(
    rows: pa.Table, targets: list[str], overrides: list[str], tmp_path: Path
) -> None:
    fast = [option for option in FAST if "epochs" not in option]
    model = plait.fit(
        rows,
        targets,
        overrides=[*fast, "training.epochs=1", *overrides],
        out=tmp_path / "run",
        quiet=True,
    )
    expected = model.predict(rows.slice(3, 1)).schema
    assert {"name", "problem", *targets} <= set(expected.names)
    empty = model.predict(rows.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == expected

    without_columns = model.predict([])
    assert without_columns.num_rows == 0
    assert without_columns.column_names == [name for name in expected.names if name != "name"]


def test_a_table_without_inputs_is_refused_even_without_rows(rows: pa.Table, tmp_path: Path) -> None:
    model = plait.fit(
        rows.select(["price", "label"]), "label", overrides=FAST[:2], out=tmp_path / "run", quiet=True
    )
    with pytest.raises(plait.PlaitError, match="has none of the model's input columns"):
        model.predict(read(pa.table({"other": pa.array([], pa.string())})))
