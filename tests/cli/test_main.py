"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import plait
from plait import __version__
from plait.cli import arguments
from plait.cli.app import app
from plait.cli.main import run
from plait.table.schema import ROLES
from support.tables import FAST, make_rows, write_csv

COMMANDS = [
    "inspect",
    "fit",
    "tune",
    "evaluate",
    "report",
    "predict",
    "transcribe",
    "speak",
    "embed",
    "index",
    "search",
    "classify",
    "serve",
    "options",
    "cache",
    "demo",
]


def test_help_lists_every_command_and_each_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == COMMANDS
    assert run(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(command in overview for command in COMMANDS)
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        assert f"Example: plait {command}" in capsys.readouterr().out


def test_a_run_is_trained_scored_used_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_csv(tmp_path / "train.csv", make_rows(tmp_path, 48))
    folder = str(tmp_path / "run")
    options = []
    for override in FAST:
        options += ["--set", override]
    assert run(["inspect", str(table), "--target", "label"]) == 0
    assert "24 of 24 cells looked at are images" in capsys.readouterr().out
    options += ["--target", "label", "--out", folder, "--column", "shop=ignored"]
    assert run(["fit", str(table), *options]) == 0
    messages = capsys.readouterr().err
    assert "set in the recipe" in messages
    assert f"report: {folder}/report.html" in messages
    assert run(["evaluate", folder, str(table), "-o", str(tmp_path / "scores.json")]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["targets"]["label"]["rows"] == 48
    for suffix in ("csv", "jsonl", "parquet", "feather"):
        assert run(["predict", folder, str(table), "-o", str(tmp_path / f"out.{suffix}")]) == 0
        assert (tmp_path / f"out.{suffix}").stat().st_size
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 49
    assert lines[0].startswith('"label","label_probability_blue"')
    assert run(["embed", folder, str(table), "-o", str(tmp_path / "v.parquet")]) == 0
    assert run(["report", folder]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in page
    assert "late fusion mixes the unimodal heads into the answers of label" in page
    assert not re.search(r"(src|href)=\"http", page), "the page needs nothing from elsewhere"


def test_fit_and_tune_pass_the_same_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(plait, "fit", lambda *arguments, **options: calls.update(fit=options))
    monkeypatch.setattr(plait, "tune", lambda *arguments, **options: calls.update(tune=options))
    options = ["--target", "y", "--align", "a, b", "--column", "price=number", "--set", "fusion=gated"]
    options += ["--valid", "v.csv", "--recipe", "classic", "--seed", "3", "--quality", "good", "--out", "run"]
    assert run(["fit", "t.csv", *options, "--strict"]) == 0
    assert run(["tune", "t.csv", *options, "--trials", "4"]) == 0

    assert calls["fit"].pop("strict") is True
    assert calls["tune"].pop("trials") == 4
    assert calls["fit"] == calls["tune"]
    assert calls["fit"]["align"] == ["a", "b"]
    assert calls["fit"]["overrides"] == ["fusion=gated"]
    assert list(calls["fit"]["columns"]) == ["price"]
    assert (calls["fit"]["valid"], calls["fit"]["test"], calls["fit"]["seed"]) == ("v.csv", None, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--set", "training.epochs=9"], "--set"),
        (["t.csv"], "table"),
        (["--target", "y", "--seed", "3", "--strict"], "--target, --seed, --strict"),
        (["t.csv", "--target", "y", "--out", "other"], "table, --target, --out"),
        (["--column", "x=number", "--recipe", "classic"], "--recipe, --column"),
    ],
)
def test_a_resume_ignores_no_option(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plait, "fit", lambda *arguments, **options: pytest.fail("it was trained"))
    assert run(["fit", "--resume", "run", *options]) == 2
    message = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"leave out {named}, or repeat the whole command" in message


def test_a_resume_may_repeat_the_command_that_began_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(plait, "fit", lambda *arguments, **options: calls.append(options))
    for out in ([], ["--out", "run/"]):
        assert run(["fit", "t.csv", "--target", "y", "--seed", "3", "--resume", "run", *out]) == 0
        assert (calls[-1]["out"], calls[-1]["resume"], calls[-1]["seed"]) == ("run", True, 3)


def test_errors_are_one_message_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(tmp_path / "gone.csv")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("plait: no file")
    assert "Traceback" not in message
    assert run(["fit"]) == 2
    assert run(["fitt"]) == 2
    assert run(["options", "encoders", "lstn"]) == 1
    assert "did you mean 'lstm'?" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    assert run(["predict", str(tmp_path), str(tmp_path / "t.csv"), "-o", "x.xlsx"]) == 1
    assert "plait writes .csv" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from plait.errors import TableError

    with pytest.raises(TableError):
        run(["inspect", str(tmp_path / "gone.csv"), "--debug"])


def test_help_explains_every_role_of_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(arguments.ROLES) == ROLES
    run(["fit", "--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for role, meaning in arguments.ROLES.items():
        assert f"{role} {meaning}" in lines


def test_help_lists_debug(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    assert "--debug" in capsys.readouterr().out
    assert run(["options", "fusion", "concat", "--debug"]) == 0


def test_an_old_name_of_an_option_is_a_plain_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", str(tmp_path / "gone.csv"), "--target", "y", "--set", "model.votes=false"]) == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: recipe: model.votes is now model.late_fusion")
    assert error.startswith("plait: no file")


def test_options_come_from_the_components(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["options", "encoders", "lstm"]) == 0
    lstm = capsys.readouterr().out
    assert "encoders/lstm" in lstm
    assert "width = 64" in lstm
    assert run(["options"]) == 0
    every_component = capsys.readouterr().out
    for title in ("modalities/image", "fusion/low_rank", "tasks/regression", "recipe/training"):
        assert title in every_component


def test_the_demo_compares_inputs_and_shows_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.samples import digits

    monkeypatch.setattr(
        digits, "OVERRIDES", (*digits.OVERRIDES, "training.epochs=2", "modalities.image.size=16")
    )
    assert run(["demo", "digits", "--cache", str(tmp_path), "--out", str(tmp_path / "run")]) == 0
    screen = capsys.readouterr().out
    for text in ("all columns", "picture only", "clue only", "baseline", "some test rows", "report:"):
        assert text in screen
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_demo_falls_back_without_a_package_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from plait import console
    from plait.cli import demo

    monkeypatch.setattr(shutil, "which", lambda name: None)
    sample, path = demo.fetch_sample(None, tmp_path, console.Screen(out=True))
    assert sample.__name__ == "plait.samples.digits"
    assert path.is_file()
    screen = capsys.readouterr().out
    assert "does not have" in screen
    assert "Falling back to the digits" in screen


def test_stamps_become_rows_and_a_text_stays_on_one_side(tmp_path: Path) -> None:
    from plait.samples import stamps

    for i in range(70):
        folder = tmp_path / ("animals" if i % 2 else "food")
        folder.mkdir(exist_ok=True)
        name = f"thing{chr(97 + i % 26)}{chr(97 + i // 26)}"  # letters: names that differ in digits are kin
        suffix = "png" if i % 5 else "svg"
        (folder / f"{name}.{suffix}").write_bytes(b"x")
        text = f"\ufeffA thing called {i // 2}.\nfr.utf8=Une chose.\n"
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    rows = stamps.build(tmp_path)
    assert len(rows) == 70
    assert rows[0]["sentence"].startswith("A thing called")
    assert rows[0]["languages"] == "1"
    assert sum(not row["picture"] for row in rows) == 14
    sides: dict[str, set[Any]] = {}
    for row in rows:
        sides.setdefault(row["sentence"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values()), "all stamps with the same text lie on one side"


def test_the_version_has_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_an_unforeseen_error_is_shown_without_a_traceback(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, plait; plait.inspect = None; from plait.cli.main import entry; "
        "sys.argv = ['plait', 'inspect', 'x.csv']; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "this is a bug in plait: TypeError" in done.stderr
    assert "Traceback" not in done.stderr
