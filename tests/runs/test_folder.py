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
from plait.console import command
from plait.errors import ArtifactError, Interrupted, OutputError, RecipeError
from plait.runs import files, interrupts
from plait.runs.folder import CHECKPOINT, Run
from plait.runs.request import FORMAT, Request
from plait.table.read import read
from plait.table.sides import Sources, read_sides
from support.answers import assert_same_answers

ROWS = [{"x": float(i), "y": "ab"[i % 2]} for i in range(20)]


def request_for(rows: list[dict[str, Any]] = ROWS, recipe: dict[str, Any] | None = None) -> Request:
    sources = Sources("train.csv", valid=None, root="photos")
    return Request.make({"seed": 1} if recipe is None else recipe, ["y"], sources, False, read(rows), {})


def test_a_fresh_run_writes_its_request(tmp_path: Path) -> None:
    with Run.begin(tmp_path, request_for()) as run:
        assert not run.resumed
    saved = json.loads((tmp_path / "run.json").read_text())
    assert (saved["format"], saved["recipe"], saved["targets"]) == (FORMAT, {"seed": 1}, ["y"])
    assert saved["sources"] == {"train": str(Path("train.csv").absolute()), "valid": None, "test": None}
    assert Request.read(tmp_path) == request_for()


def stop_in_the_middle(folder: Path, request: Request) -> str:
    """Begin a run, leave a checkpoint, and stop. Returns what the user is told."""

    def stop() -> None:
        with Run.begin(folder, request):
            files.write_tensors(folder / CHECKPOINT, {}, {"epoch": "3", "step": "0"})
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        stop()
    return str(stopped.value)


def test_a_checkpoint_stays_until_the_training_ends_well(tmp_path: Path) -> None:
    checkpoint = tmp_path / CHECKPOINT
    message = stop_in_the_middle(tmp_path, request_for())
    again = command("fit", "--resume", tmp_path)
    assert f"the network is saved after epoch 3; go on with: {again}" in message
    assert checkpoint.exists()
    with Run.begin(tmp_path, request_for(), resume=True) as run:
        assert run.resumed
        assert checkpoint.exists()
    assert not checkpoint.exists()


def test_the_same_request_goes_on_by_itself(tmp_path: Path) -> None:
    stop_in_the_middle(tmp_path, request_for())
    told: list[str] = []
    with Run.begin(tmp_path, request_for(), tell=told.append) as run:
        assert run.resumed
    assert told == [f"going on with the training in '{tmp_path}', which was stopped after epoch 3"]


CHANGES = [
    (request_for(ROWS[1:]), "the tables have 19 rows, had 20"),
    (request_for(recipe={"seed": 2}), "recipe.seed is 2, was 1"),
    (request_for(recipe={}), "recipe.seed is left out, was 1"),
    (request_for([{**row, "z": 1} for row in ROWS]), "column 'z' is new"),
    (request_for([*ROWS[:19], {"x": 19.5, "y": "b"}]), "column 'x' holds other cells"),
    (request_for([{"y": row["y"], "x": row["x"]} for row in ROWS]), "the columns are in another order"),
]


@pytest.mark.parametrize(("request_now", "difference"), CHANGES)
@pytest.mark.parametrize("resume", [True, False])
def test_another_request_never_costs_a_checkpoint(
    request_now: Request, difference: str, resume: bool, tmp_path: Path
) -> None:
    stop_in_the_middle(tmp_path, request_for())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with (
        pytest.raises(RecipeError, match=f"begun with something else: {difference}[.;]"),
        Run.begin(tmp_path, request_now, resume=resume),
    ):
        pass
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_a_checkpoint_a_run_may_be_another(tmp_path: Path) -> None:
    """A fit that ended with an error, such as bad cells, is begun again with other options."""
    with pytest.raises(RecipeError, match="bad"), Run.begin(tmp_path, request_for()):
        raise RecipeError("bad")
    with Run.begin(tmp_path, request_for(recipe={"seed": 2})) as run:
        assert not run.resumed


@pytest.mark.parametrize("name", ["README.md", "log.csv", "report.html", "weights.safetensors", CHECKPOINT])
def test_a_folder_with_foreign_files_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("my own")
    with pytest.raises(RecipeError, match=f"holds files that are not of a run of plait: {name}"):
        plait.fit(ROWS, "y", out=tmp_path, quiet=True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "my own"}


