"""Transcribe a table's recordings by a pretrained network of Hugging Face, as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.console import Screen
from plait.errors import BadCell, RecipeError
from plait.media.audio import read_audio
from plait.media.cell import Media
from plait.prediction import pretrained
from plait.pretrained import files, network
from plait.table.read import read
from plait.table.schema import origin
from plait.table.table import only_column
from plait.tasks.writing.pretrained_speech import aligns

LONGEST = 4 * 3600.0  # seconds of a recording
WINDOW = 30.0  # seconds that a network reads at once
TOGETHER = 8  # windows in one run of the network


class Transcriber:
    """A network with a CTC head (as Wav2Vec2ForCTC), or one that generates text (as Whisper).

    It comes from a folder or the hub's cache. Only safetensors are read, and no code of the folder is run.
    Long recordings are read in windows of 30 s, cut at the quietest place near a window's end.
    """

    def __init__(self, model: str, language: str | None = None) -> None:
        """Load the network. Raises `RecipeError` if it is of another kind, or a file is missing."""
        folder = files.find(model)
        self.aligns = aligns(model)  # whether it has a CTC head
        self.language = language
        with pretrained.loading(model, "transcriber") as transformers:
            loader = transformers.AutoModelForSpeechSeq2Seq
            if self.aligns:
                loader = transformers.AutoModelForCTC
            self.extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **pretrained.SAFELY)
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **pretrained.SAFELY)
            self.network = pretrained.network(loader, folder)

    @torch.inference_mode()
    def __call__(self, wave: np.ndarray) -> str:
        """Return the text of one recording, mono at the network's sampling rate."""
        # The convolutions of a network with a CTC head need so many samples. Others pad all to 30 s anyway.
        lacking = max(network.SHORTEST - len(wave), 0)
        wave = np.pad(wave, (0, lacking))

        longest = int(WINDOW * self.extractor.sampling_rate)
        windows = stretches(wave, longest)
        texts = []
        for first in range(0, len(windows), TOGETHER):
            texts += self._read(windows[first : first + TOGETHER])
        return " ".join(text for text in texts if text)

    def _read(self, waves: list[np.ndarray]) -> list[str]:
        """Return the text of each window."""
        # Whisper's extractor pads to 30 s without being asked, and must not be asked to pad to the longest.
        padding = {"padding": True} if self.aligns else {}
        inputs = self.extractor(
            waves,
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
            return_attention_mask=True,
            **padding,
        )
        if self.aligns:
            logits_BLV = self.network(**inputs).logits
            ids_BL = logits_BLV.argmax(-1)
        else:
            ids_BL = self._generate(inputs)
        texts = self.tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _generate(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ids of tokens (B, L). Raises `RecipeError` if the network does not take the language."""
        if not self.language:
            with network.quiet():
                return self.network.generate(**inputs)
        try:
            with network.quiet():
                return self.network.generate(**inputs, language=self.language)
        except ValueError as error:
            raise RecipeError(
                f"the network does not take the language '{self.language}': {error}; leave language= out, or "
                f"name one that it knows"
            ) from error


def stretches(wave: np.ndarray, longest: int) -> list[np.ndarray]:
    """Cut a recording into stretches of at most `longest` samples.

    Each is cut at the quietest place in its last tenth, which is most likely between two words.
    """
    cut = []
    width = max(longest // 100, 1)  # samples whose power is added up
    start = longest - longest // 10
    while len(wave) > longest:
        square = wave[start:longest] ** 2
        power = np.convolve(square, np.ones(width), "valid")
        middle_of_quietest = int(power.argmin()) + width // 2
        end = start + middle_of_quietest
        cut.append(wave[:end])
        wave = wave[end:]
    return [*cut, wave]


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
    """Transcribe the recordings of `column`.

    Return the table with two new columns: `name`, the text, null where there is no recording, and `problem`.
    `model` is a folder or a hub's name (see `Transcriber`). `column` may be left out if the table has only
    one. `language` is for networks that take one.

    Raises `RecipeError` for a model that does not fit, `TableError` for a wrong column.
    """
    screen = Screen(quiet)
    table = read(data, root)
    for note in table.notes:
        screen.warn(note)
    column = only_column(table, column, "recordings")

    # Loading the network takes long: look for the column first.
    table.column(origin(column, table.data.column_names))
    transcriber = Transcriber(str(model), language)

    def text(cell: object) -> str | None:
        """Return the text of a recording; None for a video without audio."""
        media = Media(cell, table.root)
        try:
            wave = read_audio(media.content, transcriber.extractor.sampling_rate, LONGEST).wave
        except BadCell as bad:
            raise BadCell(bad.reason, media.file) from None
        return None if wave is None else transcriber(wave)

    new_column = pretrained.NewColumn(name, pa.string(), "transcribing")
    return pretrained.answer_cells(table, column, text, new_column, screen)
