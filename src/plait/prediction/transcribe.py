"""Pretrained networks of Hugging Face that write what is said: run as they are, on a table's recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait.console import Screen
from plait.errors import BadCell
from plait.media.audio import read_sound
from plait.media.cell import Media
from plait.prediction import pretrained
from plait.pretrained import files, network
from plait.table.read import read
from plait.table.schema import origin
from plait.table.table import only_column
from plait.tasks.writing.pretrained_speech import aligns

LONGEST = 4 * 3600.0  # seconds of a recording


WINDOW = 30.0  # seconds that a network is given at once


TOGETHER = 8  # windows


class Transcriber:
    """A network with a CTC head (as Wav2Vec2ForCTC), or one that generates text from speech (as
    Whisper), from a folder or the hub's cache: safetensors only, never foreign code. Long recordings
    are read in windows of 30 s, cut where it is quietest near a window's end.
    """

    def __init__(self, model: str, language: str | None = None) -> None:
        """Raises `RecipeError` when it is no such network, or its files lack something."""
        folder = files.find(model)
        self.aligns, self.language = aligns(model), language
        with pretrained.loading(model, "transcriber") as transformers:
            loader = transformers.AutoModelForCTC if self.aligns else transformers.AutoModelForSpeechSeq2Seq
            self.extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **pretrained.SAFELY)
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **pretrained.SAFELY)
            self.network = pretrained.network(loader, folder)

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> str:
        """The text of one recording, mono at the network's own rate."""
        parts = stretches(wave, int(WINDOW * self.extractor.sampling_rate))
        return " ".join(
            text
            for first in range(0, len(parts), TOGETHER)
            for text in self._read(parts[first : first + TOGETHER])
            if text
        )

    def _read(self, waves: list[np.ndarray]) -> list[str]:
        asked = {"padding": True} if self.aligns else {}
        given = self.extractor(
            waves,
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
            return_attention_mask=True,
            **asked,
        )
        if self.aligns:
            ids = self.network(**given).logits.argmax(-1)
        else:
            with network.quiet():
                ids = self.network.generate(**given, **({"language": self.language} if self.language else {}))
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def stretches(wave: np.ndarray, longest: int) -> list[np.ndarray]:
    """A recording cut into stretches of at most `longest` samples, where the tenth part before a
    stretch's end is quietest.
    """
    parts, quiet = [], max(longest // 100, 1)
    while len(wave) > longest:
        start = longest - longest // 10
        power = np.convolve(wave[start:longest] ** 2, np.ones(quiet), "valid")
        at = start + int(power.argmin()) + quiet // 2
        parts.append(wave[:at])
        wave = wave[at:]
    return [*parts, wave]


def transcribe(
    model: str | Path,
    data: object,
    column: str | None = None,
    *,
    name: str = "transcript",
    language: str | None = None,
    root: str | Path | None = None,
    quiet: bool = False,
) -> pa.Table:
    """The table with what is said in the recordings of `column` beside it, as `name`, null where there
    is none, and `problem`.

    `model` is a folder or a hub's name (see `Transcriber`). `column` may be left out where the table
    has one. `language` is for networks that take one. Raises `RecipeError` for a model that does not
    fit, `TableError` for a wrong column.
    """
    screen, table = Screen(quiet), read(data, root)
    column = only_column(table, column, "recordings")
    cells = table.column(origin(column, table.data.column_names))
    heard = Transcriber(str(model), language)

    def text(cell: object) -> str | None:
        media = Media(cell, table.root)
        try:
            wave = read_sound(media.content, heard.extractor.sampling_rate, LONGEST).wave
        except BadCell as bad:
            raise BadCell(bad.reason, media.file) from None
        return None if wave is None else heard(wave)

    return pretrained.answered(table, column, cells, text, name, pa.string(), screen, "transcribing")
