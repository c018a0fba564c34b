"""A text read aloud: letters become spectra, each for as long as it lasts, and spectra a wave. B rows,
L letters, T spectra, M bands.
"""

from __future__ import annotations

from typing import Any

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
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.base import TaskOptions, masked_mean
from plait.tasks.base_writing import Writing
from plait.tasks.speaking.metrics import SpectrumRows, length_ratio, mel_distance
from plait.tasks.speaking.waves import alignment, griffin_lim, spread, unevenness, wav

# what a place far from where it would be if all letters lasted the same costs an alignment, see
# `unevenness`
EVEN = 100.0


SLOWEST = 4.0  # times as many spectra as letters have on average in training, at most


class Config(TaskOptions):
    """`inputs` is the one column that is read aloud; the only texts of the table, if left out.
    Recordings are learned from as spectra of `bands`, `window` seconds each, one every `hop`; those
    longer than `longest` seconds are not, which is said.
    """

    rate: int = Field(16_000, ge=1000, le=192_000, description="samples a second of what is spoken")
    window: float = Field(0.05, gt=0)
    hop: float = Field(0.0125, gt=0)
    bands: int = Field(64, ge=4, le=512)
    longest: float = Field(10.0, gt=0)
    width: int = Field(160, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @property
    def audio(self) -> AudioConfig:
        chosen = {
            "rate": self.rate,
            "window": self.window,
            "hop": self.hop,
            "bands": self.bands,
            "highest": self.rate / 2,
        }
        return AudioConfig(**chosen, seconds=self.longest, longest=self.longest)


class Speak(Writing):
    """Each letter makes the mean of its spectra; which are its own is found in training by the
    likeliest alignment with what letters make (Kim et al. 2020, "Glow-TTS", sec. 3.1, without its
    flow); how long it lasts is learned from that, as a logarithm (ib., sec. 3.2). A network that reads
    letters at that length in both directions then makes the spectra (as Ren et al. 2019, "FastSpeech",
    does).

    Targets and answers are spectra with a last band that is 1 as far as they go: (B, T, M + 1).
    """

    options = Config
    metrics = {"mel_distance": mel_distance, "length_ratio": length_ratio}
    score = "mel_distance"
    higher = False
    steps = 2500
    from_files = True
    modalities = ("text",)
    encoders = {
        "text": {"name": "lstm", "embedding": 128, "width": 128, "bidirectional": True, "tokens": "all"}
    }
    cells = {"text": {"split": "character", "max_tokens": 512}}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.sounds = config, Audio(config.audio)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Speak:
        if len(cells) == cells.null_count:
            raise TrainingError(f"target '{name}': expected recordings in the training rows, found none")
        return cls(config)

    def build_head(self, widths: dict[str, int]) -> None:
        if len(widths) != 1:
            raise RecipeError(
                f"one column is read aloud, not {', '.join(widths)}: name it, as in {{name: speak, inputs: "
                f"[sentence]}}"
            )
        ((self.column, letter),) = widths.items()
        width, bands = self.config.width, self.config.bands
        self.own = nn.Linear(letter, bands)
        self.duration = nn.Sequential(
            nn.Linear(letter, width), nn.ReLU(), Dropout(self.config.dropout), nn.Linear(width, 1)
        )
        self.into = nn.Sequential(nn.Linear(letter + 1, width), nn.ReLU(), Dropout(self.config.dropout))
        self.reader = BiLSTM(width, width, 2, self.config.dropout)
        self.out = nn.Linear(2 * width, bands)
        self.mean_length: Tensor
        self.stretch: Tensor
        self.register_buffer("mean_length", torch.ones(()))
        self.register_buffer(
            "stretch", torch.ones(())
        )  # the mean of logarithms is below the logarithm of the mean

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        loaded = self.sounds.load(cells, source)
        length_B = loaded.values.length_B
        assert length_B is not None
        longer = next((rows for note, rows in loaded.notes.items() if note.startswith("longer")), [])
        present = loaded.present.clone()
        present[longer] = False
        reason = f"longer than {self.config.longest:g} s, and not learned from (longest)"
        problems = [*loaded.problems, *(Problem(row, source.column, "", reason) for row in longer)]
        valid_BT = steps_mask(loaded.values.x.shape[1], length_B) & present[:, None]
        x_BTM = (loaded.values.x.float() + 4) * 0.25 * valid_BT[..., None]
        return torch.cat([x_BTM, valid_BT[..., None]], 2).half(), present, problems

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        letters = tokens[self.column]
        return (
            torch.cat(
                [letters.x_BLD.float(), torch.ones_like(letters.x_BLD[..., :1], dtype=torch.float32)], 2
            )
            * letters.mask_BL[..., None]
        )

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        steps_B, (letter_BLD, letters_B) = (target[..., -1] > 0).sum(1), _parted(output)
        known_B = labelled_B & (letters_B > 0) & (steps_B >= letters_B)
        if not bool(known_B.any()):
            return output.sum() * 0.0
        steps = int(steps_B.max())
        mel_BTM, mask_BT = target[:, :steps, :-1].float(), steps_mask(steps, steps_B)
        own_BLM, mask_BL = self.own(letter_BLD).float(), steps_mask(letter_BLD.shape[1], letters_B)
        with torch.no_grad():
            far_BTL = (
                torch.cdist(mel_BTM, own_BLM).square()
                + EVEN * unevenness(steps_B, letters_B, steps, mask_BL.shape[1])
                + 1e6 * ~mask_BL[:, None]
            )
            count_BL = alignment(-far_BTL, steps_B, letters_B)
        log_BL = self.duration(letter_BLD.detach())[..., 0].float()
        if self.training:
            self._remember(log_BL.detach(), count_BL, mask_BL)
        lasts_B = ((log_BL - count_BL.clamp(min=1).log()).square() * mask_BL).sum(1) / letters_B.clamp(min=1)
        made_BTM = _fitted(self._read(letter_BLD, count_BL), steps)
        rough_BTM = _fitted(spread(own_BLM, count_BL)[0], steps)
        per_B = mask_BT.sum(1).clamp(min=1)
        near_B = ((made_BTM - mel_BTM).abs().mean(2) * mask_BT).sum(1) / per_B
        prior_B = ((rough_BTM - mel_BTM).square().mean(2) * mask_BT).sum(1) / per_B
        return masked_mean(near_B + prior_B + 0.1 * lasts_B, known_B)

    @torch.no_grad()
    def _remember(self, log_BL: Tensor, count_BL: Tensor, mask_BL: Tensor) -> None:
        total = (count_BL * mask_BL).sum().float()
        self.mean_length.lerp_(total / mask_BL.sum().clamp(min=1), 0.05)
        self.stretch.lerp_((total / (log_BL.exp() * mask_BL).sum().clamp(min=1)).clamp(0.5, 2.0), 0.05)

    def _read(self, letter_BLD: Tensor, count_BL: Tensor) -> Tensor:
        """Spectra of letters that last so long, (B, T, M)."""
        x_BTD, place_BT = spread(letter_BLD, count_BL)
        x_BTD = self.into(torch.cat([x_BTD, place_BT[..., None].to(x_BTD.dtype)], 2))
        return self.out(self.reader(x_BTD, count_BL.sum(1))[0]).float()

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        letter_BLD, letters_B = _parted(output)
        mask_BL = steps_mask(letter_BLD.shape[1], letters_B)
        lasts_BL = (self.duration(letter_BLD)[..., 0].float().exp() * self.stretch).clamp(
            max=float(self.mean_length) * SLOWEST
        )
        # rounded so that what is lost at one letter is made up for at the next
        end_BL = (lasts_BL * mask_BL).cumsum(1).round().long()
        count_BL = torch.diff(end_BL, dim=1, prepend=torch.zeros_like(end_BL[:, :1])) * mask_BL
        made_BTM, steps_B = self._read(letter_BLD, count_BL), count_BL.sum(1)
        mask_BT1 = steps_mask(made_BTM.shape[1], steps_B)[..., None]
        return torch.cat([made_BTM * mask_BT1, mask_BT1], 2)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """A WAV file of each row; null where there was nothing to read."""
        spoken = []
        for row in output.float():
            mel_TM = row[: int(row[:, -1].sum()), :-1] * 4 - 4
            spoken.append(
                wav(griffin_lim(mel_TM, self.config.audio), self.config.rate) if len(mel_TM) > 1 else None
            )
        return {"": pa.array(spoken, pa.binary())}

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> SpectrumRows:
        return SpectrumRows.of(output, target)

    def baseline(self, target: Tensor) -> Tensor:
        """The mean spectrum, for the mean length."""
        valid = target[..., -1] > 0
        steps = max(int(valid.sum(1).float().mean().round()), 1)
        mean_M = target[..., :-1][valid].float().mean(0)
        return torch.cat([mean_M.expand(steps, -1), torch.ones(steps, 1)], 1)

    def baseline_loss(self, target: Tensor) -> float:
        spectra = target[..., :-1][target[..., -1] > 0].float()
        apart = spectra - spectra.mean(0)
        return float(apart.abs().mean() + apart.square().mean())

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Speak:
        return cls(config)


component = Speak


def _parted(output: Tensor) -> tuple[Tensor, Tensor]:
    """The letters' vectors, and their number in each row."""
    return output[..., :-1], (output[..., -1] > 0).sum(1)


def _fitted(x_BTM: Tensor, steps: int) -> Tensor:
    return F.pad(x_BTM[:, :steps], (0, 0, 0, max(steps - x_BTM.shape[1], 0)))
