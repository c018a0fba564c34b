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
            help="modalities, encoders, fusion, tasks, balancing, members, or recipe; all if left out"
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="one component; all of the kind if left out")] = None,
) -> None:
    """List the components and their options, as a recipe takes them."""
    from plait.api import describe

    typer.echo(describe.options(kind, name))


@app.command(epilog="Example: plait cache --clear")
def cache(clear: Annotated[bool, typer.Option("--clear", help="forget everything in it")] = False) -> None:
    """Show what the cache of prepared images, audio and video holds, or clear it."""
    from plait.media.cache import Cache, folder

    with Cache(folder()) as cells:
        if clear:
            cells.clear()
        cells.usage().show()


@app.command(epilog="Example: plait demo stamps")
def demo(
    sample: Annotated[
        str | None,
        typer.Argument(
            help="stamps, clips or digits; stamps where Debian's package client is at hand, if left out"
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="where sample tables are kept; ~/.cache/plait/samples if left out")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="the run's folder; runs/demo-<sample>-<time> if left out")
    ] = None,
) -> None:
    """Fetch a real table, train on it, compare, and show predictions."""
    from plait.cli.demo import run

    run(sample, cache, out)
