"""Write the text of a recording by connectionist temporal classification (CTC).

B rows, L steps of a recording, V ids (`NOTHING` among them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import RecipeError, TrainingError
from plait.nn.batch import Tokens
from plait.nn.layers import Dropout
from plait.table.json import JSON
from plait.tasks.base import masked_mean
from plait.tasks.writing import ctc, pretrained_ctc
from plait.tasks.writing.recording_writer import RecordingWriter
from plait.tasks.writing.spelling import ABSENT, NOTHING, Form, NGrams

JUDGED = 8  # rows that it takes to tell that an encoder makes too few steps


@dataclass(frozen=True)
class PrefixSearch:
    """Options of the search for the likeliest text.

    `ngram` is the order of the language model, `weight` its weight, and `bonus` that of each unit.
    """

    beam: int
    ngram: int
    weight: float
    bonus: float


@dataclass(frozen=True)
class LastLayer:
    """The last layer of a pretrained `model`: which characters count, and its share of the learning rate."""

    model: str
    form: Form
    rate: float


class CTCWriter(RecordingWriter):
    """Let each step of a recording write a unit or nothing.

    The loss is -log of the sum over all paths that write the text (Graves et al. 2006, eq. 3 and 4),
    divided by the number of its units. The output has the log-probabilities of a row's valid steps, (B, L,
    V), and zeros behind them. `units` names what is written, in messages.
    """

    def __init__(
        self,
        ids: int,
        units: str,
        dropout: float,
        search: PrefixSearch,
        pretrained: LastLayer | None,
        ngrams: NGrams | None = None,
    ) -> None:
        super().__init__()
        self.ids = ids
        self.units = units
        self.dropout = dropout
        self.search = search
        self.pretrained = pretrained
        self.ngrams = ngrams

        # Rows with a recording and a text so far, and those of them with too few steps for the text.
        self._rows, self._short_rows = 0, 0

    def study(self, texts: list[list[int]]) -> None:
        """Count the n-grams of the language model, if there is one."""
        if self.search.ngram > 1:
            self.ngrams = NGrams.fit(texts, self.search.ngram, self.ids)

    def build(self, column: str, width: int) -> None:
        """Make a linear layer from tokens to ids."""
        self.column = column
        self.head = nn.Sequential(Dropout(self.dropout), nn.Linear(width, self.ids))

    def load_pretrained(self) -> None:
        """Copy the pretrained network's last layer. Raises `RecipeError` if its width does not fit."""
        if self.pretrained is None:
            return
        model = self.pretrained.model
        _, indices = pretrained_ctc.letters(model, self.pretrained.form)
        weight_VD, bias_V = pretrained_ctc.last_layer(model, indices)
        last_layer = cast(nn.Linear, self.head[1])
        if weight_VD.shape != last_layer.weight.shape:
            raise RecipeError(
                f"the last layer of '{model}' takes vectors of {weight_VD.shape[1]}, the "
                f"encoder of '{self.column}' makes {last_layer.in_features}: leave the encoder out, or let "
                f"it be pretrained with the same model"
            )
        last_layer.load_state_dict({"weight": weight_VD, "bias": bias_V})

    def rates(self) -> Iterator[tuple[Tensor, float]]:
        """Yield the parameters of a pretrained last layer with their share of the recipe's learning rate."""
        if self.pretrained is not None:
            for parameter in self.head.parameters():
                yield parameter, self.pretrained.rate

    def forward(self, recording: Tokens) -> Tensor:
        """Return log-probabilities (B, L, V), and zeros behind a row's valid steps."""
        log_p_BLV = self.head(recording.x_BLD).float().log_softmax(-1)
        mask_BL = recording.mask_BL

        # Windows have padding behind each of them. Move all valid steps to the front.
        is_padding_BL = (~mask_BL).long()
        order_BL = is_padding_BL.argsort(dim=1, stable=True)
        order_BLV = order_BL[..., None].expand_as(log_p_BLV)
        log_p_BLV = log_p_BLV.gather(1, order_BLV)
        mask_BL = mask_BL.gather(1, order_BL)
        return log_p_BLV * mask_BL[..., None]

    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Leave out rows without a recording or a text, and those with fewer steps than their text needs."""
        steps_B = _count_steps(output)
        units_B, needed_B = _count_units(target)
        return labelled_B & (steps_B > 0) & (units_B > 0) & (steps_B >= needed_B)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean CTC loss per unit over the rows whose text can be written.

        Raises `TrainingError` if more than half of the rows so far have fewer steps than their text needs.
        """
        steps_B = _count_steps(output)
        units_B, needed_B = _count_units(target)
        usable_B = labelled_B & (steps_B > 0) & (units_B > 0)
        if not bool(usable_B.any()):
            return output.sum() * 0.0  # zero, with zero gradients
        longest = int(units_B.max())
        target = target[:, :longest].long()
        is_possible_B = steps_B >= needed_B
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
        """Raise `TrainingError` if more than half of the usable rows so far have too few steps.

        A micro-batch may be a single row, which says nothing.
        """
        too_short_B = usable_B & ~is_possible_B
        self._rows += int(usable_B.sum())
        self._short_rows += int(too_short_B.sum())
        if self._rows < JUDGED or self._short_rows * 2 <= self._rows or not bool(too_short_B.any()):
            return
        row = int(too_short_B.nonzero()[0, 0])
        raise TrainingError(
            f"the encoder of '{self.column}' makes {int(steps_B[row])} steps of a recording in which "
            f"{int(units_B[row])} {self.units} are to be written, and each needs a step of its own: "
            f"take a smaller hop (--set modalities.audio.hop=0.01), an encoder that pools time less, or "
            f"subwords"
        )

    def write(self, output: Tensor, thorough: bool) -> Tensor:
        """Return ids, (B, units). `thorough` searches with the beam and the n-grams, if there are any."""
        steps_B = _count_steps(output)
        searches = self.search.beam > 1 or self.ngrams is not None
        if thorough and searches:
            texts = self._search(output, steps_B)
        else:
            texts = ctc.greedy(output, steps_B)
        return ctc.padded(texts, steps_B == 0, ABSENT)

    def _search(self, output: Tensor, steps_B: Tensor) -> list[list[int]]:
        """Return the likeliest text of each row, as ids."""
        beam = max(self.search.beam, 2)
        log_p_BLV = output.float().cpu().numpy()
        texts = []
        for log_p_LV, steps in zip(log_p_BLV, steps_B.tolist(), strict=True):
            text = ctc.search(log_p_LV[:steps], beam, self.ngrams, self.search.weight, self.search.bonus)
            texts.append(text)
        return texts

    def state(self) -> JSON:
        """Return the counts of the n-grams."""
        return {"ngrams": None if self.ngrams is None else self.ngrams.state()}


def _count_units(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of units of each row's text, and that of the steps which it needs at least, (B,)."""
    units_B = (target != NOTHING).sum(1)

    # CTC needs a blank between two equal units, which takes one step more.
    unit_BL = target[:, 1:]
    previous_BL = target[:, :-1]
    repeats_BL = (unit_BL == previous_BL) & (unit_BL != NOTHING)
    return units_B, units_B + repeats_BL.sum(1)


def _count_steps(output: Tensor) -> Tensor:
    """Count the valid steps of each row, (B,): log-probabilities are never all zero."""
    is_valid_BL = (output != 0).any(-1)
    return is_valid_BL.sum(1)
