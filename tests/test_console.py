"""What is printed: names and cells of a table cannot steer the terminal, and numbers agree with nouns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import plait
from plait.cli.main import run
from plait.console import Screen, command, escaped
from plait.errors import count

EVIL = "\x1b[31mred\x07 \u202edesrever \x9b2J"


def test_control_characters_are_shown_as_codes() -> None:
    assert escaped(EVIL) == r"\x1b[31mred\x07 \u202edesrever \x9b2J"
    assert escaped("naïve 猫 🐈\n\tdone") == "naïve 猫 🐈\n\tdone"


def test_nothing_on_the_screen_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.say(EVIL)
    screen.warn(EVIL)
    screen.table(f"a table {EVIL}", [EVIL, "[red]"], [[EVIL, "two\nlines [bold]"]])
    printed = capsys.readouterr().err
    assert not set("\x1b\x07\u202e\x9b") & set(printed)
    assert printed.count(r"\x1b[31mred") == 5
    assert "[red]" in printed, "brackets are no styles"
    assert r"two\nlines [bold]" in printed, "a cell stays in its row"


def test_an_error_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", f"{EVIL}.csv"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_numbers_agree_with_their_nouns() -> None:
    assert count(1, "row") == "1 row"
    assert count(0, "row") == "0 rows"
    assert count(20_000, "query", "queries") == "20,000 queries"


def test_a_command_is_one_that_the_shell_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "some env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "plait"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))

    monkeypatch.setenv("PATH", str(folder))
    assert command("fit", "a table.csv", 3) == "plait fit 'a table.csv' 3"
    monkeypatch.setenv("PATH", "")
    assert command("fit") == f"'{folder / 'plait'}' fit"
    monkeypatch.chdir(tmp_path)
    assert command("fit") == "'some env/bin/plait' fit"
    (folder / "plait").unlink()
    assert command("fit") == f"'{folder / 'python'}' -m plait fit"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"plait {plait.__version__}\n"
