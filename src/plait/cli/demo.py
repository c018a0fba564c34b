"""`plait demo`: a real table from fetching to predictions, with what each modality reaches alone beside
it.
"""

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
    """Trains on a sample table with all of its columns, and with each of its main columns alone, and
    prints the test scores side by side. Raises `TableError` when a sample that was asked for by name
    cannot be fetched.
    """
    screen = Screen(out=True)
    base = Path(cache) if cache else Path.home() / ".cache" / "plait" / "samples"
    sample, path = fetch(name, base, screen)
    short = sample.__name__.rpartition(".")[2]
    screen.say(f"sample: {short}: {sample.ABOUT}\ntable: {path}\n")
    folder = Path(out) if out else Path("runs") / f"demo-{short}-{time.strftime('%H%M%S')}"
    table = read(path)
    model = fit.fit(table, sample.TARGET, overrides=sample.OVERRIDES, out=folder)
    found = model.record["evaluation"]["test"]["targets"][sample.TARGET]
    rows = [_row("all columns", found["metrics"]["accuracy"])]
    for label, columns in sample.INPUTS.items():
        screen.say(f"training on {label} alone, to compare ...")
        rows.append(_row(f"{label} alone", _alone(table, sample, columns)))
    rows.append(["majority class", f"{found['baseline']['accuracy']:.3f}", ""])
    screen.table(
        f"\ntest accuracy on {found['rows']} rows, each model trained by itself",
        ["inputs", "accuracy ", "95 % interval"],
        rows,
    )
    _show_predictions(model, table, sample, screen)
    screen.say(
        f"\nrun:    {folder}\nreport: {(folder / 'report.html').absolute()}\ntry:    plait evaluate {folder} "
        f"{path}"
    )


def fetch(name: str | None, base: Path, screen: Screen) -> tuple[Sample, Path]:
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


def _alone(table: Table, sample: Sample, columns: Sequence[str]) -> dict[str, float]:
    """The test accuracy of a model of its own that sees these columns only."""
    inputs = {c for c in table.data.column_names if c not in (sample.TARGET, "split")} | {
        c for own in sample.INPUTS.values() for c in own
    }
    others = dict.fromkeys(inputs - set(columns), "ignored") | {
        c: "audio" for c in columns if c.endswith(SOUND)
    }
    with tempfile.TemporaryDirectory() as folder:
        model = fit.fit(
            table, sample.TARGET, columns=others, overrides=sample.OVERRIDES, out=folder, quiet=True
        )
    return model.record["evaluation"]["test"]["targets"][sample.TARGET]["metrics"]["accuracy"]


def _row(name: str, score: dict[str, float]) -> list[str]:
    return [name, f"{score['value']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}"]


def _show_predictions(model: model.Model, table: Table, sample: Sample, screen: Screen) -> None:
    test = table.data.filter(pc.equal(table.data["split"], "test"))
    step = max(test.num_rows // SHOWN, 1)
    some = test.take(list(range(0, test.num_rows, step))[:SHOWN])
    answers = model.predict(Table(some, table.root, "test rows"))
    shown = list(
        dict.fromkeys(
            origin(c, table.data.column_names) for columns in sample.INPUTS.values() for c in columns
        )
    )
    rows = []
    for i in range(some.num_rows):
        answer = answers[sample.TARGET][i].as_py()
        sure = answers[f"{sample.TARGET}_probability_{answer}"][i].as_py()
        cells = [str(some[c][i].as_py() or "(missing)").rpartition("/")[2] for c in shown]
        rows.append([*cells, str(some[sample.TARGET][i].as_py()), str(answer), f"{sure:.2f}"])
    screen.table("\nsome test rows", [*shown, "is", "predicted", "probability "], rows)
