"""The application that all commands register with."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from plait import __version__

STARTED = time.monotonic()  # this is among the first lines of plait that a command runs

# Typer may bring a click of its own: this is the class of errors that show themselves.
ShownError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Learn from tables whose cells are images, texts, audio, video and numbers.",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"plait {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand behind any command.")
    ] = False,
) -> None:
    """Declare `--debug` for `--help`: `cli.main.run` takes it out of the arguments before typer sees them."""
