"""`plait demo`: fetch a real table, train on it, and compare with models of single modalities."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from plait.api import fit, model
from plait.console import Screen
from plait.errors import RecipeError, TableError, nearest
from plait.samples.base import Sample, find_sample, sample_names
from plait.table.read import read
from plait.table.schema import SOUND, origin
from plait.table.table import Table

SHOWN = 6


def run(name: str | None, cache: str | None, out: str | None) -> None:
    """Train on a sample table with all of its columns, and with each group of its main columns alone.

    Print the test scores side by side. `name` is None for the default sample. Raises `TableError` if a
    sample that is named cannot be fetched.
    """
    screen = Screen(out=True)
    base = Path(cache) if cache else Path.home() / ".cache" / "plait" / "samples"
    sample, path = _fetch(name, base, screen)
    short = sample.__name__.rpartition(".")[2]
    screen.say(f"sample: {short}: {sample.ABOUT}\ntable: {path}\n")
    folder = Path(out) if out else Path("runs") / f"demo-{short}-{time.strftime('%H%M%S')}"
    table = read(path)
    model = fit.fit(table, sample.TARGET, overrides=sample.OVERRIDES, out=folder)
    scores = model.record["evaluation"]["test"]["targets"][sample.TARGET]
    rows = [_row("all columns", scores["metrics"]["accuracy"])]
    for label, columns in sample.INPUTS.items():
        screen.say(f"training on {label} alone, to compare ...")
        rows.append(_row(f"{label} alone", _unimodal_accuracy(table, sample, columns)))
    rows.append(["majority class", f"{scores['baseline']['accuracy']:.3f}", ""])
    screen.table(
        f"\ntest accuracy on {scores['rows']} rows, each model trained by itself",
        ["inputs", "accuracy ", "95 % interval"],
        rows,
    )
    _show_predictions(model, table, sample, screen)
    screen.say(
        f"\nrun:    {folder}\nreport: {(folder / 'report.html').absolute()}\ntry:    plait evaluate {folder} "
        f"{path}"
    )


def _main_columns(sample: Sample) -> list[str]:
    """Return the columns that the demo compares, in the sample's order."""
    columns: list[str] = []
    for group in sample.INPUTS.values():
        columns += group
    return columns


def _fetch(name: str | None, base: Path, screen: Screen) -> tuple[Sample, Path]:
    """Fetch a sample table, the stamps if none is named; the digits where these cannot be fetched."""
    if name is not None and name not in sample_names():
        raise RecipeError(f"no sample '{name}': {nearest(name, sample_names())}")
    if name is None:
        try:
            screen.say("fetching the stamps (161 MB, once) ...")
            sample = find_sample("stamps")
            return sample, sample.fetch(base / "stamps")
        except TableError as error:
            screen.say(f"{error}\nFalling back to the digits, which come with scikit-learn.")
            name = "digits"
    sample = find_sample(name)
    return sample, sample.fetch(base / name)


def _unimodal_accuracy(table: Table, sample: Sample, columns: Sequence[str]) -> dict[str, float]:
    """Return the test accuracy of a model that is trained on these columns only."""
    inputs = {*table.data.column_names, *_main_columns(sample)} - {sample.TARGET, "split"}
    roles = dict.fromkeys(inputs - set(columns), "ignored")
    for column in columns:
        if column.endswith(SOUND):
            roles[column] = "audio"
    with tempfile.TemporaryDirectory() as folder:
        model = fit.fit(
            table, sample.TARGET, columns=roles, overrides=sample.OVERRIDES, out=folder, quiet=True
        )
    return model.record["evaluation"]["test"]["targets"][sample.TARGET]["metrics"]["accuracy"]


def _row(name: str, score: dict[str, float]) -> list[str]:
    return [name, f"{score['value']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}"]


def _show_predictions(model: model.Model, table: Table, sample: Sample, screen: Screen) -> None:
    test = table.data.filter(pc.equal(table.data["split"], "test"))
    step = max(test.num_rows // SHOWN, 1)
    sampled = test.take(list(range(0, test.num_rows, step))[:SHOWN])
    answers = model.predict(Table(sampled, table.root, "test rows"))
    origins = [origin(column, table.data.column_names) for column in _main_columns(sample)]
    columns = list(dict.fromkeys(origins))
    rows = []
    for i in range(sampled.num_rows):
        answer = answers[sample.TARGET][i].as_py()
        probability = answers[f"{sample.TARGET}_probability_{answer}"][i].as_py()
        cells = [str(sampled[column][i].as_py() or "(missing)").rpartition("/")[2] for column in columns]
        rows.append([*cells, str(sampled[sample.TARGET][i].as_py()), str(answer), f"{probability:.2f}"])
    screen.table("\nsome test rows", [*columns, "is", "predicted", "probability "], rows)
