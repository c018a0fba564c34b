"""What a user sees in the terminal. rich is imported only when there is something to show."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.progress import Progress, TaskID

DRAW_EVERY = 0.1  # seconds

# What steers a terminal or hides text in it: control characters but for tab and newline, marks that turn
# the direction of writing, line separators, and halves of surrogate pairs, which no terminal can encode.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, encoding: str | None = "utf-8") -> str:
    """Return a text that is safe to show in a terminal: each unprintable character becomes its code.

    So does each character that the terminal's `encoding` lacks; ASCII if it is None.

    >>> escaped("\x1b[31mred")
    '\\\\x1b[31mred'
    """
    shown = UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return shown.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


def escaped_cell(text: str, encoding: str | None = "utf-8") -> str:
    """Return `escaped` text in one line: a cell of a table must not break its row."""
    return escaped(text.replace("\n", "\\n").replace("\t", "\\t"), encoding)


def command(*arguments: object) -> str:
    """Return a command as it can be typed here: `plait` with arguments, each quoted where it has to be."""
    return " ".join([_program(), *(shlex.quote(str(argument)) for argument in arguments)])


def _program() -> str:
    """Return what calls plait here: its name, or its path where the shell does not find it by name."""
    beside_python = Path(sys.executable).with_name("plait")
    by_name = shutil.which("plait")
    if by_name and (not beside_python.exists() or os.path.samefile(by_name, beside_python)):
        return "plait"
    if not beside_python.exists():
        return f"{shlex.quote(sys.executable)} -m plait"
    here = Path.cwd()
    is_below = beside_python.is_relative_to(here)
    return shlex.quote(str(beside_python.relative_to(here) if is_below else beside_python))


class Screen:
    """Prints to standard error, so that standard output stays clean for data; prints nothing when `quiet`."""

    def __init__(self, quiet: bool = False, out: bool = False) -> None:
        self.quiet = quiet
        self.out = out

    def _console(self) -> Console:
        from rich.console import Console

        file = sys.stdout if self.out else sys.stderr
        width = None if file.isatty() else 120  # a file has no width of its own
        return Console(file=file, highlight=False, soft_wrap=True, width=width)

    @property
    def width(self) -> int:
        """The width of the terminal, in characters."""
        return self._console().width

    def say(self, text: str = "", style: str = "") -> None:
        """Print one line, unless the screen is quiet."""
        if not self.quiet:
            console = self._console()
            console.print(escaped(text, console.encoding), style=style or None, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning, in yellow where the terminal has colours."""
        self.say(f"warning: {text}", "yellow")

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table. A column whose header ends in a space is aligned to the right."""
        if self.quiet:
            return
        from rich.table import Table
        from rich.text import Text

        # rich would break a table's title at the table's width
        if title:
            self.say(title, "bold")

        # as `Text`, names and cells may hold square brackets, which rich would take for styles
        console = self._console()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for header in headers:
            side: JustifyMethod = "right" if header.endswith(" ") else "left"
            table.add_column(
                Text(escaped_cell(header.strip(), console.encoding)), justify=side, overflow="fold"
            )
        for row in rows:
            table.add_row(*[Text(escaped_cell(cell, console.encoding)) for cell in row])
        console.print(table, soft_wrap=False)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """Show a progress bar, drawn at most ten times a second and only in a terminal."""
        console = None if self.quiet else self._console()
        if console is None or not console.is_terminal:
            yield Bar(None, None)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
            task = progress.add_task(what, total=total, note="", speed="")
            yield Bar(progress, task)


class Bar:
    """A progress bar. `advance` only reads the clock unless it is time to draw."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task
        self._waiting = 0  # steps that are done but not drawn
        self._next = 0.0  # when to draw next

    def advance(self, steps: int = 1) -> None:
        """Count steps as done. Draw the bar again if it was last drawn long enough ago."""
        self._waiting += steps
        if self._progress is not None and time.perf_counter() >= self._next:
            self.draw()

    def draw(self, note: str | None = None) -> None:
        """Draw the bar now, with a note if there is a new one."""
        if self._progress is None or self._task is None:
            return
        self._progress.update(self._task, advance=self._waiting)
        speed = self._progress.tasks[self._task].speed
        if speed:
            self._progress.update(self._task, speed=f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")
        if note is not None:
            self._progress.update(self._task, note=escaped(note))
        self._progress.refresh()
        self._waiting = 0
        self._next = time.perf_counter() + DRAW_EVERY
