"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

TableArgument = Annotated[
    str,
    typer.Argument(
        help="CSV, TSV, JSON, Parquet, Arrow, Feather, ORC, XLSX, ODS; a glob or folder of such; a folder of "
        "class folders; - for standard input"
    ),
]

RunArgument = Annotated[str, typer.Argument(help="the folder of a trained model")]

RootOption = Annotated[
    str | None, typer.Option(help="where relative paths of media begin; the table's own folder if left out")
]

ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="name=modality or name=role, as in price=number or note=ignored"),
]

AlignmentOption = Annotated[
    str | None, typer.Option(help="which alignment, where the model has more than one")
]

AlignOption = Annotated[
    list[str] | None, typer.Option(help="columns to put into one space, as in photo,caption; needs no target")
]

TargetOption = Annotated[
    list[str] | None, typer.Option(help="the column to predict; may be given more than once")
]

IndexOption = Annotated[
    str | None,
    typer.Option("--index", help="folder or address (s3://...) of the index; RUN/index if left out"),
]


def listed(*texts: str) -> list[str]:
    """Return the names between commas, without spaces around them."""
    names = []
    for text in texts:
        names += [name.strip() for name in text.split(",")]
    return [name for name in names if name]
