"""The same rows give the same answers, whatever they come in."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import plait

ROWS = 48
COLOURS = ("red", "green", "blue")
FAST = ["training.epochs=2", "training.batch_size=16", "split.valid=0.25"]


def make_rows() -> list[dict[str, Any]]:
    """Rows of every plain kind of cell, some of them missing."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        row = {
            "flag": bool(rng.random() < 0.5),
            "amount": round(float(rng.normal(100, 30)), 2),
            "count": int(rng.integers(0, 500)),
            "day": dt.date(2023, 1, 1) + dt.timedelta(days=int(rng.integers(0, 700))),
            "moment": dt.datetime(2024, 1, 1) + dt.timedelta(minutes=int(rng.integers(0, 90_000))),
            "colour": COLOURS[rng.integers(0, 3)],
            "postcode": f"{rng.choice([501, 1234, 90001, 10115]):05d}",
            "note": f"{COLOURS[rng.integers(0, 3)]} thing number {rng.integers(0, 99)} of many",
            "vector": [round(float(x), 3) for x in rng.normal(size=3)],
        }
        row["label"] = "yes" if row["flag"] else "no"
        if number % 7 == 3:
            row[("amount", "day", "colour", "note", "count")[number % 5]] = None
        rows.append(row)
    return rows


def as_csv(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_german_csv(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Other marks than training's are another convention: this is a table of its own to train on."""
    path = folder / "zeilen.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(rows[0])
        for row in rows:
            german = {
                **row,
                "amount": "" if row["amount"] is None else f"{row['amount']:.2f} €".replace(".", ","),
            }
            german["day"] = row["day"] and f"{row['day']:%d.%m.%Y}"
            german["moment"] = f"{row['moment']:%d.%m.%Y %H:%M}"
            german["flag"] = "WAHR" if row["flag"] else "FALSCH"
            writer.writerow(german.values())
    return path


def as_json_lines(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, default=str) for row in rows))
    return path


def as_parquet(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "rows.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_texts(rows: list[dict[str, Any]], folder: Path) -> list[dict[str, str | None]]:
    return [{name: None if cell is None else str(cell) for name, cell in row.items()} for row in rows]


ENTRY_POINTS: dict[str, Callable[[list[dict[str, Any]], Path], object]] = {
    "csv": as_csv,
    "json lines": as_json_lines,
    "parquet": as_parquet,
    "list of dicts": lambda rows, folder: rows,
    "list of dicts of texts": as_texts,
    "arrow": lambda rows, folder: pa.Table.from_pylist(rows),
    "pandas": lambda rows, folder: pd.DataFrame(rows),
    "pandas with categoricals": lambda rows, folder: pd.DataFrame(rows).astype({"colour": "category"}),
    "pandas from a csv": lambda rows, folder: pd.read_csv(as_csv(rows, folder), dtype={"postcode": str}),
    "polars": lambda rows, folder: pl.DataFrame(rows),
    "polars from a csv": lambda rows, folder: pl.read_csv(
        as_csv(rows, folder), schema_overrides={"postcode": pl.String}
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, plait.Model]:
    """Models trained on the same rows from a file of texts, and from typed cells."""
    rows = make_rows()
    folder = tmp_path_factory.mktemp("entry")
    trained = {}
    for name, table in (("csv", as_csv(rows, folder)), ("arrow", pa.Table.from_pylist(rows))):
        trained[name] = plait.fit(table, "label", out=folder / name, overrides=FAST, quiet=True)
    return trained


def probabilities(answers: pa.Table) -> np.ndarray:
    assert answers["problem"].null_count == len(answers), answers["problem"].drop_null()[0]
    return answers["label_probability_yes"].to_numpy()


def test_training_learns_the_same_from_every_source(models: dict[str, plait.Model], tmp_path: Path) -> None:
    german = plait.fit(
        as_german_csv(make_rows(), tmp_path), "label", out=tmp_path / "g", overrides=FAST, quiet=True
    )
    expected = models["csv"].record["history"][-1]["loss"]
    assert models["arrow"].record["history"][-1]["loss"] == pytest.approx(expected, abs=1e-6)
    assert german.record["history"][-1]["loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("trained_on", ["csv", "arrow"])
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_every_entry_point_gives_the_same_answers(
    entry_point: str, trained_on: str, models: dict[str, plait.Model], tmp_path: Path
) -> None:
    rows = make_rows()
    model = models[trained_on]
    expected = probabilities(model.predict(rows))
    answers = model.predict(ENTRY_POINTS[entry_point](rows, tmp_path))
    np.testing.assert_allclose(probabilities(answers), expected, atol=1e-6)


@pytest.mark.parametrize("trained_on", ["csv", "arrow"])
def test_a_single_row_comes_as_a_dict_or_a_series(trained_on: str, models: dict[str, plait.Model]) -> None:
    rows = make_rows()
    model = models[trained_on]
    expected = probabilities(model.predict(rows))[5]
    assert probabilities(model.predict(rows[5]))[0] == pytest.approx(expected, abs=1e-5)
    assert probabilities(model.predict(pd.DataFrame(rows).iloc[5]))[0] == pytest.approx(expected, abs=1e-5)
