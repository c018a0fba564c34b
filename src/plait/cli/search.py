"""Commands that search by content: index, search, classify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import AlignmentOption, IndexOption, RootOption, RunArgument, listed


@app.command(epilog="Example: plait index runs/pairs shop.csv")
def index(
    run: RunArgument,
    table: Annotated[
        str | None, typer.Argument(help="rows to add; left out, the index is only described")
    ] = None,
    address: IndexOption = None,
    root: RootOption = None,
    delete: Annotated[
        str | None, typer.Option(help='delete the rows of which this is true, as in "price > 10"')
    ] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Make an index of a table's rows, for search; or add rows to it, or delete some."""

    opened = plait.load(run).index(table, address, root, alignment)
    if delete is not None:
        typer.echo(f"{opened.delete(delete):,} rows deleted", err=True)
    typer.echo(
        f"{len(opened):,} rows; vectors of {', '.join(opened.about.columns)}; columns "
        f"{', '.join(opened.plain[1:])}"
    )


@app.command(epilog='Example: plait search runs/pairs "a red apple" --in photo')
def search(
    run: RunArgument,
    query: Annotated[
        list[str],
        typer.Argument(help="a text, a file, or column=cell; several column=cell ask by all of them"),
    ],
    in_: Annotated[
        str | None, typer.Option("--in", help="the column that is searched, where there is more than one")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="rows to find")] = 10,
    where: Annotated[
        str | None, typer.Option(help='a condition on the index\'s columns, as in "price < 10"')
    ] = None,
    address: IndexOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="look at every row of a large index")] = False,
    alignment: AlignmentOption = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="also write what was found to this file")
    ] = None,
) -> None:
    """Find the rows of an index that fit a text, an image, an audio or a video file best."""
    from plait.table import write

    if out:
        write.check_output(Path(out))
    model = plait.load(run)
    cells = model.asked(query, alignment)
    rows = model.search(cells, k, in_, where, address, exact=exact, alignment=alignment)
    write.show(rows)
    if out:
        write.write(rows, Path(out))


@app.command(
    epilog='Example: plait classify runs/pairs photos/ --labels "a cat,a dog" --template "a photo of {}"'
)
def classify(
    run: RunArgument,
    table: Annotated[str, typer.Argument(help="a table, or a folder of files")],
    labels: Annotated[str, typer.Option(help="the labels, with commas between them")],
    template: Annotated[
        list[str] | None,
        typer.Option(help="a text with {} where the label goes; may be given more than once"),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="least cosine, for all labels (0.2) or for one (a cat=0.2)")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="the column whose cells are recognised, where there is more than one")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="the text column that labels are like, where there is more than one")
    ] = None,
    alignment: AlignmentOption = None,
    root: RootOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; the terminal if left out"
        ),
    ] = None,
) -> None:
    """Label images, audio or video with labels that the model was not trained for."""
    from plait.api.model import thresholds
    from plait.table import write

    if out:
        write.check_output(Path(out))
    names = listed(labels)
    min_cosine = thresholds(threshold or (), names)
    answers = plait.load(run).classify(
        table, names, column, template or ("{}",), min_cosine, text, root, alignment
    )
    if out:
        write.write(answers, Path(out))
    else:
        write.to_stream(answers, sys.stdout.buffer)
