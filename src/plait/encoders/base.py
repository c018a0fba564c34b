"""The bases of all encoders, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from plait.nn.batch import Kind, Layout, Tokens, Values
from plait.pretrained.files import PACKAGED
from plait.pretrained.names import NAMED
from plait.pretrained.network import Network
from plait.recipe.registry import Choice, Component, Registry, hook
from plait.table.json import JSON


@dataclass(frozen=True)
class Offer:
    """Whether an encoder suits a column for which nobody asked for one, and why.

    `options` are those that it would have; None if it does not suit. `remedy` says what is to be installed
    where that is all that it lacks. `free` names the options of cells that a recipe may set all the same, of
    those that the encoder asks for.
    """

    options: JSON | None
    reason: str
    remedy: str = ""
    free: tuple[str, ...] = ()


class Encoder(nn.Module, Component, ABC):
    """Turn one column's values into tokens of `width`. It sees only rows that have a cell of the column.

    A row's tokens may depend on that row alone, and not on padding beyond its length. `takes` has the kinds
    of layouts that it reads.
    """

    takes: ClassVar[frozenset[Kind]]
    pretrained: ClassVar[bool] = False  # whether it was trained on cells of other tables
    light: ClassVar[bool] = False  # whether it is trained in no time
    width: int

    @classmethod
    @hook
    def offer(cls, modality: str, texts: Sequence[str]) -> Offer:
        """Say whether it suits a column of this modality, whose cells are like `texts` if they are texts."""
        return Offer({}, "")

    @classmethod
    @hook
    def settled(cls, config: Any, modality: str, rows: int = 0) -> Any:
        """Fill in every `auto` option for a column of this modality in a table of `rows` rows.

        Look up the files that the options name. So what is saved tells all that `build` needs.
        """
        return config

    @classmethod
    @hook
    def asks(cls, config: Any, modality: str) -> JSON:
        """Return the options that the column's modality gets, unless the recipe says otherwise."""
        return {}

    @classmethod
    @hook
    def frozen(cls, config: Any) -> bool:
        """Return whether it is not trained. Then `embed` computes its vectors once."""
        return False

    @classmethod
    @abstractmethod
    def build(cls, config: Any, layout: Layout) -> Encoder:
        """Build the encoder for a column of this layout, whose kind is one of `takes`."""

    @hook
    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Return the parameters that learn at a share of the recipe's learning rate, with the share."""
        return ()

    @hook
    def begin(self) -> None:
        """Load the weights that training starts from. It is called once before training."""

    @abstractmethod
    def forward(self, values: Values) -> Tokens:
        """Encode cells (B, ...) as tokens (B, L, D), with a mask of the valid tokens."""


class FrozenEncoder(Encoder):
    """An encoder that is not trained: `embed` and then `norm` run once for each cell.

    Its weights are not saved with the model. The files of its `network` are copied into the model's folder.
    """

    network: Network
    norm: nn.Module

    @abstractmethod
    def embed(self, values: Values) -> Values:
        """Return the vectors of cells, floats of shape (B, L, D)."""


class PlainEncoder(Encoder):
    """An encoder of plain cells that can be computed for many columns at once, see `TableColumns`.

    Its `net` is an embedding of an index, or two linear layers with a ReLU between them over a vector.
    """

    light = True
    net: nn.Module

    @property
    @abstractmethod
    def can_be_stacked(self) -> bool:
        """Whether its `net` has just these layers."""


def _models() -> dict[str, Choice]:
    """Return the short names of pretrained models, each with the encoder that it stands for."""
    return {name: Choice(name="pretrained", model=name) for name in (*PACKAGED, *NAMED)}


encoders = Registry[Encoder]("encoders", short=_models())
