"""The command line: arguments in, a call of plait.api, what it returns out. Nothing else is decided here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from plait.errors import PlaitError

ShownError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")  # of whichever click typer uses
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Learns from tables whose cells are pictures, sentences, sounds, clips and numbers.",
)

TableArgument = Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines, Parquet, Arrow, Feather, or a folder of class folders")]
RunArgument = Annotated[str, typer.Argument(help="the folder of a trained model")]
RootOption = Annotated[str | None, typer.Option(help="where relative paths of media begin; the table's own folder if left out")]
ColumnOption = Annotated[list[str] | None, typer.Option("--column", help="name=modality or name=role, as in price=number or note=ignored")]
AlignmentOption = Annotated[str | None, typer.Option(help="which alignment, where the model has more than one")]
AlignOption = Annotated[list[str] | None, typer.Option(help="columns to put into one space, as in photo,caption; needs no target")]
TargetOption = Annotated[list[str] | None, typer.Option(help="the column to predict; may be given more than once")]


@app.callback()
def main() -> None:
    pass


@app.command(epilog="Example: plait inspect train.csv --target label")
def inspect(
    table: TableArgument,
    target: TargetOption = None,
    root: RootOption = None,
    column: ColumnOption = None,
    probe: Annotated[bool, typer.Option(help="read every cell, to say what is wrong with it")] = True,
) -> None:
    """Say what each column of a table is, and why, and what is wrong with its cells."""
    from plait import api
    from plait.table.infer import parse_columns

    api.inspect(table, target or (), root, parse_columns(column or []), probe).show()


@app.command(epilog="Example: plait fit train.csv --target label --set training.epochs=20 --out runs/first")
def fit(
    table: Annotated[str | None, typer.Argument(help="the training table (not with --resume)")] = None,
    target: TargetOption = None,
    align: AlignOption = None,
    valid: Annotated[str | None, typer.Option(help="a table to validate on; a part of the training table if left out")] = None,
    test: Annotated[str | None, typer.Option(help="a table that the model is scored on at the end, and nothing else")] = None,
    recipe: Annotated[str | None, typer.Option(help="a built-in recipe, such as classic, or a YAML file")] = None,
    column: ColumnOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="override a part of the recipe, as in training.epochs=5 or fusion=gated")] = None,
    root: RootOption = None,
    out: Annotated[str | None, typer.Option(help="the run's folder; runs/<time> if left out")] = None,
    seed: Annotated[int | None, typer.Option(help="of everything random")] = None,
    quality: Annotated[str | None, typer.Option(help="fast (one network, the default), good or best (ensembles, with pretrained vectors)")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="any unreadable cell is an error")] = False,
    resume: Annotated[str | None, typer.Option(help="go on with the stopped training in this folder")] = None,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Train a model on a table."""
    from plait import api
    from plait.table.infer import parse_columns

    if resume:
        api.resume(resume)
        return
    if table is None:
        raise typer.BadParameter("give a table, or --resume and the folder of a stopped training")
    api.fit(
        table, target or (), align=listed(*align or ()), valid=valid, test=test, recipe=recipe,
        columns=parse_columns(column or []), overrides=set_ or (), root=root, out=out, seed=seed, quality=quality, strict=strict,
    )  # fmt: skip


@app.command(epilog="Example: plait tune train.csv --target label --trials 30 --out runs/tuned")
def tune(
    table: TableArgument,
    out: Annotated[str, typer.Option(help="the run's folder; the same command goes on with the trials in it")],
    target: TargetOption = None,
    align: AlignOption = None,
    trials: Annotated[int, typer.Option(min=1, help="recipes to try, the given one among them")] = 20,
    valid: Annotated[str | None, typer.Option(help="a table to choose by; a part of the training table if left out")] = None,
    test: Annotated[str | None, typer.Option(help="a table that the last model is scored on, and nothing else")] = None,
    recipe: Annotated[str | None, typer.Option(help="a built-in recipe, or a YAML file; its tuning.space says what is tried")] = None,
    column: ColumnOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="override a part of the recipe, as in training.epochs=5")] = None,
    root: RootOption = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    quality: Annotated[str | None, typer.Option(help="of the last fit: fast, good or best")] = None,
) -> None:
    """Try recipes on validation rows, then train the best one."""
    from plait import tuning
    from plait.table.infer import parse_columns

    tuning.tune(
        table, target or (), align=listed(*align or ()), out=out, trials=trials, valid=valid, test=test, recipe=recipe,
        columns=parse_columns(column or []), overrides=set_ or (), root=root, seed=seed, quality=quality,
    )  # fmt: skip


@app.command(epilog="Example: plait evaluate runs/first test.csv --out scores.json")
def evaluate(
    run: RunArgument,
    table: TableArgument,
    root: RootOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="also write the scores to this JSON file")] = None,
    subsets: Annotated[bool, typer.Option(help="also score every subset of the inputs")] = True,
) -> None:
    """Score a model on a labelled table, with intervals."""
    from plait import api, artifact

    found = api.load(run).evaluate(table, root, subsets).show()
    if out:
        artifact.write_json(Path(out), found.to_dict())


