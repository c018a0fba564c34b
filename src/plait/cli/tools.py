"""Commands that describe and clean up: options, cache, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from plait.cli.app import app


@app.command(epilog="Example: plait options encoders lstm")
def options(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="modalities, encoders, fusion, tasks, balancing, members or recipe. Default: all of them."
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One component. Default: all of the kind.")] = None,
) -> None:
    """List the components and the options of a recipe."""
    from plait.api import describe

    typer.echo(describe.options(kind, name))


@app.command(epilog="Example: plait cache --clear")
def cache(clear: Annotated[bool, typer.Option("--clear", help="Delete everything in it.")] = False) -> None:
    """Show the cache of prepared media, or clear it."""
    from plait.media.cache import show

    show(clear)


@app.command(epilog="Example: plait demo stamps")
def demo(
    sample: Annotated[
        str | None,
        typer.Argument(
            help="stamps, clips, digits, emoji or prompts. Default: stamps, or digits if apt-get is missing."
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder to keep sample tables in. Default: ~/.cache/plait/samples.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the run. Default: runs/demo-SAMPLE-TIME.")
    ] = None,
) -> None:
    """Fetch a real table, train on it, and show the results."""
    from plait.cli.demo import run

    run(sample, cache, out)
