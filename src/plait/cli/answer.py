"""Commands that answer rows: predict, transcribe, speak, embed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import AlignmentOption, RootOption, RunArgument, TableArgument


@app.command(epilog="Example: plait predict runs/first new.csv -o answers.csv")
def predict(
    run: RunArgument,
    table: TableArgument,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow by its ending; the terminal if left out",
        ),
    ] = None,
    root: RootOption = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="the table's own columns too, so that another model can read the answers"
        ),
    ] = False,
) -> None:
    """Answer each row of a table: the same rows, in the same order. Speech lies in WAV files, in a folder
    beside the output.
    """
    from plait.table import write

    if out:
        write.check_output(Path(out))
    answers = plait.load(run).predict(table, root, keep)
    if out:
        answers = write.with_files(answers, Path(out))
        write.write(answers, Path(out))
        typer.echo(f"{answers.num_rows:,} rows written to {out}", err=True)
    else:
        write.to_stream(write.with_files(answers, Path("answers")), sys.stdout.buffer)


@app.command(epilog="Example: plait transcribe whisper-tiny/ calls.csv --column recording -o read.csv")
def transcribe(
    model: Annotated[
        str, typer.Argument(help="a folder or a Hugging Face name: a CTC network, or one such as Whisper")
    ],
    table: TableArgument,
    column: Annotated[
        str | None, typer.Option(help="the column of recordings, where the table has several columns")
    ] = None,
    name: Annotated[str, typer.Option(help="of the new column")] = "transcript",
    language: Annotated[str | None, typer.Option(help="for networks that take one")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; the terminal if left out"
        ),
    ] = None,
    root: RootOption = None,
) -> None:
    """Write down what is said in a table's recordings, by a pretrained network as it is."""
    from plait.table import write

    if out:
        write.check_output(Path(out))
    texts = plait.transcribe(model, table, column, name=name, language=language, root=root)
    if out:
        write.write(texts, Path(out))
    else:
        write.to_stream(texts, sys.stdout.buffer)


@app.command(epilog="Example: plait speak mms-tts-eng/ sentences.csv --column text -o spoken.csv")
def speak(
    model: Annotated[
        str, typer.Argument(help="a folder or a Hugging Face name: a network such as VITS or SpeechT5")
    ],
    table: TableArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="CSV, TSV, JSON Lines, Parquet, Feather or Arrow; WAV files lie in a folder beside it",
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="the column of texts, where the table has several columns")
    ] = None,
    name: Annotated[str, typer.Option(help="of the new column")] = "speech",
    vocoder: Annotated[
        str | None, typer.Option(help="for networks that make spectra (SpeechT5): what makes waves of them")
    ] = None,
    voice: Annotated[
        str | None, typer.Option(help="the number of a voice, or a file of NumPy with its vector")
    ] = None,
    root: RootOption = None,
) -> None:
    """Read a table's texts aloud, by a pretrained network as it is."""
    from plait.table import write

    write.check_output(Path(out))
    speech = plait.speak(model, table, column, name=name, vocoder=vocoder, voice=voice, root=root)
    write.write(write.with_files(speech, Path(out)), Path(out))
    typer.echo(f"{speech.num_rows:,} rows written to {out}", err=True)


@app.command(epilog="Example: plait embed runs/first new.csv -o vectors.parquet")
def embed(
    run: RunArgument,
    table: TableArgument,
    out: Annotated[
        str, typer.Option("--out", "-o", help="JSON Lines, Parquet, Feather or Arrow by its ending")
    ],
    root: RootOption = None,
    column: Annotated[
        str | None, typer.Option(help="an aligned column, for its vectors in the space of the alignment")
    ] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Write the fused vector of each row, or a column's vector in the space of an alignment."""
    from plait.table import write

    write.check_output(Path(out))
    vectors = plait.load(run).embed(table, root, column, alignment)
    write.write_vectors(vectors, Path(out))
    typer.echo(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} written to {out}", err=True)
