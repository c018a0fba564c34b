"""What an encoder is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from plait.nn.batch import Kind, Layout, Tokens, Values
from plait.pretrained.network import Network
from plait.recipe.registry import Component, Registry
from plait.table.json import JSON


class Encoder(nn.Module, Component, ABC):
    """From one column's values to tokens of `width`. Sees only rows in which the column is present.

    A row's tokens may depend on that row alone, and not on padding beyond its length.
    """

    takes: ClassVar[frozenset[Kind]]
    pretrained: ClassVar[bool] = False  # whether it has seen other cells than the table's
    width: int

    @classmethod
    def settled(cls, config: Any, modality: str, rows: int = 0) -> Any:
        """The options with nothing left open, for a column of this modality in a table of so many rows.
        Files that they name are looked up here, so that what is saved tells all that `build` needs.
        """
        return config

    @classmethod
    def asks(cls, config: Any, modality: str) -> JSON:
        """Options that the encoder wants of its column's modality, unless the recipe says otherwise."""
        return {}

    @classmethod
    def frozen(cls, config: Any) -> bool:
        """Whether it is not trained, so that its vectors can be computed once, by `embed`."""
        return False

    @classmethod
    @abstractmethod
    def build(cls, config: Any, layout: Layout) -> Encoder:
        """The encoder for a column of this layout, whose kind is one of `takes`."""

    def rates(self) -> Iterable[tuple[Tensor, float]]:
        """Parameters that take a share of the recipe's learning rate only, with the share."""
        return ()

    def begin(self) -> None:
        """What is done once before training: weights that it begins from are loaded."""

    @abstractmethod
    def forward(self, values: Values) -> Tokens:
        """Encode cells (B, ...) as tokens (B, L, D), with a mask of the tokens that count."""


class FrozenEncoder(Encoder):
    """An encoder that is not trained: `embed` runs once for each cell. `norm` comes after it, once as well.

    The files of its `network` belong into the folder of a model, because its weights are not saved.
    """

    network: Network
    norm: nn.Module

    @abstractmethod
    def embed(self, values: Values) -> Values:
        """Return the vectors of cells, floats of shape (B, L, D)."""


class PlainEncoder(Encoder):
    """An encoder of plain cells that can be computed for many columns at once, see `TableColumns`.

    Its `net` is an embedding of an index, or two linear layers with a ReLU between over a vector.
    """

    net: nn.Module

    @property
    @abstractmethod
    def can_be_stacked(self) -> bool:
        """Whether its `net` is just that."""


encoders = Registry[Encoder]("encoders")
