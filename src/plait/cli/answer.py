"""Commands that answer rows: predict, transcribe, speak, embed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import (
    AlignmentOption,
    OutOption,
    PretrainedArgument,
    RootOption,
    RunArgument,
    TableArgument,
)
from plait.console import Screen
from plait.errors import count

if TYPE_CHECKING:
    import pyarrow as pa


@app.command(epilog="Example: plait predict runs/first new.csv -o answers.csv")
def predict(
    run: RunArgument,
    table: TableArgument,
    out: OutOption = None,
    root: RootOption = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Write the table's own columns too, so that another model can read them."
        ),
    ] = False,
) -> None:
    """Predict the targets of each row of a table.

    The answers have the same rows in the same order. Speech is written as WAV files, into a folder beside the
    output.
    """
    from plait.table import write

    if out:
        write.check_output(Path(out))
    answers = plait.load(run).predict(table, root, keep)
    if out:
        _write_with_files(answers, Path(out))
    else:
        write.to_stream(write.with_files(answers, Path("answers")), sys.stdout.buffer)


@app.command(epilog="Example: plait transcribe whisper-tiny/ calls.csv --column recording -o read.csv")
def transcribe(
    model: PretrainedArgument,
    table: TableArgument,
    column: Annotated[
        str | None, typer.Option(help="The column of recordings, if the table has several columns.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new column.")] = "transcript",
    language: Annotated[
        str | None, typer.Option(help="Language of the recordings, for networks that ask for it.")
    ] = None,
    out: OutOption = None,
    root: RootOption = None,
) -> None:
    """Transcribe a table's recordings with a pretrained network.

    The network is used as it is, without training: one with a CTC head, or one such as Whisper.
    """
    from plait.table import write

    if out:
        write.check_output(Path(out))
    texts = plait.transcribe(model, table, column, name=name, language=language, root=root)
    if out:
        write.write(texts, Path(out))
    else:
        write.to_stream(texts, sys.stdout.buffer)


@app.command(epilog="Example: plait speak mms-tts-eng/ texts.csv --column text -o spoken.csv")
def speak(
    model: PretrainedArgument,
    table: TableArgument,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="File to write: .csv, .tsv, .jsonl, .parquet, .feather or .arrow. "
            "WAV files go into a folder beside it.",
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="The column of texts, if the table has several columns.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the new column.")] = "speech",
    vocoder: Annotated[
        str | None,
        typer.Option(help="The network that turns spectra into a wave, for networks such as SpeechT5."),
    ] = None,
    voice: Annotated[
        str | None, typer.Option(help="The number of a voice, or a NumPy file with the vector of one.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Read a table's texts aloud with a pretrained network.

    The network is used as it is, without training: one such as VITS or SpeechT5.
    """
    from plait.table import write

    write.check_output(Path(out))
    speech = plait.speak(model, table, column, name=name, vocoder=vocoder, voice=voice, root=root)
    _write_with_files(speech, Path(out))


def _write_with_files(answers: pa.Table, out: Path) -> None:
    """Write a table, and the media in its cells as files in a folder beside it."""
    from plait.table import write

    answers = write.with_files(answers, out)
    write.write(answers, out)
    Screen().say(f"{count(answers.num_rows, 'row')} written to {out}")


@app.command(epilog="Example: plait embed runs/first new.csv -o vectors.parquet")
def embed(
    run: RunArgument,
    table: TableArgument,
    out: Annotated[
        str, typer.Option("--out", "-o", help="File to write: .jsonl, .parquet, .feather or .arrow.")
    ],
    root: RootOption = None,
    column: Annotated[
        str | None, typer.Option(help="Embed only this column, in the space of an alignment.")
    ] = None,
    alignment: AlignmentOption = None,
) -> None:
    """Write one vector for each row of a table.

    It is the fused vector, or with --column the column's vector in the space of an alignment.
    """
    from plait.table import write

    write.check_output(Path(out))
    vectors = plait.load(run).embed(table, root, column, alignment)
    write.write_vectors(vectors, Path(out))
    rows, width = vectors.shape
    Screen().say(f"{count(rows, 'vector')} of {width} numbers written to {out}")
