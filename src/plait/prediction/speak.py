"""Pretrained networks of Hugging Face that read texts aloud: run as they are, on a table's texts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait.console import Screen
from plait.errors import BadCell, RecipeError
from plait.prediction import pretrained
from plait.pretrained import files
from plait.table.read import read
from plait.table.table import only_column
from plait.tasks.speaking.waves import wav


class Speaker:
    """A network that makes a wave of a text by itself (as VITS), or spectra, which a `vocoder`, a
    folder of its own, makes a wave of (as SpeechT5): safetensors only, never foreign code. `voice` is
    the number of one of the network's voices, or a file of NumPy with the vector of one, which SpeechT5
    needs.
    """

    def __init__(self, model: str, vocoder: str | None = None, voice: str | None = None) -> None:
        """Raises `RecipeError` when it is no such network, or its files lack something."""
        folder = files.find(model)
        self.kind = str(files.read_json(folder, "config.json").get("model_type"))
        if self.kind not in ("vits", "speecht5"):
            raise RecipeError(
                f"'{model}' is a '{self.kind}'; expected a network that reads aloud: vits or speecht5"
            )
        if (self.kind == "speecht5") != (vocoder is not None):
            need = (
                "makes spectra: say which network makes a wave of them (vocoder=, --vocoder)"
                if vocoder is None
                else "needs no vocoder: leave it out"
            )
            raise RecipeError(f"'{model}' {need}")
        self.voice = _voice(voice, self.kind)
        with pretrained.loading(model, "speaker") as transformers:
            loader = transformers.VitsModel if self.kind == "vits" else transformers.SpeechT5ForTextToSpeech
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **pretrained.SAFELY)
            self.network = pretrained.network(loader, folder)
            self.vocoder = (
                pretrained.network(transformers.SpeechT5HifiGan, files.find(vocoder)) if vocoder else None
            )
        self.rate = int((self.vocoder or self.network).config.sampling_rate)
        voices = int(getattr(self.network.config, "num_speakers", 1))
        if isinstance(self.voice, int) and not 0 <= self.voice < voices:
            raise RecipeError(f"'{model}' has {voices} voices; no voice {self.voice} among 0 to {voices - 1}")

    @torch.inference_mode()
    def __call__(self, text: str) -> np.ndarray:
        """The wave of one text, mono at `rate`. What is drawn by lot in it depends on the text only.
        Raises `BadCell` when the network knows none of its letters.
        """
        try:
            given = self.tokenizer(text, return_tensors="pt")
        except ImportError as error:
            raise RecipeError(f"the network's tokenizer needs a package that is not here: {error}") from None
        if not given["input_ids"].numel():
            raise BadCell("a text without a letter that the network knows", "")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()))
            if self.kind == "vits":
                named = {"speaker_id": self.voice} if isinstance(self.voice, int) else {}
                found = self.network(**given, **named).waveform[0]
            else:
                found = self.network.generate_speech(
                    given["input_ids"], torch.from_numpy(self.voice), vocoder=self.vocoder
                )
        wave: np.ndarray = found.float().numpy()
        return wave


def _voice(voice: str | None, kind: str) -> int | np.ndarray | None:
    if voice is None and kind == "vits":
        return None
    if voice is not None and voice.isdecimal():
        if kind == "vits":
            return int(voice)
        raise RecipeError(
            "a speecht5 takes the vector of a voice, no number: give a file of NumPy (voice=speaker.npy)"
        )
    if voice is None or kind == "vits":
        what = (
            "the vector of a voice, a file of NumPy (voice=speaker.npy)"
            if kind == "speecht5"
            else "the number of a voice (voice=0)"
        )
        raise RecipeError(f"a {kind} takes {what}")
    try:
        found = np.load(voice, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"'{voice}' is no file of NumPy with the vector of a voice: {error}") from None
    return np.asarray(found, dtype=np.float32).reshape(1, -1)


def speak(
    model: str | Path,
    data: object,
    column: str | None = None,
    *,
    name: str = "speech",
    vocoder: str | Path | None = None,
    voice: str | None = None,
    root: str | Path | None = None,
    quiet: bool = False,
) -> pa.Table:
    """The table with the texts of `column` read aloud beside it, as `name`, the bytes of WAV files,
    null where there is no text, and `problem`.

    `model` is a folder or a hub's name (see `Speaker`). `column` may be left out where the table has
    one. Raises `RecipeError` for a model that does not fit, `TableError` for a wrong column.
    """
    screen, table = Screen(quiet), read(data, root)
    column = only_column(table, column, "texts")
    cells = table.column(column)
    speaker = Speaker(str(model), None if vocoder is None else str(vocoder), voice)

    def spoken(cell: object) -> bytes | None:
        return wav(speaker(str(cell)), speaker.rate) if str(cell).strip() else None

    return pretrained.answered(table, column, cells, spoken, name, pa.binary(), screen, "reading aloud")
