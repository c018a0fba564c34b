"""`plait demo`: fetch a real table, train on it, and compare with models of single inputs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from plait.api import fit, model
from plait.console import Screen, command
from plait.errors import RecipeError, TableError, count, nearest
from plait.samples.base import Sample, find_sample, sample_names
from plait.table.read import read
from plait.table.schema import SOUND, origin
from plait.table.table import Table

SHOWN = 6  # test rows, with what is predicted for them


def run(name: str | None, cache: str | None, out: str | None) -> None:
    """Train on a sample table with all of its columns, and with each of its main inputs only.

    Print the test scores side by side. `name` is None for the default sample. Raises `TableError` if a
    sample that is named cannot be fetched.
    """
    screen = Screen(out=True)
    base = Path(cache) if cache else Path.home() / ".cache" / "plait" / "samples"
    sample, path = fetch_sample(name, base, screen)
    short_name = sample.__name__.rpartition(".")[2]
    screen.say(f"sample: {short_name}: {sample.ABOUT}\ntable: {path}\n")

    folder = Path("runs") / f"demo-{short_name}-{time.strftime('%H%M%S')}"
    if out:
        folder = Path(out)
    table = read(path)
    model = fit.fit(table, sample.TARGET, overrides=sample.OVERRIDES, out=folder)
    _compare_inputs(model, table, sample, screen)
    _show_predictions(model, table, sample, screen)

    screen.say(f"\nrun:    {folder}")
    screen.say(f"report: {(folder / 'report.html').absolute()}")
    screen.say(f"try:    {command('serve', folder)}")
    screen.say(f"        {command('evaluate', folder, path)}")


def _compare_inputs(model: model.Model, table: Table, sample: Sample, screen: Screen) -> None:
    """Train a model on each of the main inputs, and print their test accuracy beside that of `model`."""
    scores = model.record["evaluation"]["test"]["targets"][sample.TARGET]
    rows = [_row("all columns", scores["metrics"]["accuracy"])]
    for label, columns in sample.INPUTS.items():
        screen.say(f"training on {label} only, to compare ...")
        rows.append(_row(f"{label} only", _unimodal_accuracy(table, sample, columns)))
    rows.append(["baseline (most frequent class)", f"{scores['baseline']['accuracy']:.3f}", ""])
    title = f"\ntest accuracy on {count(scores['rows'], 'row')}; each line is a model of its own"
    screen.table(title, ["inputs", "accuracy ", "95 % interval"], rows)


def _main_columns(sample: Sample) -> list[str]:
    """Return the columns that the demo compares, in the sample's order."""
    main_columns: list[str] = []
    for columns in sample.INPUTS.values():
        main_columns += columns
    return main_columns


def fetch_sample(name: str | None, base: Path, screen: Screen) -> tuple[Sample, Path]:
    """Fetch a sample table. If none is named, fetch the stamps, or the digits if that fails.

    Returns the sample, and the path of its table.
    """
    if name is None:
        try:
            screen.say("fetching the stamps (161 MB, once) ...")
            stamps = find_sample("stamps")
            return stamps, stamps.fetch(base / "stamps")
        except TableError as error:
            screen.say(f"{error}\nFalling back to the digits, which come with scikit-learn.")
            name = "digits"
    if name not in sample_names():
        raise RecipeError(f"no sample '{name}': {nearest(name, sample_names())}")
    sample = find_sample(name)
    return sample, sample.fetch(base / name)


def _unimodal_accuracy(table: Table, sample: Sample, columns: Sequence[str]) -> dict[str, float]:
    """Return the test accuracy of a model that is trained on these columns only."""
    inputs = {*table.data.column_names, *_main_columns(sample)} - {sample.TARGET, "split"}
    roles = dict.fromkeys(inputs - set(columns), "ignored")

    # With its video ignored, the audio of a video is an input only if the recipe says so.
    for column in columns:
        if column.endswith(SOUND):
            roles[column] = "audio"
    with tempfile.TemporaryDirectory() as folder:
        model = fit.fit(
            table, sample.TARGET, columns=roles, overrides=sample.OVERRIDES, out=folder, quiet=True
        )
    scores = model.record["evaluation"]["test"]["targets"][sample.TARGET]
    return scores["metrics"]["accuracy"]


def _row(name: str, score: dict[str, float]) -> list[str]:
    return [name, f"{score['value']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}"]


def _show_predictions(model: model.Model, table: Table, sample: Sample, screen: Screen) -> None:
    """Print a few test rows, spread evenly, with what the model predicts for them."""
    target = sample.TARGET
    test = table.data.filter(pc.equal(table.data["split"], "test"))
    step = max(test.num_rows // SHOWN, 1)
    numbers = list(range(0, test.num_rows, step))[:SHOWN]
    sampled = test.take(numbers)
    answers = model.predict(Table(sampled, table.root, "test rows"))

    # The audio of a video has no column of its own in the table.
    origins = [origin(column, table.data.column_names) for column in _main_columns(sample)]
    columns = list(dict.fromkeys(origins))
    rows = []
    for i in range(sampled.num_rows):
        answer = answers[target][i].as_py()
        probability = answers[f"{target}_probability_{answer}"][i].as_py()
        cells = [_shown(sampled[column][i].as_py()) for column in columns]
        rows.append([*cells, str(sampled[target][i].as_py()), str(answer), f"{probability:.2f}"])
    screen.table("\nsome test rows", [*columns, "is", "predicted", "probability "], rows)


def _shown(cell: object) -> str:
    """Return a text, or the name of a file without its folder."""
    return str(cell or "(missing)").rpartition("/")[2]
