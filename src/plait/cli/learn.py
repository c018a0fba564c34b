"""Commands that look at a table, train on it, and judge the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import (
    AlignOption,
    ColumnOption,
    RootOption,
    RunArgument,
    TableArgument,
    TargetOption,
    listed,
)


@app.command(epilog="Example: plait inspect train.csv --target label")
def inspect(
    table: TableArgument,
    target: TargetOption = None,
    root: RootOption = None,
    column: ColumnOption = None,
    probe: Annotated[bool, typer.Option(help="read every cell, to say what is wrong with it")] = True,
) -> None:
    """Say what each column of a table is, and why, and what is wrong with its cells."""
    from plait.data.arguments import parse_columns

    plait.inspect(table, target or (), root, parse_columns(column or []), probe).show()


@app.command(epilog="Example: plait fit train.csv --target label --set training.epochs=20 --out runs/first")
def fit(
    table: Annotated[str | None, typer.Argument(help="the training table (not with --resume)")] = None,
    target: TargetOption = None,
    align: AlignOption = None,
    valid: Annotated[
        str | None, typer.Option(help="a table to validate on; a part of the training table if left out")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="a table that the model is scored on at the end, and nothing else")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="a built-in recipe, such as classic, or a YAML file")
    ] = None,
    column: ColumnOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="override a part of the recipe, as in training.epochs=5 or fusion=gated"),
    ] = None,
    root: RootOption = None,
    out: Annotated[str | None, typer.Option(help="the run's folder; runs/<time> if left out")] = None,
    seed: Annotated[int | None, typer.Option(help="of everything random")] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            help="fast (one network, the default), good or best (ensembles, with pretrained vectors)"
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="any unreadable cell is an error")] = False,
    resume: Annotated[str | None, typer.Option(help="go on with the stopped training in this folder")] = None,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Train a model on a table."""
    from plait.api.fit import resume as resume_fit
    from plait.data.arguments import parse_columns

    if resume:
        resume_fit(resume)
        return
    if table is None:
        raise typer.BadParameter("give a table, or --resume and the folder of a stopped training")
    plait.fit(
        table,
        target or (),
        align=listed(*align or ()),
        valid=valid,
        test=test,
        recipe=recipe,
        columns=parse_columns(column or []),
        overrides=set_ or (),
        root=root,
        out=out,
        seed=seed,
        quality=quality,
        strict=strict,
    )


@app.command(epilog="Example: plait tune train.csv --target label --trials 30 --out runs/tuned")
def tune(
    table: TableArgument,
    out: Annotated[
        str, typer.Option(help="the run's folder; the same command goes on with the trials in it")
    ],
    target: TargetOption = None,
    align: AlignOption = None,
    trials: Annotated[int, typer.Option(min=1, help="recipes to try, the given one among them")] = 20,
    valid: Annotated[
        str | None, typer.Option(help="a table to choose by; a part of the training table if left out")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="a table that the last model is scored on, and nothing else")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="a built-in recipe, or a YAML file; its tuning.space says what is tried"),
    ] = None,
    column: ColumnOption = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="override a part of the recipe, as in training.epochs=5")
    ] = None,
    root: RootOption = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    quality: Annotated[str | None, typer.Option(help="of the last fit: fast, good or best")] = None,
) -> None:
    """Try recipes on validation rows, then train the best one."""
    from plait.data.arguments import parse_columns

    plait.tune(
        table,
        target or (),
        align=listed(*align or ()),
        out=out,
        trials=trials,
        valid=valid,
        test=test,
        recipe=recipe,
        columns=parse_columns(column or []),
        overrides=set_ or (),
        root=root,
        seed=seed,
        quality=quality,
    )


@app.command(epilog="Example: plait evaluate runs/first test.csv --out scores.json")
def evaluate(
    run: RunArgument,
    table: TableArgument,
    root: RootOption = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="also write the scores to this JSON file")
    ] = None,
    subsets: Annotated[bool, typer.Option(help="also score every subset of the inputs")] = True,
) -> None:
    """Score a model on a labelled table, with intervals."""
    from plait.runs import files

    scores = plait.load(run).evaluate(table, root, subsets).show()
    if out:
        files.write_json(Path(out), scores.to_dict())


@app.command(epilog="Example: plait report runs/first")
def report(run: RunArgument) -> None:
    """Write a run's report.html again and say where it lies."""
    from plait.evaluation.report import write
    from plait.prediction.artifact import load

    write(Path(run), load(run))
    typer.echo(str(Path(run) / "report.html"))
