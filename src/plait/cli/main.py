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

# Importing a file registers its commands: --help lists them in this order.
from plait.cli import learn, answer, search, tools  # isort: skip  # noqa: F401


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status. `--debug` anywhere shows tracebacks.

    The status is 0 for success, 1 for an error that the user can act on, 2 for wrong arguments, and 130 after
    Ctrl-C.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _shown_warnings():
            return _run(arguments)
    except PlaitError as error:
        if debug:
            raise
        typer.echo(escaped(f"plait: {error}"), err=True)
        return 130 if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt:
        typer.echo("plait: stopped", err=True)
        return 130
    except (typer.Abort, BrokenPipeError):  # the reader of a pipe, such as head, has gone
        return 1
    except ShownError as error:  # wrong arguments: typer says which
        error.show()
        return int(error.exit_code)


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
