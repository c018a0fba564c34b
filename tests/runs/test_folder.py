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
from plait.api.fit import resume
from plait.errors import RecipeError
from plait.runs import interrupts
from plait.runs.folder import CHECKPOINTS, FORMAT, Request, Run
from plait.table.read import read
from plait.table.sides import Sources, read_sides
from support.answers import assert_same_answers

ROWS = [{"x": float(i), "y": "ab"[i % 2]} for i in range(20)]


def request_for(rows: list[dict[str, Any]] = ROWS, recipe: dict[str, Any] | None = None) -> Request:
    sources = Sources("train.csv", valid=None, root="photos")
    return Request.make(recipe or {"seed": 1}, ["y"], sources, False, read(rows))


def test_a_fresh_run_writes_its_request_and_removes_checkpoints(tmp_path: Path) -> None:
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

    def stop_in_the_middle() -> None:
        with Run.begin(tmp_path, request_for()):
            checkpoint.write_bytes(b"half a training")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
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
    with Run.begin(tmp_path, request_for()):
        pass
    with (
        pytest.raises(RecipeError, match=f"its {changed} differ"),
        Run.begin(tmp_path, request_now, resume=True),
    ):
        pass


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
    assert table.sides().tolist() == ["train"] * 20 + ["test"] * 3
    assert table.place(21) == ("the table", 1)
    assert not read_sides(Sources(ROWS)).parts


def refuse_to_train(*arguments: Any) -> None:
    raise AssertionError("a finished run was trained again")


def test_a_resume_of_a_finished_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    brief = ["training.epochs=2"]
    finished = plait.fit(ROWS, "y", overrides=brief, out=out, quiet=True)
    written = {file.name: file.read_bytes() for file in out.iterdir()}

    monkeypatch.setattr("plait.api.fit.train", refuse_to_train)
    resumed = plait.fit(ROWS, "y", overrides=brief, out=out, resume=True)
    assert f"the training in '{out}' is finished: nothing to train" in capsys.readouterr().err
    assert_same_answers(resumed.predict(ROWS), finished.predict(ROWS))
    assert resumed.record == json.loads(json.dumps(finished.record))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == written


def test_a_resume_of_a_finished_run_still_compares_recipes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    plait.fit(ROWS, "y", overrides=["training.epochs=2"], out=out, quiet=True, evaluate=False)
    with pytest.raises(RecipeError, match="its recipe differ"):
        plait.fit(ROWS, "y", overrides=["training.epochs=3"], out=out, resume=True, quiet=True)
    with pytest.raises(RecipeError, match="its content differ"):
        plait.fit(ROWS[::-1], "y", overrides=["training.epochs=2"], out=out, resume=True, quiet=True)


def test_a_run_that_was_killed_before_its_report_goes_on(tmp_path: Path) -> None:
    """Weights are written before the report, and checkpoints are removed after it."""
    out = tmp_path / "run"
    table = tmp_path / "train.csv"
    table.write_text("x,y\n" + "".join(f"{row['x']},{row['y']}\n" for row in ROWS))
    best = out / CHECKPOINTS[1]

    def kill_before_the_report(folder: Path, trained: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.evaluation.report.write", kill_before_the_report)
        with pytest.raises(KeyboardInterrupt):
            plait.fit(table, "y", overrides=["training.epochs=2"], out=out, quiet=True)
    assert (out / "weights.safetensors").is_file()
    assert best.is_file()

    resume(out, quiet=True)
    assert (out / "report.html").is_file()
    assert not best.exists()
