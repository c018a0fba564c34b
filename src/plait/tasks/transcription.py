"""What is said in a recording, as text: each step of a sound's tokens writes a unit or nothing (CTC). V ids, the blank among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait import ctc, pretrained_ctc
from plait.batch import Tokens
from plait.errors import RecipeError, TrainingError
from plait.spelling import NOTHING, Form, NGrams, Spelling, Units
from plait.tasks.base import masked_mean
from plait.text_metrics import edits, error_rates
from plait.texts import ABSENT, TextOptions, TextTask


class Config(TextOptions):
    """`inputs` is the one column that is transcribed; the only sounds of the table, if left out.

    With a `beam` of 1 the likeliest path is read off; with more, prefixes are searched, and with `ngram` of 2 or more a language model
    of so many units, learned from the training rows' texts, has a say, weighed by `ngram_weight`, with `bonus` for each unit.

    `model` is a pretrained network for CTC (a folder, or a name on the hub, as of Wav2Vec2ForCTC) that is to be trained further: with its own
    letters and its own last layer, which takes `rate` of the learning rate; its recordings' encoder is then the rest of the network, all of
    which is trained unless the recipe has another.
    """

    units: Units = Field("characters", description="what is written one after the other")
    form: Form = Field("spoken", description="what is kept of texts: all, or what can be heard of them")
    beam: int = Field(1, ge=1)
    ngram: int = Field(0, ge=0, le=12)
    ngram_weight: float = Field(0.4, ge=0)
    bonus: float = 1.0
    dropout: float = Field(0.1, ge=0, lt=1)
    model: str = ""
    rate: float = Field(0.05, gt=0, description="of a pretrained last layer, times the recipe's learning rate")

    @model_validator(mode="after")
    def _spells(self) -> Any:
        if self.model and self.units != "characters":
            raise ValueError(f"a pretrained network (model) has letters of its own; expected units 'characters', came '{self.units}'")
        return self


class Transcription(TextTask):
    """Minus the logarithm of the sum over all paths that write the text (Graves et al. 2006, eq. 3 and 4), for each of its units. The
    output has log-probabilities (B, L, V) of a row's valid steps, and zeros behind them."""

    options = Config
    score = "cer"
    higher = False
    steps = 2500
    modalities = ("audio",)
    encoders = {"audio": {"name": "crnn", "channels": (32, 64, 64), "width": 160, "layers": 2}}
    cells = {"audio": {"view": "whole", "longest": 600.0, "seconds": 20.0, "time_masks": 2, "band_masks": 2}}

    def __init__(self, config: Config, spelling: Spelling, ngrams: NGrams | None = None) -> None:
        super().__init__(config, spelling)
        self.config: Config = config
        self.ngrams = ngrams

    @classmethod
    def encoder_for(cls, config: Config, modality: str) -> dict[str, Any] | None:
        if config.model and modality == "audio":
            return {"name": "pretrained", "model": config.model, "mode": "full", "pool": "none", "norm": False}
        return super().encoder_for(config, modality)

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Transcription:
        if not config.model:
            return cast(Transcription, super().fit(config, cells, name))
        made = cls(config, pretrained_ctc.letters(config.model, config.form)[0])
        made.study(made.spelled(cells, name))
        return made

    def study(self, texts: list[list[int]]) -> None:
        if self.config.ngram > 1:
            self.ngrams = NGrams.fit(texts, self.config.ngram, len(self.spelling) + 1)

    def build_head(self, fused: int, encoded: dict[str, int]) -> None:
        if len(encoded) != 1:
            raise RecipeError(f"a transcription reads one column, not {', '.join(encoded)}: name it, as in {{name: transcription, inputs: [speech]}}")
        ((self.column, width),) = encoded.items()
        self.head = nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(width, len(self.spelling) + 1))

    def load_pretrained(self) -> None:
        if self.config.model:
            _, places = pretrained_ctc.letters(self.config.model, self.config.form)
            weight_VD, bias_V = pretrained_ctc.last_layer(self.config.model, places)
            last = cast(nn.Linear, self.head[1])
            if weight_VD.shape != last.weight.shape:
                raise RecipeError(
                    f"the last layer of '{self.config.model}' takes vectors of {weight_VD.shape[1]}, the encoder of '{self.column}' makes "
                    f"{last.in_features}: leave the encoder out, or let it be pretrained with the same model"
                )
            last.load_state_dict({"weight": weight_VD, "bias": bias_V})

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Parameters, and the share of the learning rate that they take."""
        if self.config.model:
            yield from ((parameter, self.config.rate) for parameter in self.head.parameters())

    def forward(self, fused_BD: Tensor, encoded: dict[str, Tokens]) -> Tensor:
        tokens = encoded[self.column]
        x_BLV, mask_BL = self.head(tokens.x_BLD).float().log_softmax(-1), tokens.mask_BL
        if bool((mask_BL[:, 1:] & ~mask_BL[:, :-1]).any()):  # windows, each with steps of padding behind it
            order_BL = (~mask_BL).long().argsort(dim=1, stable=True)
            x_BLV, mask_BL = x_BLV.gather(1, order_BL[..., None].expand_as(x_BLV)), mask_BL.gather(1, order_BL)
        return x_BLV * mask_BL[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        steps_B, units_B = _steps(output), (target != NOTHING).sum(1)
        known_B = labelled_B & (steps_B > 0) & (units_B > 0)
        if not bool(known_B.any()):
            return output.sum() * 0.0
        target = target[:, : int(units_B.max())].long()
        repeats_B = ((target[:, 1:] == target[:, :-1]) & (target[:, 1:] != NOTHING)).sum(1)
        possible_B = steps_B >= units_B + repeats_B
        if int((known_B & ~possible_B).sum()) * 2 > int(known_B.sum()):
            row = int((known_B & ~possible_B).nonzero()[0, 0])
            raise TrainingError(
                f"the encoder of '{self.column}' makes {int(steps_B[row])} steps of a recording in which {int(units_B[row])} "
                f"{self.config.units} are to be written, and each needs a step of its own: take a smaller hop (--set modalities.audio.hop=0.01), "
                "an encoder that pools time less, or subwords"
            )
        known_B = known_B & possible_B  # what cannot be written has no gradient, and a loss without end
        loss_B = F.ctc_loss(output.transpose(0, 1), target, steps_B.clamp(min=1), units_B, blank=NOTHING, reduction="none", zero_infinity=True)
        return masked_mean(loss_B / units_B.clamp(min=1), known_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        steps_B = _steps(output)
        if not thorough or (self.config.beam == 1 and self.ngrams is None):
            texts = ctc.greedy(output, steps_B)
        else:
            texts = []
            for log_p, steps in zip(output.float().cpu().numpy(), steps_B.tolist(), strict=True):
                texts.append(ctc.search(log_p[:steps], max(self.config.beam, 2), self.ngrams, self.config.ngram_weight, self.config.bonus))
        return ctc.padded(texts, steps_B == 0, ABSENT)

    def compare(self, found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
        return edits(found, wanted)

    def metrics(self, rows: np.ndarray) -> dict[str, float]:
        return error_rates(rows)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "ngrams": None if self.ngrams is None else self.ngrams.state()}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Transcription:
        ngrams = state["ngrams"]
        return cls(config, Spelling.from_state(state["spelling"]), None if ngrams is None else NGrams.from_state(ngrams))


component = Transcription


def _steps(output: Tensor) -> Tensor:
    """The number of valid steps of each row: log-probabilities are never all zero."""
    return (output != 0).any(-1).sum(1)