@pytest.mark.parametrize("out", ["", " "])
def test_an_empty_name_of_a_folder_is_refused(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="out is empty"):
        plait.fit(ROWS, "y", out=out, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_an_error_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match=r"is a file|a file is in the way"):
            plait.fit("no table", "y", out=out, quiet=True)


def test_files_that_cells_name_are_compared(tmp_path: Path) -> None:
    with Run.begin(tmp_path, request_for()) as run:
        run.check_media({"photo": [{b"one"}, set(), {b"two"}]})
    with Run.begin(tmp_path, request_for(), resume=True) as run:
        run.check_media({"photo": [{b"one"}, set(), {b"two"}]})
        with pytest.raises(RecipeError, match="files of column 'photo' have changed"):
            run.check_media({"photo": [{b"one"}, set(), {b"three"}]})


def test_runs_of_other_versions_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no training to go on with"):
        Request.read(tmp_path)
    path = tmp_path / "run.json"
    for old in ({"recipe": {}, "rows": 3}, {"format": 7}):
        path.write_text(json.dumps(old))
        with pytest.raises(
            ArtifactError, match=rf"has format .*; this plait goes on with {FORMAT}. Train again"
        ):
            Request.read(tmp_path)
    for damaged in ("{", "[]", "[" * 100_000, '{"rows": ' + "9" * 5000 + "}", json.dumps({"format": FORMAT})):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="is damaged"):
            Request.read(tmp_path)


WRONG_ENTRIES: list[dict[str, Any]] = [
    {"recipe": None},
    {"targets": "y"},
    {"targets": [5]},
    {"sources": {}},
    {"sources": {"train": None, "valid": None, "test": None, "extra": "x"}},
    {"sources": {"train": 5, "valid": None, "test": None}},
    {"root": 5},
    {"strict": 1},
    {"rows": "many"},
    {"rows": 1e308},
    {"columns": {}},
    {"content": "x"},
    {"media": {"photo": 5}},
    {"extra": 1},
]


@pytest.mark.parametrize("wrong", WRONG_ENTRIES)
def test_every_entry_of_a_strangers_request_is_checked(wrong: dict[str, Any], tmp_path: Path) -> None:
    files.write_checked(tmp_path / "run.json", {**request_for().model_dump(mode="json"), **wrong})
    with pytest.raises(ArtifactError, match=f"'{tmp_path / 'run.json'}' is damaged: {next(iter(wrong))}"):
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
    signal = 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_stops(number: signal.Signals) -> None:
    before, work = signal.getsignal(number), Work()
    with interrupts.save_first(work):
        os.kill(os.getpid(), number)
        assert work.stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_run_is_ended_by_sigterm_as_by_ctrl_c(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        with (
            pytest.raises(Interrupted, match="nothing is saved") as stopped,
            Run.begin(tmp_path, request_for()),
        ):
            os.kill(os.getpid(), number)
        assert stopped.value.number == number


def test_tables_given_apart_are_one_with_their_sides() -> None:
    table = read_sides(Sources(pa.Table.from_pylist(ROWS), test=ROWS[:3]))
    assert table.sides().tolist() == ["train"] * 20 + ["test"] * 3
    assert table.place(21) == ("the test table", 1)
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
    with pytest.raises(RecipeError, match=r"recipe.training.epochs is 3, was 2"):
        plait.fit(ROWS, "y", overrides=["training.epochs=3"], out=out, resume=True, quiet=True)
    with pytest.raises(RecipeError, match="column 'x' holds other cells; column 'y' holds other cells"):
        plait.fit(ROWS[::-1], "y", overrides=["training.epochs=2"], out=out, resume=True, quiet=True)


def test_a_run_that_was_killed_before_its_report_goes_on(tmp_path: Path) -> None:
    """The report is written before the weights: a folder that has these is complete."""
    out = tmp_path / "run"
    table = tmp_path / "train.csv"
    table.write_text("x,y\n" + "".join(f"{row['x']},{row['y']}\n" for row in ROWS))

    def kill_before_the_report(folder: Path, trained: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.evaluation.report.write", kill_before_the_report)
        with pytest.raises(Interrupted, match="stopped while writing the model"):
            plait.fit(table, "y", overrides=["training.epochs=2"], out=out, quiet=True)
    assert not (out / "weights.safetensors").exists()

    resume(out, quiet=True)
    assert (out / "report.html").is_file()
