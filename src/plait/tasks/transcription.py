"""What is said in a recording, as text: each step of a sound's tokens writes a unit or nothing (CTC),
or a pretrained network generates it.

V ids, `NOTHING` among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError, TrainingError
from plait.nn.batch import Tokens
from plait.nn.layers import Dropout
from plait.pretrained import files
from plait.tasks.base import masked_mean
from plait.tasks.base_text import ABSENT, TextOptions, TextTask
from plait.tasks.writing import ctc, pretrained_ctc, pretrained_speech
from plait.tasks.writing.decoder import surprise
from plait.tasks.writing.metrics import EditedRows, cer, exact_match, wer
from plait.tasks.writing.pretrained_speech import SpeechDecoder
from plait.tasks.writing.spelling import NOTHING, Form, NGrams, Spelling, Units

MOST = 448  # ids that Whisper writes at most, where its files do not say


class Config(TextOptions):
    """`inputs` is the one column that is transcribed; the only sounds of the table, if left out.

    With a `beam` of 1 the likeliest path is read off; with more, prefixes are searched, and with
    `ngram` of 2 or more a language model of so many units, learned from the training rows' texts, has a
    say, weighed by `ngram_weight`, with `bonus` for each unit.

    `model` is a pretrained network (a folder, or a name on the hub) that is to be trained further. One
    for CTC (as Wav2Vec2ForCTC) comes with its own letters and its own last layer; one that generates
    text (as Whisper) with its own pieces of words and its own decoder, whose texts are searched for
    with the `beam`. These take `rate` of the learning rate; the recordings' encoder is then the rest of
    the network, all of which is trained unless the recipe has another. `language` is for networks that
    know several. Of the other options only `form`, `longest`, `beam` and `rate` have a part in what
    generates text.
    """

    units: Units = Field("characters", description="what is written one after the other")
    form: Form = Field("spoken", description="what is kept of texts: all, or what can be heard of them")
    beam: int = Field(1, ge=1)
    ngram: int = Field(0, ge=0, le=12)
    ngram_weight: float = Field(0.4, ge=0)
    bonus: float = 1.0
    dropout: float = Field(0.1, ge=0, lt=1)
    model: str = ""
    language: str = ""
    rate: float = Field(
        0.05, gt=0, description="of a pretrained last layer or decoder, times the recipe's learning rate"
    )

    @model_validator(mode="after")
    def _spells(self) -> Any:
        if self.model and self.units != "characters":
            raise ValueError(
                f"a pretrained network (model) has letters of its own; expected units 'characters', came "
                f"'{self.units}'"
            )
        if self.language and not self.model:
            raise ValueError("language tells a pretrained network (model) what is spoken: leave it out")
        return self


class Transcription(TextTask):
    """Minus the logarithm of the sum over all paths that write the text (Graves et al. 2006, eq. 3 and
    4), for each of its units. The output has log-probabilities (B, L, V) of a row's valid steps, and
    zeros behind them.
    """

    options = Config
    metrics = {"cer": cer, "wer": wer, "exact_match": exact_match}
    score = "cer"
    higher = False
    steps = 2500
    unaugmented = 0.0
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
            return {
                "name": "pretrained",
                "model": config.model,
                "mode": "full",
                "pool": "none",
                "norm": False,
            }
        return super().encoder_for(config, modality)

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Transcription:
        if not config.model:
            return cast(Transcription, super().fit(config, cells, name))
        if not pretrained_speech.aligns(config.model):
            return Generated.begin(config, cells, name)
        made = cls(config, pretrained_ctc.letters(config.model, config.form)[0])
        made.study(made.spelled(cells, name))
        return made

    def study(self, texts: list[list[int]]) -> None:
        if self.config.ngram > 1:
            self.ngrams = NGrams.fit(texts, self.config.ngram, len(self.spelling) + 1)

    def build_head(self, widths: dict[str, int]) -> None:
        width = self._only_width(widths)
        self.head = nn.Sequential(Dropout(self.config.dropout), nn.Linear(width, len(self.spelling) + 1))

    def _only_width(self, widths: dict[str, int]) -> int:
        """Keeps the name of the one column that is read, and gives the width of its tokens."""
        if len(widths) != 1:
            raise RecipeError(
                f"a transcription reads one column, not {', '.join(widths)}: name it, as in {{name: "
                f"transcription, inputs: [speech]}}"
            )
        ((self.column, width),) = widths.items()
        return width

    def load_pretrained(self) -> None:
        if self.config.model:
            _, places = pretrained_ctc.letters(self.config.model, self.config.form)
            weight_VD, bias_V = pretrained_ctc.last_layer(self.config.model, places)
            last = cast(nn.Linear, self.head[1])
            if weight_VD.shape != last.weight.shape:
                raise RecipeError(
                    f"the last layer of '{self.config.model}' takes vectors of {weight_VD.shape[1]}, the "
                    f"encoder of '{self.column}' makes "
                    f"{last.in_features}: leave the encoder out, or let it be pretrained with the same model"
                )
            last.load_state_dict({"weight": weight_VD, "bias": bias_V})

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Parameters, and the share of the learning rate that they take."""
        if self.config.model:
            yield from ((parameter, self.config.rate) for parameter in self.head.parameters())

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        spoken = tokens[self.column]
        x_BLV, mask_BL = self.head(spoken.x_BLD).float().log_softmax(-1), spoken.mask_BL
        if bool((mask_BL[:, 1:] & ~mask_BL[:, :-1]).any()):  # windows, each with steps of padding behind it
            order_BL = (~mask_BL).long().argsort(dim=1, stable=True)
            x_BLV, mask_BL = (
                x_BLV.gather(1, order_BL[..., None].expand_as(x_BLV)),
                mask_BL.gather(1, order_BL),
            )
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
                f"the encoder of '{self.column}' makes {int(steps_B[row])} steps of a recording in which "
                f"{int(units_B[row])} "
                f"{self.config.units} are to be written, and each needs a step of its own: take a smaller "
                f"hop (--set modalities.audio.hop=0.01), "
                "an encoder that pools time less, or subwords"
            )
        known_B = known_B & possible_B  # what cannot be written has no gradient, and a loss without end
        loss_B = F.ctc_loss(
            output.transpose(0, 1),
            target,
            steps_B.clamp(min=1),
            units_B,
            blank=NOTHING,
            reduction="none",
            zero_infinity=True,
        )
        return masked_mean(loss_B / units_B.clamp(min=1), known_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        steps_B = _steps(output)
        if not thorough or (self.config.beam == 1 and self.ngrams is None):
            texts = ctc.greedy(output, steps_B)
        else:
            texts = []
            for log_p, steps in zip(output.float().cpu().numpy(), steps_B.tolist(), strict=True):
                texts.append(
                    ctc.search(
                        log_p[:steps],
                        max(self.config.beam, 2),
                        self.ngrams,
                        self.config.ngram_weight,
                        self.config.bonus,
                    )
                )
        return ctc.padded(texts, steps_B == 0, ABSENT)

    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> EditedRows:
        return EditedRows.of(answers, labels)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "ngrams": None if self.ngrams is None else self.ngrams.state()}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Transcription:
        if "prefix" in state:
            return Generated(config, **{**state, "spelling": Spelling.from_state(state["spelling"])})
        ngrams = state["ngrams"]
        return cls(
            config,
            Spelling.from_state(state["spelling"]),
            None if ngrams is None else NGrams.from_state(ngrams),
        )


