"""What is printed: names and cells of a table cannot steer the terminal, and numbers agree with nouns."""

from __future__ import annotations

import pytest

from plait.cli.main import run
from plait.console import Screen, escaped
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
