"""The command line: it reads arguments, calls plait.api, and prints what that returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

import typer

from plait.cli.app import ShownError, app
from plait.console import Screen, escaped
from plait.errors import Interrupted, PlaitError, RenamedWarning
from plait.runs import interrupts

# Importing a file registers its commands: --help lists them in this order.
from plait.cli import learn, answer, search, serve, tools  # isort: skip  # noqa: F401

BY_TYPER = 130  # what a command returns in place of raising KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status. `--debug` anywhere shows tracebacks.

    The status is 0 for success, 1 for an error that the user can act on, 2 for wrong arguments, 130 after
    Ctrl-C, 143 after SIGTERM and 129 after SIGHUP.
    """
    arguments, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    try:
        with _shown_warnings(), interrupts.terminable() as received:
            status = _run(arguments)
        return _stopped(received.number) if status == BY_TYPER else status
    except PlaitError as error:
        if debug:
            raise
        typer.echo(escaped(f"plait: {error}"), err=True)
        return 128 + error.number if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt as error:
        return _stopped(interrupts.number_of(error))
    except (typer.Abort, BrokenPipeError):  # the reader of a pipe, such as head, has gone
        return 1
    except ShownError as error:  # wrong arguments: typer says which
        error.show()
        return int(error.exit_code)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--debug`, and whether it is among them.

    It may stand behind any command, where typer would take it for an option of the command.
    """
    remaining = [argument for argument in arguments if argument != "--debug"]
    return remaining, "--debug" in arguments


def _stopped(number: int) -> int:
    """Say that a command was stopped by a signal, and return its exit status."""
    typer.echo("plait: stopped; run the command again", err=True)
    return 128 + number


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Show warnings of plait as those of a training, without the line of code that Python would name."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RenamedWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, RenamedWarning):
                Screen().warn(str(message))
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _run(arguments: list[str]) -> int:
    """Run a command. Calling `app` instead would put typer's own excepthook in place."""
    command = typer.main.get_command(app)
    status: object = command(args=arguments, prog_name="plait", standalone_mode=False)
    return status if isinstance(status, int) else 0


def say_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error in place of its traceback."""
    typer.echo(escaped(f"plait: this is a bug in plait: {kind.__name__}: {error}"), err=True)
    typer.echo("Run the command again with --debug, and report what it shows.", err=True)


def entry() -> None:
    """Run the command line, and exit with its status."""
    if "--debug" not in sys.argv:
        sys.excepthook = say_bug
    sys.exit(run())
