"""What every way of balancing the losses of several targets has in common."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from plait.errors import RecipeError
from plait.recipe.registry import Component, Registry


@dataclass(frozen=True)
class Share:
    """What is known of a target's loss before training.

    `weight` is the recipe's. `scale` is the loss of the baseline, which sees no input. `squared` says that
    the loss is a squared error.
    """

    weight: float = 1.0
    scale: float = 1.0
    squared: bool = False

    @property
    def factor(self) -> float:
        """What makes losses of different kinds comparable."""
        return self.weight / self.scale


class Balancing(nn.Module, Component, ABC):
    """From the losses of the targets that a batch has labels of, by target, to gradients. What it
    learns lies in parameters, which the optimizer of the model takes along, or in buffers: both are
    saved with a training that is stopped.

    A batch may come in parts, each loss weighed by its part's share: `backward` is called for each of
    them, `finish` at their end.
    """

    again: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, config: Any, shares: dict[str, Share]) -> Balancing:
        """Build it for these targets: `shares` has the weight and the form of each loss."""

    @abstractmethod
    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Adds to the gradients of all parameters; `shared` are those that more than one target may
        depend on.
        """

    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        """What is left to do before the optimizer's step."""
        return

    def discard(self) -> None:
        """Forget the losses and gradients of a batch whose step was not taken: it begins anew."""
        return

    def after(self, losses: dict[str, Tensor]) -> None:
        """The losses of the same batch after the step, for those that ask for them (`again`), at the
        cost of a second forward pass.
        """
        return


balancings = Registry[Balancing]("balancing")


def import_torchjd(module: str, method: str) -> ModuleType:
    """Import a module of torchjd. Raises `RecipeError` that names the extra when it is not installed."""
    try:
        return importlib.import_module(f"torchjd.{module}")
    except ModuleNotFoundError:
        raise RecipeError(f"balancing '{method}' needs torchjd: pip install 'plait[balancing]'") from None


def summed(parts: list[tuple[Tensor, float]]) -> Tensor:
    """Losses, each times its weight, added up. A single one that weighs 1 is what it is: each operation
    costs microseconds in every step.
    """
    if len(parts) == 1:
        ((loss, weight),) = parts
        return loss if weight == 1.0 else loss * weight
    return torch.stack([loss * weight for loss, weight in parts]).sum()