@app.command(epilog="Example: plait predict runs/first new.csv -o answers.csv")
def predict(
    run: RunArgument,
    table: TableArgument,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow by its ending; the terminal if left out")
    ] = None,
    root: RootOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="the table's own columns too, so that another model can read the answers")] = False,
) -> None:
    """Answer each row of a table: the same rows, in the same order. What is spoken lies in WAV files, in a folder beside the output."""
    from plait import api
    from plait.table import write

    if out:
        write.check_ending(Path(out))
    answers = api.load(run).predict(table, root, keep)
    if out:
        answers = write.with_files(answers, Path(out))
        write.write(answers, Path(out))
        typer.echo(f"{answers.num_rows:,} rows written to {out}", err=True)
    else:
        write.to_stream(write.with_files(answers, Path("answers")), sys.stdout.buffer)


@app.command(epilog="Example: plait transcribe whisper-tiny/ calls.csv --column recording -o read.csv")
def transcribe(
    model: Annotated[str, typer.Argument(help="a folder or a Hugging Face name: a CTC network, or one such as Whisper")],
    table: TableArgument,
    column: Annotated[str | None, typer.Option(help="the column of recordings, where the table has several columns")] = None,
    name: Annotated[str, typer.Option(help="of the new column")] = "transcript",
    language: Annotated[str | None, typer.Option(help="for networks that take one")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; the terminal if left out")] = None,
    root: RootOption = None,
) -> None:
    """Write down what is said in a table's recordings, by a pretrained network as it is."""
    from plait.table import write
    from plait.transcriber import transcribe

    if out:
        write.check_ending(Path(out))
    found = transcribe(model, table, column, name=name, language=language, root=root)
    if out:
        write.write(found, Path(out))
    else:
        write.to_stream(found, sys.stdout.buffer)


@app.command(epilog="Example: plait speak mms-tts-eng/ sentences.csv --column text -o spoken.csv")
def speak(
    model: Annotated[str, typer.Argument(help="a folder or a Hugging Face name: a network such as VITS or SpeechT5")],
    table: TableArgument,
    out: Annotated[str, typer.Option("--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; WAV files lie in a folder beside it")],
    column: Annotated[str | None, typer.Option(help="the column of texts, where the table has several columns")] = None,
    name: Annotated[str, typer.Option(help="of the new column")] = "speech",
    vocoder: Annotated[str | None, typer.Option(help="for networks that make spectra (SpeechT5): what makes waves of them")] = None,
    voice: Annotated[str | None, typer.Option(help="the number of a voice, or a file of NumPy with its vector")] = None,
    root: RootOption = None,
) -> None:
    """Read a table's texts aloud, by a pretrained network as it is."""
    from plait.speaker import speak
    from plait.table import write

    write.check_ending(Path(out))
    found = speak(model, table, column, name=name, vocoder=vocoder, voice=voice, root=root)
    write.write(write.with_files(found, Path(out)), Path(out))
    typer.echo(f"{found.num_rows:,} rows written to {out}", err=True)


@app.command(epilog="Example: plait embed runs/first new.csv -o vectors.parquet")
def embed(
    run: RunArgument,
    table: TableArgument,
    out: Annotated[str, typer.Option("--out", "-o", help="JSON Lines, Parquet, Feather or Arrow by its ending")],
    root: RootOption = None,
    column: Annotated[str | None, typer.Option(help="an aligned column, for its vectors in the space of the alignment")] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Write the fused vector of each row, or a column's vector in the space of an alignment."""
    from plait import api
    from plait.table import write

    write.check_ending(Path(out))
    vectors = api.load(run).embed(table, root, column, alignment)
    write.write_vectors(vectors, Path(out))
    typer.echo(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} written to {out}", err=True)


IndexOption = Annotated[str | None, typer.Option("--index", help="folder or address (s3://...) of the index; RUN/index if left out")]


@app.command(epilog="Example: plait index runs/pairs shop.csv")
def index(
    run: RunArgument,
    table: Annotated[str | None, typer.Argument(help="rows to add; left out, the index is only described")] = None,
    place: IndexOption = None,
    root: RootOption = None,
    delete: Annotated[str | None, typer.Option(help='delete the rows of which this is true, as in "price > 10"')] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Make an index of a table's rows, for search; or add rows to it, or delete some."""
    from plait import api

    opened = api.load(run).index(table, place, root, alignment)
    if delete is not None:
        typer.echo(f"{opened.delete(delete):,} rows deleted", err=True)
    typer.echo(f"{len(opened):,} rows; vectors of {', '.join(opened.about.columns)}; columns {', '.join(opened.plain[1:])}")


@app.command(epilog='Example: plait search runs/pairs "a red apple" --in photo')
def search(
    run: RunArgument,
    query: Annotated[list[str], typer.Argument(help="a text, a file, or column=cell; several column=cell ask by all of them")],
    in_: Annotated[str | None, typer.Option("--in", help="the column that is searched, where there is more than one")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="rows to find")] = 10,
    where: Annotated[str | None, typer.Option(help='a condition on the index\'s columns, as in "price < 10"')] = None,
    place: IndexOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="look at every row of a large index")] = False,
    alignment: AlignmentOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="also write what was found to this file")] = None,
) -> None:
    """Find the rows of an index that go best with a text, a picture, a sound or a clip."""
    from plait import api
    from plait.table import write

    if out:
        write.check_ending(Path(out))
    model = api.load(run)
    found = model.search(model.asked(query, alignment), k, in_, where, place, exact=exact, alignment=alignment)
    write.show(found)
    if out:
        write.write(found, Path(out))


