"""Read a table's texts aloud by a pretrained network of Hugging Face, as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import BadZipFile

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
    """A network that turns a text into a wave (as VITS), or into spectra (as SpeechT5).

    A `vocoder`, another folder, turns spectra into a wave. `voice` is the number of one of the network's
    voices; for SpeechT5 it is a file of NumPy with the vector of a voice. Only safetensors are read, and no
    code of the folders is run.
    """

    def __init__(self, model: str, vocoder: str | None = None, voice: str | None = None) -> None:
        """Load the network. Raises `RecipeError` if it is of another kind, or a file is missing."""
        folder = files.find(model)
        self.kind = str(files.read_json(folder, "config.json").get("model_type"))
        _check_kind(self.kind, model, vocoder)
        self.voice = _voice(voice, self.kind)

        with pretrained.loading(model, "speaker") as transformers:
            loader = transformers.SpeechT5ForTextToSpeech
            if self.kind == "vits":
                loader = transformers.VitsModel
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **pretrained.SAFELY)
            self.network = pretrained.network(loader, folder)
            self.vocoder = None
            if vocoder:
                self.vocoder = pretrained.network(transformers.SpeechT5HifiGan, files.find(vocoder))

        makes_wave = self.vocoder or self.network
        self.rate = int(makes_wave.config.sampling_rate)
        self._check_voice(model)

    def _check_voice(self, model: str) -> None:
        """Raise `RecipeError` if the network has no voice of this number, or of this width."""
        config = self.network.config
        if isinstance(self.voice, int):
            voices = int(getattr(config, "num_speakers", 1))
            if not 0 <= self.voice < voices:
                raise RecipeError(
                    f"'{model}' has {voices} voices; no voice {self.voice} among 0 to {voices - 1}"
                )
        elif self.voice is not None:
            expected = int(config.speaker_embedding_dim)
            width = self.voice.shape[1]
            if width != expected:
                raise RecipeError(
                    f"'{model}' takes a voice of {expected} numbers; the file of voice= has {width}"
                )

    @torch.inference_mode()
    def __call__(self, text: str) -> np.ndarray:
        """Return the wave of one text, mono at `rate`.

        The seed of its random numbers depends on the text only: a text always sounds the same. Raises
        `BadCell` if the network knows none of the letters, or reads no text of this length.
        """
        try:
            inputs = self.tokenizer(text, return_tensors="pt")
        except ImportError as error:
            raise RecipeError(f"the network's tokenizer needs a package that is not here: {error}") from None
        if not inputs["input_ids"].numel():
            raise BadCell("a text without a letter that the network knows", "")
        length = inputs["input_ids"].shape[1]
        longest = getattr(self.network.config, "max_text_positions", length)  # a VITS has no such bound
        if length > longest:
            raise BadCell(f"a text of {length:,} tokens; the network reads at most {longest:,}: cut it", "")

        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest))
            if self.kind == "vits":
                speaker = {"speaker_id": self.voice} if isinstance(self.voice, int) else {}
                wave_T = self.network(**inputs, **speaker).waveform[0]
            else:
                voice_1D = torch.from_numpy(self.voice)
                wave_T = self.network.generate_speech(inputs["input_ids"], voice_1D, vocoder=self.vocoder)
        wave: np.ndarray = wave_T.float().numpy()
        return wave


def _check_kind(kind: str, model: str, vocoder: str | None) -> None:
    """Raise `RecipeError` if a network of this kind cannot read aloud, or not with this vocoder."""
    if kind not in ("vits", "speecht5"):
        raise RecipeError(f"'{model}' is a '{kind}'; expected a network that reads aloud: vits or speecht5")
    if kind == "speecht5" and vocoder is None:
        raise RecipeError(
            f"'{model}' makes spectra: say which network makes a wave of them (vocoder=, --vocoder)"
        )
    if kind == "vits" and vocoder is not None:
        raise RecipeError(f"'{model}' needs no vocoder: leave it out")


def _voice(voice: str | None, kind: str) -> int | np.ndarray | None:
    """Return the number or the vector (1, D) of a voice; None for the only voice of a VITS.

    Raises `RecipeError` if a network of this kind takes another.
    """
    if kind == "vits":
        if voice is None:
            return None
        if voice.isdecimal():
            return int(voice)
        raise RecipeError("a vits takes the number of a voice (voice=0)")

    if voice is None:
        raise RecipeError("a speecht5 takes the vector of a voice, a file of NumPy (voice=speaker.npy)")
    if voice.isdecimal():
        raise RecipeError(
            "a speecht5 takes the vector of a voice, no number: give a file of NumPy (voice=speaker.npy)"
        )
    try:
        # NumPy does not close a file that it cannot read.
        with open(voice, "rb") as file:
            vector = np.load(file, allow_pickle=False)
            return np.asarray(vector, dtype=np.float32).reshape(1, -1)
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise RecipeError(f"'{voice}' is no file of NumPy with the vector of a voice: {error}") from None


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
    """Read the texts of `column` aloud.

    Return the table with two new columns: `name`, the bytes of WAV files, null where there is no text, and
    `problem`. `model` is a folder or a hub's name (see `Speaker`). `column` may be left out if the table has
    only one.

    Raises `RecipeError` for a model that does not fit, `TableError` for a wrong column.
    """
    screen = Screen(quiet)
    table = read(data, root)
    for note in table.notes:
        screen.warn(note)
    column = only_column(table, column, "texts")
    table.column(column)  # loading the network takes long: look for the column first
    vocoder_name = None if vocoder is None else str(vocoder)
    speaker = Speaker(str(model), vocoder_name, voice)

    def spoken(cell: object) -> bytes | None:
        """Return the WAV file of a text; None for one without letters."""
        text = str(cell)
        if not text.strip():
            return None
        return wav(speaker(text), speaker.rate)

    new_column = pretrained.NewColumn(name, pa.binary(), "reading aloud")
    return pretrained.answer_cells(table, column, spoken, new_column, screen)
