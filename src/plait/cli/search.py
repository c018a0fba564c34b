"""Commands that search by content: index, search, classify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import (
    AlignmentOption,
    IndexOption,
    OutOption,
    RootOption,
    RunArgument,
    listed,
    parse_thresholds,
)
from plait.console import Screen
from plait.errors import count


@app.command(epilog="Example: plait index runs/pairs shop.csv")
def index(
    run: RunArgument,
    table: Annotated[
        str | None, typer.Argument(help="The rows to add. Without a table, the index is only described.")
    ] = None,
    address: IndexOption = None,
    root: RootOption = None,
    delete: Annotated[
        str | None, typer.Option(help='Delete the rows that fulfil a condition, such as "price > 10".')
    ] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Make an index of a table's rows for search, or change one.

    A row replaces the one with the same id, or in a table without an id column the one with the same cells.
    """
    opened = plait.load(run).index(table, address, root, alignment)
    if delete is not None:
        Screen().say(f"{count(opened.delete(delete), 'row')} deleted")
    embedded = ", ".join(opened.about.columns)
    plain = ", ".join(opened.plain[1:])  # without the number of the row
    Screen(out=True).say(f"{count(len(opened), 'row')}; vectors of {embedded}; columns {plain}")


@app.command(epilog='Example: plait search runs/pairs "a red apple" --in photo')
def search(
    run: RunArgument,
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY", help="A text, a file, or column=cell. Several column=cell are combined."
        ),
    ],
    in_: Annotated[
        str | None, typer.Option("--in", help="The column to search, if the index has more than one.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of rows to return.")] = 10,
    where: Annotated[
        str | None, typer.Option(help='Return only rows that fulfil a condition, such as "price < 10".')
    ] = None,
    address: IndexOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every row, even if the index is large.")
    ] = False,
    alignment: AlignmentOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File to write the rows to as well.")] = None,
) -> None:
    """Find the rows of an index that match a query best."""
    from plait.table import write

    if out:
        write.check_output(Path(out))
    model = plait.load(run)
    cells = model.parse_query(query, alignment)
    column = model.searched_column(cells, in_, alignment)
    rows = model.search(cells, k, column, where, address, exact=exact, alignment=alignment)
    write.show(rows, f"{column} searched by {' and '.join(cells)}: {count(len(rows), 'row')}")
    if out:
        write.write(rows, Path(out))


@app.command(
    epilog='Example: plait classify runs/pairs photos/ --labels "a cat,a dog" --template "a photo of {}"'
)
def classify(
    run: RunArgument,
    table: Annotated[str, typer.Argument(help="A table, or a folder of files.")],
    labels: Annotated[str, typer.Option(help="The labels, separated by commas.")],
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A text with {} in place of the label. May be repeated."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER",
            help="Smallest cosine that counts: for all labels (0.2) or one (a cat=0.2). May be repeated.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="The column to label, if more than one could be.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="The aligned text column that labels resemble, if there is more than one."),
    ] = None,
    alignment: AlignmentOption = None,
    root: RootOption = None,
    out: OutOption = None,
) -> None:
    """Label images, audio or video with labels of your choice.

    The labels may be new: an alignment compares them with the cells.
    """
    from plait.table import write

    if out:
        write.check_output(Path(out))
    names = listed(labels)
    min_cosine = parse_thresholds(threshold or (), names)
    answers = plait.load(run).classify(
        table, names, column, template or ("{}",), min_cosine, text, root, alignment
    )
    if out:
        write.write(answers, Path(out))
    else:
        write.to_stream(answers, sys.stdout.buffer)