@app.command(epilog='Example: plait classify runs/pairs photos/ --labels "a cat,a dog" --template "a photo of {}"')
def classify(
    run: RunArgument,
    table: Annotated[str, typer.Argument(help="a table, or a folder of files")],
    labels: Annotated[str, typer.Option(help="the labels, with commas between them")],
    template: Annotated[list[str] | None, typer.Option(help="a text with {} where the label goes; may be given more than once")] = None,
    threshold: Annotated[list[str] | None, typer.Option(help="least cosine, for all labels (0.2) or for one (a cat=0.2)")] = None,
    column: Annotated[str | None, typer.Option(help="the column whose cells are recognised, where there is more than one")] = None,
    text: Annotated[str | None, typer.Option(help="the text column that labels are like, where there is more than one")] = None,
    alignment: AlignmentOption = None,
    root: RootOption = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; the terminal if left out")] = None,
) -> None:
    """Say which of some labels fits each picture, sound or clip, though the model was trained for none of them."""
    from plait import api
    from plait.table import write
    from plait.trained import thresholds

    if out:
        write.check_ending(Path(out))
    names = listed(labels)
    found = api.load(run).classify(table, names, column, template or ("{}",), thresholds(threshold or (), names), text, root, alignment)
    if out:
        write.write(found, Path(out))
    else:
        write.to_stream(found, sys.stdout.buffer)


@app.command(epilog="Example: plait report runs/first")
def report(run: RunArgument) -> None:
    """Write a run's report.html again and say where it lies."""
    from plait import artifact
    from plait import report as page

    page.write(Path(run), artifact.load(run))
    typer.echo(str(Path(run) / "report.html"))


@app.command(epilog="Example: plait options encoders lstm")
def options(
    kind: Annotated[str | None, typer.Argument(help="modalities, encoders, fusion, tasks, balancing, members, or recipe; all if left out")] = None,
    name: Annotated[str | None, typer.Argument(help="one component; all of the kind if left out")] = None,
) -> None:
    """List the components and their options, as a recipe takes them."""
    from plait import documentation

    typer.echo(documentation.options(kind, name))


@app.command(epilog="Example: plait cache --clear")
def cache(clear: Annotated[bool, typer.Option("--clear", help="forget everything in it")] = False) -> None:
    """Show what the cache of prepared pictures, sounds and clips holds, or clear it."""
    from plait.cache import Cache, folder

    with Cache(folder()) as cells:
        if clear:
            cells.clear()
        cells.usage().show()


@app.command(epilog="Example: plait demo stamps")
def demo(
    sample: Annotated[
        str | None, typer.Argument(help="stamps, clips or digits; stamps where Debian's package client is at hand, if left out")
    ] = None,
    cache: Annotated[str | None, typer.Option(help="where sample tables are kept; ~/.cache/plait/samples if left out")] = None,
    out: Annotated[str | None, typer.Option(help="the run's folder; runs/demo-<sample>-<time> if left out")] = None,
) -> None:
    """Fetch a real table, train on it, compare, and show predictions."""
    from plait import demonstration

    demonstration.run(sample, cache, out)


def listed(*texts: str) -> list[str]:
    """The parts between commas."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1 for an error that the user can act on, 2 for wrong
    arguments, 130 after Ctrl-C. `--debug` anywhere shows tracebacks."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        command = typer.main.get_command(app)  # calling `app` itself would put typer's own excepthook in place
        result: Any = command(args=[a for a in arguments if a != "--debug"], prog_name="plait", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except PlaitError as error:
        if debug:
            raise
        typer.echo(f"plait: {error}", err=True)
        return 130 if type(error).__name__ == "Interrupted" else 1
    except KeyboardInterrupt:
        typer.echo("plait: stopped", err=True)
        return 130
    except (typer.Abort, BrokenPipeError):
        return 1
    except ShownError as error:  # wrong arguments: typer says which
        error.show()
        return int(error.exit_code)


def say_bug(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """What a user sees of an error that nobody foresaw."""
    typer.echo(f"plait: this is a bug in plait: {kind.__name__}: {error}\nRun it again with --debug and report what it shows.", err=True)


def entry() -> None:
    if "--debug" not in sys.argv:
        sys.excepthook = say_bug
    sys.exit(run())
