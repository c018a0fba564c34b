"""The command line: arguments in, a call of plait.api, what it returns out. Nothing else is decided here."""

from __future__ import annotations

import sys
from types import TracebackType

import typer

from plait.cli.app import ShownError, app
from plait.errors import PlaitError

# Importing a file registers its commands: --help lists them in this order.
from plait.cli import learn, answer, search, tools  # isort: skip  # noqa: F401


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1 for an error that the user can act on, 2
    for wrong arguments, 130 after Ctrl-C. `--debug` anywhere shows tracebacks.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        command = typer.main.get_command(
            app
        )  # calling `app` itself would put typer's own excepthook in place
        result: object = command(
            args=[a for a in arguments if a != "--debug"], prog_name="plait", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except PlaitError as error:
        if debug:
            raise
        typer.echo(f"plait: {error}", err=True)
        return 130 if type(error).__name__ == "Interrupted" else 1
    except KeyboardInterrupt:
        typer.echo("plait: stopped", err=True)
        return 130
    except (typer.Abort, BrokenPipeError):
        return 1
    except ShownError as error:  # wrong arguments: typer says which
        error.show()
        return int(error.exit_code)


def say_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What a user sees of an error that nobody foresaw."""
    typer.echo(
        f"plait: this is a bug in plait: {kind.__name__}: {error}\nRun it again with --debug and report what "
        f"it shows.",
        err=True,
    )


def entry() -> None:
    if "--debug" not in sys.argv:
        sys.excepthook = say_bug
    sys.exit(run())
