"""Commands that look at a table, train on it, and judge the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import plait
from plait.cli.app import STARTED, app
from plait.cli.arguments import (
    AlignOption,
    ColumnOption,
    QualityOption,
    RecipeOption,
    RootOption,
    RunArgument,
    SeedOption,
    SetOption,
    TableArgument,
    TargetOption,
    TestOption,
    TimeLimitOption,
    ValidOption,
    listed,
)
from plait.errors import RecipeError


@app.command(epilog="Example: plait inspect train.csv --target label")
def inspect(
    table: TableArgument,
    target: TargetOption = None,
    root: RootOption = None,
    column: ColumnOption = None,
    probe: Annotated[bool, typer.Option(help="Read every cell and report the bad ones.")] = True,
) -> None:
    """Say what each column is and why, and which cells are bad."""
    from plait.data.arguments import parse_columns

    columns = parse_columns(column or [])
    plait.inspect(table, target or (), root, columns, probe).show()


# Options of fit and tune that `plait.fit` takes by the same names.
_SHARED = ("valid", "test", "recipe", "root", "out", "seed", "quality")


def _training_arguments(context: typer.Context) -> dict[str, Any]:
    """Return the options that `plait fit` and `plait tune` share, as `plait.fit` takes them.

    Both commands declare these options, so that `--help` shows them, and leave reading them to this.
    """
    from plait.data.arguments import parse_columns

    options = context.params
    arguments = {name: options[name] for name in _SHARED}
    arguments["align"] = listed(*options["align"] or ())
    arguments["columns"] = parse_columns(options["column"] or [])
    arguments["overrides"] = options["set_"] or ()
    return arguments


def _seconds_left(limit: str | None) -> float | None:
    """Return how many seconds of a limit are left, now that the command has started and loaded what it needs.

    Raises `RecipeError` for a limit that is none, or that is over already.
    """
    if limit is None:
        return None
    import plait.api.fit  # noqa: F401  (it loads torch, which takes a second or more)
    from plait.runs.deadline import SHORTEST, seconds_of

    taken = time.monotonic() - STARTED
    left = seconds_of(limit) - taken
    if left < SHORTEST:
        raise RecipeError(
            f"time limit '{limit}': the command takes {taken:.1f} s to start; give it more time"
        )
    return left


@app.command(epilog="Example: plait fit train.csv --target label --set training.epochs=20 --out runs/first")
def fit(
    context: typer.Context,
    table: Annotated[
        str | None, typer.Argument(help="The training table. May be left out with --resume.")
    ] = None,
    target: TargetOption = None,
    align: AlignOption = None,
    valid: ValidOption = None,
    test: TestOption = None,
    recipe: RecipeOption = None,
    column: ColumnOption = None,
    set_: SetOption = None,
    root: RootOption = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder of the run, whose stopped training is continued. Default: runs/TIME."),
    ] = None,
    seed: SeedOption = None,
    quality: QualityOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any cell cannot be read.")] = False,
    time_limit: TimeLimitOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Continue the stopped training in this folder, with its own options. Other options must be "
            "left out, or be those of the command that began it."
        ),
    ] = None,
) -> None:
    """Train a model on a table."""
    from plait.api.fit import resume as resume_fit

    if resume is not None and _resumes_alone(context):
        resume_fit(resume, time_limit=_seconds_left(time_limit))
        return
    if table is None:
        raise typer.BadParameter("expected a table, or --resume and the folder of a stopped training")
    arguments = _training_arguments(context)
    if resume is not None:
        arguments |= {"out": resume, "resume": True}
    arguments["time_limit"] = _seconds_left(time_limit)
    plait.fit(table, target or (), strict=strict, **arguments)


def _resumes_alone(context: typer.Context) -> bool:
    """Return whether `--resume` stands alone, so that the run's own options hold.

    Beside the whole command that began the run it is fine too: the run checks that both agree. Raises
    `BadParameter` for some options of it, which would be ignored.
    """
    stated = _stated(context)
    if not stated:
        return True

    is_whole = "table" in stated and ("target" in stated or "align" in stated or "recipe" in stated)
    out = context.params["out"]
    if is_whole and (out is None or Path(out) == Path(context.params["resume"])):
        return False
    raise typer.BadParameter(
        f"--resume goes on with the options that the run was begun with, and ignores none: leave out "
        f"{', '.join(stated.values())}, or repeat the whole command, with the folder of the run as --out"
    )


def _stated(context: typer.Context) -> dict[str, str]:
    """Return the longest spelling of each argument and option beside `--resume` that the user has given."""
    stated = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in ("resume", "debug", "time_limit") and source and source.name == "COMMANDLINE":
            stated[name] = max(parameter.opts, key=len)
    return stated


@app.command(epilog="Example: plait tune train.csv --target label --trials 30 --out runs/tuned")
def tune(
    context: typer.Context,
    table: TableArgument,
    out: Annotated[str, typer.Option(help="Folder of the run. The same command continues the trials in it.")],
    target: TargetOption = None,
    align: AlignOption = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of recipes to try, yours included.")] = 20,
    valid: ValidOption = None,
    test: TestOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A built-in recipe, or a YAML file. Its tuning.space says which options change."),
    ] = None,
    column: ColumnOption = None,
    set_: SetOption = None,
    root: RootOption = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    time_limit: TimeLimitOption = None,
    quality: Annotated[
        str | None, typer.Option(help="Quality of the final model: network, fast, good or best.")
    ] = None,
) -> None:
    """Try several recipes on validation rows, then train the best."""
    arguments = _training_arguments(context)
    arguments["time_limit"] = _seconds_left(time_limit)
    plait.tune(table, target or (), trials=trials, **arguments)


@app.command(epilog="Example: plait evaluate runs/first test.csv --out scores.json")
def evaluate(
    run: RunArgument,
    table: TableArgument,
    root: RootOption = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="JSON file to write the scores to as well.")
    ] = None,
    subsets: Annotated[bool, typer.Option(help="Also score every subset of the inputs.")] = True,
) -> None:
    """Score a model on a table with targets, with intervals."""
    from plait.disk.whole import check_file, make_folder
    from plait.runs import files

    if out:
        check_file(Path(out))
    scores = plait.load(run).evaluate(table, root, subsets).show()
    if out:
        make_folder(Path(out).parent)
        files.write_json(Path(out), scores.to_dict())


@app.command(epilog="Example: plait report runs/first")
def report(run: RunArgument) -> None:
    """Write a run's report.html again and print its path."""
    from plait.disk.whole import check_folder
    from plait.evaluation.report import write
    from plait.prediction.artifact import load

    folder = Path(run)
    if folder.is_dir():
        check_folder(folder)
    write(folder, load(run))
    typer.echo(str(folder / "report.html"))
