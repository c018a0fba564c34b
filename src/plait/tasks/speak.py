"""Read a text aloud: letters become spectra, each as many as it lasts, and spectra become a wave.

B rows, L letters, T spectra, M mel bands, D width of a letter's token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError, TrainingError
from plait.modalities.audio import Audio
from plait.modalities.audio import Config as AudioConfig
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import BiLSTM, Dropout, steps_mask
from plait.recipe.bounds import MAX_SECONDS, MAX_WIDTH, MIN_HOP, MIN_WINDOW
from plait.table.conventions.content import Content
from plait.table.conventions.listing import Listing
from plait.table.conventions.plain import Plain
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_writing import Writing
from plait.tasks.speaking.metrics import SpectrumRows, length_ratio, mel_distance
from plait.tasks.speaking.waves import alignment, griffin_lim, spread, unevenness, wav

EVEN = 100.0  # weight of `unevenness` in the alignment's cost
FORBIDDEN = 1e6  # cost of aligning a spectrum with padding
DURATION_WEIGHT = 0.1  # of the loss of durations, next to that of spectra
MEMORY = 0.05  # weight of a batch in running means
SLOWEST = 4.0  # spectra of one letter at most, in units of the mean over the training rows


class Config(TaskOptions):
    """`inputs` is the one column that is read aloud: the only text column of the table, if left out.

    Recordings become spectra of `bands` mel bands. A spectrum covers `window` seconds, and one begins every
    `hop` seconds. Recordings longer than `longest` seconds are not learned from; they are listed as
    problems.
    """

    rate: int = Field(16_000, ge=1000, le=192_000, description="samples a second of the answers")
    window: float = Field(0.05, gt=0, ge=MIN_WINDOW, le=10, description="seconds of one spectrum")
    hop: float = Field(0.0125, gt=0, ge=MIN_HOP, le=10, description="seconds from one spectrum to the next")
    bands: int = Field(64, ge=4, le=512, description="mel bands of a spectrum")
    longest: float = Field(
        10.0, gt=0, le=MAX_SECONDS, description="seconds; longer recordings are not learned from"
    )
    width: int = Field(160, ge=1, le=MAX_WIDTH, description="of the network's layers")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of the entries that are set to zero in training"
    )

    @property
    def audio(self) -> AudioConfig:
        """Return the options by which recordings become spectra."""
        return AudioConfig(
            rate=self.rate,
            window=self.window,
            hop=self.hop,
            bands=self.bands,
            highest=self.rate / 2,
            seconds=self.longest,
            longest=self.longest,
        )


class Speak(Writing):
    """Learn the spectra and the duration of each letter.

    Each letter predicts the mean of its spectra. The likeliest alignment with these predictions says which
    spectra belong to it (Kim et al. 2020, "Glow-TTS", sec. 3.1, without its flow). The logarithm of their
    number is learned as the letter's duration (ib., sec. 3.2). A network then reads the letters at that
    length, in both directions, and makes the spectra (as in Ren et al. 2019, "FastSpeech").

    Targets and answers are spectra, (B, T, M + 1). Their last band is 1 up to the row's length, and 0
    behind it.
    """

    options = Config
    conventions = (Plain, Listing, Content)
    metrics = {"mel_distance": mel_distance, "length_ratio": length_ratio}
    score = "mel_distance"
    higher = False
    steps = 2500
    from_files = True
    leaves_rows_out = True
    modalities = ("text",)
    encoders = {
        "text": {"name": "lstm", "embedding": 128, "width": 128, "bidirectional": True, "tokens": "all"}
    }
    cells = {"text": {"split": "character", "max_tokens": 512}}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.audio = Audio(config.audio)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Return None: the task has to be named."""
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Speak:
        """Return the task. Raises `TrainingError` if there are no recordings."""
        has_recordings = cells.null_count < len(cells)
        if not has_recordings:
            raise TrainingError(f"target '{name}': expected recordings in the training rows, found none")
        if pa.types.is_nested(cells.type):
            raise TrainingError(
                f"target '{name}': expected one recording in a cell, the column holds {cells.type}"
            )
        return cls(config)

    def build_head(self, widths: dict[str, int]) -> None:
        """Make the networks from letters to spectra. Raises `RecipeError` if it reads several columns."""
        if len(widths) != 1:
            raise RecipeError(
                f"one column is read aloud, not {', '.join(widths)}: name it, as in {{name: speak, inputs: "
                f"[text]}}"
            )
        ((self.column, letter_width),) = widths.items()
        width, bands, dropout = self.config.width, self.config.bands, self.config.dropout
        self.own = nn.Linear(letter_width, bands)
        self.duration = nn.Sequential(
            nn.Linear(letter_width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, 1)
        )

        # It also reads how far each spectrum is in its letter.
        self.into = nn.Sequential(nn.Linear(letter_width + 1, width), nn.ReLU(), Dropout(dropout))
        self.reader = BiLSTM(width, width, 2, dropout)
        self.out = nn.Linear(2 * width, bands)

        # The mean of logarithms is below the logarithm of the mean, so durations would come out too
        # short. `stretch` corrects this.
        self.mean_length: Tensor
        self.stretch: Tensor
        self.register_buffer("mean_length", torch.ones(()))
        self.register_buffer("stretch", torch.ones(()))

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return spectra (B, T, M + 1) in half precision, which rows have a usable one, and the others."""
        loaded = self.audio.load(cells, source)
        too_long: Sequence[int] = []
        for note, rows in loaded.notes.items():
            if note.startswith("longer"):
                too_long = rows
                break
        reason = f"longer than {self.config.longest:g} s, and not learned from (longest)"
        problems = list(loaded.problems)
        for row in too_long:
            problems.append(Problem(row, source.column, "", reason))
        present_B = loaded.present.clone()
        present_B[too_long] = False

        log_mel_BTM, length_B = loaded.values.x, loaded.values.length_B
        assert length_B is not None
        valid_BT = steps_mask(log_mel_BTM.shape[1], length_B) & present_B[:, None]
        valid_BT1 = valid_BT[..., None]

        # Powers of 10^-8 to 1 become -1 to 1. `answers` goes the way back.
        x_BTM = (log_mel_BTM.float() + 4) * 0.25 * valid_BT1
        return torch.cat([x_BTM, valid_BT1], 2).half(), present_B, problems

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return the letters' tokens with a last entry of 1, and zeros behind the text, (B, L, D + 1)."""
        letters = tokens[self.column]
        x_BLD = letters.x_BLD.float()
        ones_BL1 = torch.ones_like(x_BLD[..., :1])
        output = torch.cat([x_BLD, ones_BL1], 2)
        return output * letters.mask_BL[..., None]

    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Leave out rows with fewer spectra than letters: they have no alignment."""
        _, letters_B = _split_output(output)
        return labelled_B & (letters_B > 0) & (_count_steps(target) >= letters_B)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the loss of the spectra, of each letter's own spectrum, and a tenth of that of durations."""
        steps_B = _count_steps(target)
        letter_BLD, letters_B = _split_output(output)
        usable_B = self.learnable(output, target, labelled_B)
        if not bool(usable_B.any()):
            return output.sum() * 0.0  # zero, with zero gradients
        steps = int(steps_B.max())
        mel_BTM = target[:, :steps, :-1].float()
        mask_BT = steps_mask(steps, steps_B)
        letter_mel_BLM = self.own(letter_BLD).float()
        mask_BL = steps_mask(letter_BLD.shape[1], letters_B)
        count_BL = self._align(mel_BTM, letter_mel_BLM, steps_B, letters_B)

        # The gradient of durations stops here, as in Glow-TTS: letters are there for the spectra.
        log_BL = self.duration(letter_BLD.detach())[..., 0].float()
        if self.training:
            self._remember(log_BL.detach(), count_BL, mask_BL)
        log_error_BL = (log_BL - count_BL.clamp(min=1).log()).square()
        duration_loss_B = (log_error_BL * mask_BL).sum(1) / letters_B.clamp(min=1)

        made_BTM = _fit_length(self._read(letter_BLD, count_BL), steps)
        mel_error_BT = (made_BTM - mel_BTM).abs().mean(2)
        mel_loss_B = _mean_over_steps(mel_error_BT, mask_BT)

        # The alignment needs a spectrum of each letter that comes near its recordings.
        spread_mel_BTM, _ = spread(letter_mel_BLM, count_BL)
        rough_BTM = _fit_length(spread_mel_BTM, steps)
        letter_error_BT = (rough_BTM - mel_BTM).square().mean(2)
        letter_loss_B = _mean_over_steps(letter_error_BT, mask_BT)
        return masked_mean(mel_loss_B + letter_loss_B + DURATION_WEIGHT * duration_loss_B, usable_B)

    @torch.no_grad()
    def _align(self, mel_BTM: Tensor, letter_mel_BLM: Tensor, steps_B: Tensor, letters_B: Tensor) -> Tensor:
        """Return the number of spectra of each letter, (B, L), by the cheapest alignment."""
        steps, letters = mel_BTM.shape[1], letter_mel_BLM.shape[1]
        distance_BTL = torch.cdist(mel_BTM, letter_mel_BLM).square()
        unevenness_BTL = unevenness(steps_B, letters_B, steps, letters)
        padding_B1L = ~steps_mask(letters, letters_B)[:, None]
        cost_BTL = distance_BTL + EVEN * unevenness_BTL + FORBIDDEN * padding_B1L
        return alignment(-cost_BTL, steps_B, letters_B)

    @torch.no_grad()
    def _remember(self, log_BL: Tensor, count_BL: Tensor, mask_BL: Tensor) -> None:
        """Update the running means of a letter's length, and of true over predicted length."""
        total = (count_BL * mask_BL).sum().float()
        mean_length = total / mask_BL.sum().clamp(min=1)
        self.mean_length.lerp_(mean_length, MEMORY)

        # Bounded, because predictions are far off at the start of training.
        predicted_total = (log_BL.exp() * mask_BL).sum()
        stretch = total / predicted_total.clamp(min=1)
        self.stretch.lerp_(stretch.clamp(0.5, 2.0), MEMORY)

    def _read(self, letter_BLD: Tensor, count_BL: Tensor) -> Tensor:
        """Return the spectra of letters that last this many of them, (B, T, M)."""
        x_BTD, position_BT = spread(letter_BLD, count_BL)
        position_BT1 = position_BT[..., None].to(x_BTD.dtype)
        x_BTD = self.into(torch.cat([x_BTD, position_BT1], 2))
        states_BTD, _ = self.reader(x_BTD, count_BL.sum(1))
        return self.out(states_BTD).float()

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return spectra (B, T, M + 1), with letters as long as the duration network predicts."""
        letter_BLD, letters_B = _split_output(output)
        mask_BL = steps_mask(letter_BLD.shape[1], letters_B)
        log_BL = self.duration(letter_BLD)[..., 0].float()
        longest = float(self.mean_length) * SLOWEST
        duration_BL = (log_BL.exp() * self.stretch).clamp(max=longest)

        # Round the ends, not the durations, so that rounding errors do not add up.
        end_BL = (duration_BL * mask_BL).cumsum(1).round().long()
        start_B1 = torch.zeros_like(end_BL[:, :1])
        count_BL = torch.diff(end_BL, dim=1, prepend=start_B1) * mask_BL

        made_BTM = self._read(letter_BLD, count_BL)
        mask_BT = steps_mask(made_BTM.shape[1], count_BL.sum(1))
        mask_BT1 = mask_BT[..., None]
        return torch.cat([made_BTM * mask_BT1, mask_BT1], 2)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return a WAV file of each row; null where there was nothing to read."""
        files: list[bytes | None] = []
        for spectra in output.float():
            steps = int(spectra[:, -1].sum())
            if steps < 2:
                files.append(None)
                continue
            log_mel_TM = spectra[:steps, :-1] * 4 - 4
            wave = griffin_lim(log_mel_TM, self.config.audio)
            files.append(wav(wave, self.config.rate))
        return {"": pa.array(files, pa.binary())}

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> SpectrumRows:
        """Compare spectra, each with its length."""
        return SpectrumRows.of(output, target)

    def baseline(self, target: Tensor) -> Tensor:
        """Return the mean spectrum, for the mean length."""
        valid_BT = target[..., -1] > 0
        mean_length = valid_BT.sum(1).float().mean()
        steps = max(int(mean_length.round()), 1)
        mean_M = target[..., :-1][valid_BT].float().mean(0)
        mean_TM = mean_M.expand(steps, -1)
        return torch.cat([mean_TM, torch.ones(steps, 1)], 1)

    def baseline_loss(self, target: Tensor) -> float:
        """Return the loss of the mean spectrum for the right length."""
        valid_BT = target[..., -1] > 0
        spectra_NM = target[..., :-1][valid_BT].float()
        difference_NM = spectra_NM - spectra_NM.mean(0)
        return float(difference_NM.abs().mean() + difference_NM.square().mean())

    def state(self) -> JSON:
        """Return nothing: all that it learns is in its parameters and buffers."""
        return {}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Speak:
        """Restore the task; all that it learned is in its parameters and buffers."""
        return cls(config)


component = Speak


def _split_output(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the letters' vectors (B, L, D), and the number of letters in each row (B,)."""
    letter_BLD = output[..., :-1]
    is_letter_BL = output[..., -1] > 0
    return letter_BLD, is_letter_BL.sum(1)


def _count_steps(target: Tensor) -> Tensor:
    """Return the number of spectra in each row of a target, (B,)."""
    return (target[..., -1] > 0).sum(1)


def _mean_over_steps(error_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean of each row's valid steps, (B,)."""
    steps_B = mask_BT.sum(1).clamp(min=1)
    return (error_BT * mask_BT).sum(1) / steps_B


def _fit_length(x_BTM: Tensor, steps: int) -> Tensor:
    """Cut spectra, or pad them with zeros, to this number of steps."""
    missing = max(steps - x_BTM.shape[1], 0)
    return F.pad(x_BTM[:, :steps], (0, 0, 0, missing))
