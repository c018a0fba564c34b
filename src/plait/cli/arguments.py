"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from plait.errors import RecipeError

TableArgument = Annotated[
    str,
    typer.Argument(
        help="CSV, TSV, JSON, Parquet, Arrow, Feather, ORC, XLSX, ODS; a glob or folder of such; a folder of "
        "class folders; - for standard input"
    ),
]

RunArgument = Annotated[str, typer.Argument(help="The folder of a trained model.")]

RootOption = Annotated[
    str | None,
    typer.Option(help="Folder that relative paths of media start from. Default: the table's own folder."),
]

# The roles of columns: those of `plait.table.schema`, which `--help` does not wait to import.
ROLES = {
    "input": "the model reads it",
    "target": "it is predicted",
    "id": "it names rows, stands beside answers, and is not learned from",
    "group": "rows with the same value stay on one side of the split",
    "split": "its cells are train, valid or test",
    "ignored": "it is left out",
}
ROLE_HELP = "\n".join(f"{role:<8} {meaning}" for role, meaning in ROLES.items())

ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=WORD",
        help="What a column is: name=modality or name=role, such as price=number or note=ignored. "
        f"A name with = in it stands in quotes: '\"a=b\"=text'. May be repeated. `plait options modalities` "
        f"lists modalities. The roles are:\n\n\b\n{ROLE_HELP}",
    ),
]

AlignmentOption = Annotated[
    str | None, typer.Option(help="The alignment to use, if the model has more than one.")
]

AlignOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMNS", help="Columns to embed in one space, such as photo,caption. Needs no target."
    ),
]

TargetOption = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="The column to predict. May be repeated.")
]

IndexOption = Annotated[
    str | None,
    typer.Option("--index", help="Folder or address (s3://...) of the index. Default: RUN/index."),
]

OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="File to write: .csv, .tsv, .jsonl, .parquet, .feather or .arrow. Default: print as CSV.",
    ),
]

PretrainedArgument = Annotated[
    str, typer.Argument(help="The folder of a pretrained network, or its Hugging Face name.")
]

ValidOption = Annotated[
    str | None, typer.Option(help="Table to validate on. Default: some rows of the training table.")
]

TestOption = Annotated[str | None, typer.Option(help="Table to score the final model on.")]

RecipeOption = Annotated[str | None, typer.Option(help="A built-in recipe, such as classic, or a YAML file.")]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="OPTION=VALUE",
        help="Set an option of the recipe, such as training.epochs=5 or fusion=gated. A column's name with "
        "a dot or = in it stands in quotes: 'columns.\"a.b\".role=id'. May be repeated.",
    ),
]

SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.")]

QualityOption = Annotated[
    str | None,
    typer.Option(
        help="network: one network. fast (the default): also what ends within seconds. good, best: ensembles."
    ),
]


TimeLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long the whole command may take, as in 90s, 10m or 2h. It trains less then, and keeps the "
        "best model that it has.",
    ),
]


def listed(*texts: str) -> list[str]:
    """Return the names between commas, without spaces around them."""
    names = []
    for text in texts:
        for name in text.split(","):
            if name.strip():
                names.append(name.strip())
    return names


def parse_thresholds(texts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Read thresholds: `0.2` for all labels, `a cat=0.3` for one. A later one replaces an earlier one.

    Raises `RecipeError` for a text without a number.
    """
    by_label: dict[str, float] = {}
    for text in texts:
        label, _, number = text.rpartition("=")
        try:
            cosine = float(number)
        except ValueError:
            raise RecipeError(f"threshold '{text}': expected a number, or label=number") from None
        by_label.update(dict.fromkeys([label] if label else labels, cosine))
    return by_label
