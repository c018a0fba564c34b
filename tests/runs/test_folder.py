"""The folder of one training: what is written into it, what is refused, and what is cleaned up."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import plait
from plait.errors import RecipeError
from plait.runs import interrupts
from plait.runs.folder import CHECKPOINTS, FORMAT, Request, Run
from plait.table.read import read
from plait.table.sides import SIDE, Sources, read_sides

ROWS = [{"x": float(i), "y": "ab"[i % 2]} for i in range(20)]


def request_for(rows: list[dict[str, Any]] = ROWS, recipe: dict[str, Any] | None = None) -> Request:
    sources = Sources("train.csv", valid=None, root="photos")
    return Request.make(recipe or {"seed": 1}, ["y"], sources, False, read(rows))


def test_a_fresh_run_writes_the_request_and_removes_checkpoints(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS[0]).write_bytes(b"of a training that was stopped")
    with Run.begin(tmp_path, request_for()) as run:
        assert not (tmp_path / CHECKPOINTS[0]).exists()
        assert not run.resumed
    saved = json.loads((tmp_path / "run.json").read_text())
    assert (saved["format"], saved["recipe"], saved["targets"]) == (FORMAT, {"seed": 1}, ["y"])
    assert saved["sources"] == {"train": str(Path("train.csv").absolute()), "valid": None, "test": None}
    assert Request.read(tmp_path) == request_for()


def test_checkpoints_stay_until_the_training_ends_well(tmp_path: Path) -> None:
    checkpoint = tmp_path / CHECKPOINTS[0]
    run = Run.begin(tmp_path, request_for())
    checkpoint.write_bytes(b"half a training")
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert checkpoint.exists()
    with Run.begin(tmp_path, request_for(), resume=True) as run:
        assert run.resumed
        assert checkpoint.exists()
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("request_now", "changed"),
    [
        (request_for(ROWS[1:]), "rows and content"),
        (request_for(recipe={"seed": 2}), "recipe"),
        (request_for([{**row, "z": 1} for row in ROWS]), "columns and content"),
    ],
)
def test_a_resume_with_something_else_is_refused(request_now: Request, changed: str, tmp_path: Path) -> None:
    Run.begin(tmp_path, request_for())
    with pytest.raises(RecipeError, match=f"its {changed} differ"):
        Run.begin(tmp_path, request_now, resume=True)


def test_runs_of_other_versions_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no training to go on with"):
        Request.read(tmp_path)
    path = tmp_path / "run.json"
    for old in ({"recipe": {}, "rows": 3}, {"format": 7}):
        path.write_text(json.dumps(old))
        with pytest.raises(
            RecipeError, match=rf"has format .*; this plait goes on with {FORMAT}. Train again"
        ):
            Request.read(tmp_path)
    for damaged in ("{", "[]", json.dumps({"format": FORMAT, "rows": "many"})):
        path.write_text(damaged)
        with pytest.raises(RecipeError, match="is damaged"):
            Request.read(tmp_path)


def test_the_recipe_in_a_run_has_no_decided_numbers(tmp_path: Path) -> None:
    overrides = ["training.keep=last", "training.epochs=2", "quality=fast"]
    model = plait.fit(ROWS, "y", overrides=overrides, out=tmp_path / "run", quiet=True)
    saved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["recipe"] == {"training": {"keep": "last", "epochs": 2}, "quality": "fast"}
    assert model.recipe.training.batch_size == "auto"
    assert model.plan.training.batch_size == 32


class Work:
    stop = False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number: signal.Signals) -> None:
    before, work = signal.getsignal(number), Work()
    with interrupts.save_first(work):
        os.kill(os.getpid(), number)
        assert work.stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_run_is_ended_by_sigterm_as_by_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run.begin(tmp_path, request_for()):
        os.kill(os.getpid(), signal.SIGTERM)


def test_tables_given_apart_are_one_with_their_sides() -> None:
    table = read_sides(Sources(pa.Table.from_pylist(ROWS), test=ROWS[:3]))
    assert table.column(SIDE).to_pylist() == ["train"] * 20 + ["test"] * 3
    assert SIDE not in read_sides(Sources(ROWS)).data.column_names
