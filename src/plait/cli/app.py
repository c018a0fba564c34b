"""The application that all commands register with."""

from __future__ import annotations

from typing import Any

import typer

ShownError: Any = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)  # of whichever click typer uses


app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Learns from tables whose cells are pictures, sentences, sounds, clips and numbers.",
)


@app.callback()
def main() -> None:
    pass