class Generated(Transcription):
    """The same by a pretrained network that generates text. The output is what its encoder makes of a
    recording, (B, M, D), zeros where there is none; its decoder writes each unit from those before it.
    """

    def __init__(
        self,
        config: Config,
        spelling: Spelling,
        architecture: dict[str, Any],
        prefix: list[int],
        never: list[int],
        longest: int = 0,
    ) -> None:
        super().__init__(config, spelling)
        self.architecture, self.prefix, self.never, self.longest = architecture, prefix, never, longest
        most = int(architecture.get("max_target_positions", MOST)) - len(prefix)
        self.config = config.model_copy(update={"units": "subwords", "longest": min(config.longest, most)})

    @classmethod
    def begin(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Generated:
        if config.ngram > 1:
            raise RecipeError(f"'{config.model}' generates text, which ngram has no part in: leave it out")
        architecture, spelling, prefix, never = pretrained_speech.files_for(
            config.model, config.language, config.form
        )
        made = cls(config, spelling, architecture, prefix, never)
        made.longest = max(map(len, made.spelled(cells, name)), default=0)
        return made

    def build_head(self, widths: dict[str, int]) -> None:
        width = self._only_width(widths)
        self.decoder = SpeechDecoder(self.architecture, self.config.rate, self.prefix, self.never)
        if width != self.decoder.width:
            raise RecipeError(
                f"the decoder of '{self.config.model}' takes vectors of {self.decoder.width}, the encoder of "
                f"'{self.column}' makes {width}: "
                "leave the encoder out, or let it be pretrained with the same model"
            )

    def load_pretrained(self) -> None:
        self.decoder.load(files.find(self.config.model))

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        return self.decoder.rates()

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        spoken = tokens[self.column]
        return spoken.x_BLD * spoken.mask_BL[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        known_B = labelled_B & (output != 0).flatten(1).any(1)
        if not bool(known_B.any()):
            return output.sum() * 0.0
        ids_BL = target[:, : int((target != NOTHING).sum(1).max())].long()
        return masked_mean(surprise(self.decoder(ids_BL, output, (output != 0).any(-1)), ids_BL), known_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        limit = min(max(self.longest * 3 // 2, 1), self.config.longest)
        texts = self.decoder.write(output, self.config.beam if thorough else 1, limit)
        return ctc.padded(texts, ~(output != 0).flatten(1).any(1), ABSENT)

    def state(self) -> dict[str, Any]:
        kept = {
            "architecture": self.architecture,
            "prefix": self.prefix,
            "never": self.never,
            "longest": self.longest,
        }
        return {"spelling": self.spelling.state(), **kept}


component = Transcription


def _steps(output: Tensor) -> Tensor:
    """The number of valid steps of each row: log-probabilities are never all zero."""
    return (output != 0).any(-1).sum(1)
