"""Write what is said in a recording.

Each step of the recording's tokens writes a unit or nothing (CTC), or a pretrained network generates the
text.

B rows, L steps of a recording, V ids (`NOTHING` among them), M tokens and D width of a network's encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self, cast

import pyarrow as pa
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError, TrainingError
from plait.nn.batch import Tokens
from plait.nn.layers import Dropout
from plait.pretrained import files
from plait.pretrained.files import Architecture
from plait.table.json import JSON, read_as, read_object
from plait.tasks.base import masked_mean
from plait.tasks.base_text import ABSENT, TextOptions, TextTask
from plait.tasks.writing import ctc, pretrained_ctc, pretrained_speech
from plait.tasks.writing.decoder import surprise
from plait.tasks.writing.metrics import EditedRows, cer, exact_match, wer
from plait.tasks.writing.pretrained_speech import SpeechDecoder
from plait.tasks.writing.spelling import NOTHING, Form, NGrams, Spelling, Units

# Ids of a text that a network can write, if its files state no limit. This is Whisper's.
MOST_IDS = 448


class Config(TextOptions):
    """`inputs` is the one column that is transcribed: the only audio column of the table, if left out.

    With a `beam` of 1 the answer is the likeliest path. With more, prefixes are searched. With `ngram` of
    2 or more, a language model of that order takes part in the search. It is learned from the training
    rows' texts. Its weight is `ngram_weight`, and each unit adds `bonus`.

    `model` is a pretrained network (a folder, or a name on the hub) that is trained further. A network
    for CTC (as Wav2Vec2ForCTC) brings its own letters and its own last layer. A network that generates
    text (as Whisper) brings its own subwords and its own decoder, which searches with the `beam`. These
    take `rate` of the learning rate. The encoder of the recordings is then the rest of the network, and
    all of it is trained unless the recipe names another encoder. `language` is for networks that know
    several. A network that generates text uses only the options `form`, `longest`, `beam` and `rate`.
    """

    units: Units = Field("characters", description="units of a text, written one by one")
    form: Form = Field(
        "spoken", description="which characters of texts count: all, or those that can be heard"
    )
    beam: int = Field(1, ge=1)
    ngram: int = Field(0, ge=0, le=12)
    ngram_weight: float = Field(0.4, ge=0)
    bonus: float = 1.0
    dropout: float = Field(0.1, ge=0, lt=1)
    model: str = ""
    language: str = ""
    rate: float = Field(
        0.05,
        gt=0,
        description="learning rate of a pretrained last layer or decoder, relative to the recipe's",
    )

    @model_validator(mode="after")
    def _spells(self) -> Self:
        if self.model and self.units != "characters":
            raise ValueError(
                "a pretrained network (model) has letters of its own; expected units 'characters', came "
                f"'{self.units}': leave units out"
            )
        if self.language and not self.model:
            raise ValueError(
                "language tells a pretrained network (model) what is spoken: leave it out, or name a model"
            )
        return self


class Transcription(TextTask):
    """Learn to write texts by connectionist temporal classification (CTC).

    The loss is -log of the sum over all paths that write the text (Graves et al. 2006, eq. 3 and 4),
    divided by the number of its units. The output has the log-probabilities of a row's valid steps, (B, L,
    V), and zeros behind them.
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
    def encoder_for(cls, config: Config, modality: str) -> JSON | None:
        """Return the pretrained network's own encoder for audio, if there is such a network."""
        if not config.model or modality != "audio":
            return super().encoder_for(config, modality)

        # All of it is trained, and each step of the recording keeps its token.
        return {
            "name": "pretrained",
            "model": config.model,
            "mode": "full",
            "pool": "none",
            "norm": False,
        }

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Transcription:
        """Learn the letters or subwords, or take those of the pretrained network, and the n-grams."""
        if not config.model:
            return cast(Transcription, super().fit(config, cells, name))
        if not pretrained_speech.aligns(config.model):
            return Generated.begin(config, cells, name)
        spelling, _ = pretrained_ctc.letters(config.model, config.form)
        task = cls(config, spelling)
        task.study(task.spelled(cells, name))
        return task

    def study(self, texts: list[list[int]]) -> None:
        """Count the n-grams of the language model, if there is one."""
        if self.config.ngram > 1:
            ids = len(self.spelling) + 1  # with `NOTHING`
            self.ngrams = NGrams.fit(texts, self.config.ngram, ids)

    def build_head(self, widths: dict[str, int]) -> None:
        """Make a linear layer from the only column's tokens to ids."""
        width = self._only_width(widths)
        ids = len(self.spelling) + 1  # with `NOTHING`, the blank
        self.head = nn.Sequential(Dropout(self.config.dropout), nn.Linear(width, ids))

    def _only_width(self, widths: dict[str, int]) -> int:
        """Store the name of the one column that is read, and return the width of its tokens."""
        if len(widths) != 1:
            raise RecipeError(
                f"a transcription reads one column, not {', '.join(widths)}: name it, as in {{name: "
                f"transcription, inputs: [speech]}}"
            )
        ((self.column, width),) = widths.items()
        return width

    def load_pretrained(self) -> None:
        """Copy the pretrained network's last layer. Raises `RecipeError` if its width does not fit."""
        if not self.config.model:
            return
        _, indices = pretrained_ctc.letters(self.config.model, self.config.form)
        weight_VD, bias_V = pretrained_ctc.last_layer(self.config.model, indices)
        last_layer = cast(nn.Linear, self.head[1])
        if weight_VD.shape != last_layer.weight.shape:
            raise RecipeError(
                f"the last layer of '{self.config.model}' takes vectors of {weight_VD.shape[1]}, the "
                f"encoder of '{self.column}' makes {last_layer.in_features}: leave the encoder out, or let "
                f"it be pretrained with the same model"
            )
        last_layer.load_state_dict({"weight": weight_VD, "bias": bias_V})

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Yield parameters with their share of the recipe's learning rate."""
        if self.config.model:
            for parameter in self.head.parameters():
                yield parameter, self.config.rate

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return log-probabilities (B, L, V), and zeros behind a row's valid steps."""
        recording = tokens[self.column]
        log_p_BLV = self.head(recording.x_BLD).float().log_softmax(-1)
        mask_BL = recording.mask_BL

        # Windows have padding behind each of them. Move all valid steps to the front.
        is_padding_BL = (~mask_BL).long()
        order_BL = is_padding_BL.argsort(dim=1, stable=True)
        order_BLV = order_BL[..., None].expand_as(log_p_BLV)
        log_p_BLV = log_p_BLV.gather(1, order_BLV)
        mask_BL = mask_BL.gather(1, order_BL)
        return log_p_BLV * mask_BL[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean CTC loss per unit over the rows whose text can be written.

        Raises `TrainingError` if more than half of the rows have fewer steps than their text needs.
        """
        steps_B = _count_steps(output)
        units_B = (target != NOTHING).sum(1)
        usable_B = labelled_B & (steps_B > 0) & (units_B > 0)
        if not bool(usable_B.any()):
            return output.sum() * 0.0  # zero, with zero gradients
        longest = int(units_B.max())
        target = target[:, :longest].long()

        # CTC needs a blank between two equal units, which takes one step more.
        unit_BL = target[:, 1:]
        previous_BL = target[:, :-1]
        repeats_BL = (unit_BL == previous_BL) & (unit_BL != NOTHING)
        is_possible_B = steps_B >= units_B + repeats_BL.sum(1)
        self._check_steps(steps_B, units_B, usable_B, is_possible_B)

        # A text that cannot be written has no gradient and an infinite loss.
        usable_B = usable_B & is_possible_B
        loss_B = F.ctc_loss(
            output.transpose(0, 1),
            target,
            steps_B.clamp(min=1),
            units_B,
            blank=NOTHING,
            reduction="none",
            zero_infinity=True,
        )
        return masked_mean(loss_B / units_B.clamp(min=1), usable_B)

    def _check_steps(self, steps_B: Tensor, units_B: Tensor, usable_B: Tensor, is_possible_B: Tensor) -> None:
        """Raise `TrainingError` if more than half of the usable rows have too few steps for their text."""
        too_short_B = usable_B & ~is_possible_B
        if int(too_short_B.sum()) * 2 <= int(usable_B.sum()):
            return
        row = int(too_short_B.nonzero()[0, 0])
        raise TrainingError(
            f"the encoder of '{self.column}' makes {int(steps_B[row])} steps of a recording in which "
            f"{int(units_B[row])} {self.config.units} are to be written, and each needs a step of its own: "
            f"take a smaller hop (--set modalities.audio.hop=0.01), an encoder that pools time less, or "
            f"subwords"
        )

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return ids, (B, units). `thorough` searches with the beam and the n-grams, if there are any."""
        steps_B = _count_steps(output)
        searches = self.config.beam > 1 or self.ngrams is not None
        if thorough and searches:
            texts = self._search(output, steps_B)
        else:
            texts = ctc.greedy(output, steps_B)
        return ctc.padded(texts, steps_B == 0, ABSENT)

    def _search(self, output: Tensor, steps_B: Tensor) -> list[list[int]]:
        """Return the likeliest text of each row, as ids."""
        beam = max(self.config.beam, 2)
        weight, bonus = self.config.ngram_weight, self.config.bonus
        log_p_BLV = output.float().cpu().numpy()
        texts = []
        for log_p_LV, steps in zip(log_p_BLV, steps_B.tolist(), strict=True):
            text = ctc.search(log_p_LV[:steps], beam, self.ngrams, weight, bonus)
            texts.append(text)
        return texts

    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> EditedRows:
        """Count the edits that turn labels into answers, for the error rates."""
        return EditedRows.of(answers, labels)

    def state(self) -> JSON:
        """Return the spelling and the counts of the n-grams."""
        ngrams = None if self.ngrams is None else self.ngrams.state()
        return {**super().state(), "ngrams": ngrams}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Transcription:
        """Restore the task. Only a network that generates text has a `prefix`."""
        # The configuration does not say which kind of network it names, and its files may be gone.
        if "prefix" in state:
            return Generated.from_parts(config, state)
        spelling = Spelling.from_state(read_object(state["spelling"]))
        ngrams = None
        if state["ngrams"] is not None:
            ngrams = NGrams.from_state(read_object(state["ngrams"]))
        return cls(config, spelling, ngrams)


class Generated(Transcription):
    """Transcribe with a pretrained network that generates text.

    The output is what its encoder makes of a recording, (B, M, D), and zeros where there is none. Its
    decoder writes each unit from the units before it. `prefix` has the ids before every text, and `never`
    the ids that it does not write. `longest` is the number of units of the longest training text.
    """

    def __init__(
        self,
        config: Config,
        spelling: Spelling,
        architecture: Architecture,
        prefix: list[int],
        never: list[int],
        longest: int = 0,
    ) -> None:
        super().__init__(config, spelling)
        self.architecture = architecture
        self.prefix = prefix
        self.never = never
        self.longest = longest

        # The network has no positions for longer texts, and writes subwords whatever the options say.
        positions = int(architecture.get("max_target_positions", MOST_IDS))
        limit = min(config.longest, positions - len(prefix))
        self.config = config.model_copy(update={"units": "subwords", "longest": limit})

    @classmethod
    def begin(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Generated:
        """Read the network's files and the lengths of the training texts.

        Raises `RecipeError` if the recipe asks for n-grams, which take no part in generation.
        """
        if config.ngram > 1:
            raise RecipeError(f"'{config.model}' generates text, which ngram has no part in: leave it out")
        architecture, spelling, prefix, never = pretrained_speech.files_for(
            config.model, config.language, config.form
        )
        task = cls(config, spelling, architecture, prefix, never)
        texts = task.spelled(cells, name)
        task.longest = max(map(len, texts), default=0)
        return task

    def build_head(self, widths: dict[str, int]) -> None:
        """Make the decoder. Raises `RecipeError` if it cannot read vectors of the encoder's width."""
        width = self._only_width(widths)
        self.decoder = SpeechDecoder(self.architecture, self.config.rate, self.prefix, self.never)
        if width != self.decoder.width:
            raise RecipeError(
                f"the decoder of '{self.config.model}' takes vectors of {self.decoder.width}, the encoder of "
                f"'{self.column}' makes {width}: leave the encoder out, or let it be pretrained with the "
                f"same model"
            )

    def load_pretrained(self) -> None:
        """Load the decoder's weights."""
        self.decoder.load(files.find(self.config.model))

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Return the decoder's parameters with their share of the recipe's learning rate."""
        return self.decoder.rates()

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return the encoder's tokens, (B, M, D), and zeros where there is none."""
        recording = tokens[self.column]
        return recording.x_BLD * recording.mask_BL[..., None]

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean cross-entropy of the next id over rows that have a recording."""
        usable_B = labelled_B & _has_recording(output)
        if not bool(usable_B.any()):
            return output.sum() * 0.0  # zero, with zero gradients
        units_B = (target != NOTHING).sum(1)
        longest = int(units_B.max())
        ids_BL = target[:, :longest].long()
        mask_BM = (output != 0).any(-1)
        logits_BLV = self.decoder(ids_BL, output, mask_BM)
        return masked_mean(surprise(logits_BLV, ids_BL), usable_B)

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return ids, at most half as many again as the longest training text has."""
        half_as_many_again = max(self.longest * 3 // 2, 1)
        limit = min(half_as_many_again, self.config.longest)
        beam = self.config.beam if thorough else 1
        texts = self.decoder.write(output, beam, limit)
        return ctc.padded(texts, ~_has_recording(output), ABSENT)

    def state(self) -> JSON:
        """Return what `from_parts` takes, apart from the options."""
        return {
            "spelling": self.spelling.state(),
            "architecture": self.architecture,
            "prefix": self.prefix,
            "never": self.never,
            "longest": self.longest,
        }

    @classmethod
    def from_parts(cls, config: Config, state: JSON) -> Generated:
        """Restore it from its `state`. `from_state` chooses between this class and `Transcription`."""
        return cls(
            config,
            spelling=Spelling.from_state(read_object(state["spelling"])),
            architecture=read_object(state["architecture"]),
            prefix=read_as(list[int], state["prefix"]),
            never=read_as(list[int], state["never"]),
            longest=read_as(int, state["longest"]),
        )


component = Transcription


def _count_steps(output: Tensor) -> Tensor:
    """Count the valid steps of each row, (B,): log-probabilities are never all zero."""
    is_valid_BL = (output != 0).any(-1)
    return is_valid_BL.sum(1)


def _has_recording(output: Tensor) -> Tensor:
    """Return True where a row has any token that is not zero, (B,)."""
    return (output != 0).flatten(1).any(1)
