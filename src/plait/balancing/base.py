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
from plait.recipe.registry import Component, Registry, hook


@dataclass(frozen=True)
class Share:
    """What the balancing needs of a target's loss before training.

    `weight` is the recipe's. `scale` is the loss of the baseline, which sees no input. `squared` says that
    the loss is a squared error.
    """

    weight: float = 1.0
    scale: float = 1.0
    squared: bool = False

    @property
    def factor(self) -> float:
        """Return what to multiply the loss by, so that losses of different tasks are comparable."""
        return self.weight / self.scale


class Balancing(nn.Module, Component, ABC):
    """Turn the losses of the targets that a batch has labels of into gradients.

    What it learns is in parameters, which the model's optimizer trains too, or in buffers. Checkpoints hold
    both.

    A batch may come in micro-batches. `backward` is then called for each of them, with the share that its
    rows have in each loss of the batch: the shares add up to the loss. `finish` is called once after the last
    one.
    """

    # Whether it needs the losses of the whole batch: `before` its micro-batches, and `after` the step.
    again: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def build(cls, config: Any, shares: dict[str, Share]) -> Balancing:
        """Make it for some targets. `shares` describes the loss of each."""

    @abstractmethod
    def backward(self, losses: dict[str, Tensor], shared: Sequence[nn.Parameter]) -> None:
        """Add to the gradients of all parameters. More than one target may depend on those of `shared`."""

    @hook
    def before(self, losses: dict[str, Tensor]) -> None:
        """Take the losses of a batch that comes in micro-batches, before the first of them.

        It is called if `again` is true, because it costs a forward pass.
        """
        return

    @hook
    def finish(self, shared: Sequence[nn.Parameter]) -> None:
        """Do what is left to do before the optimizer's step."""
        return

    @hook
    def discard(self) -> None:
        """Forget the losses and gradients of a batch whose step was not taken: it begins anew."""
        return

    @hook
    def after(self, losses: dict[str, Tensor]) -> None:
        """Take the losses of the same batch after the step.

        It is called if `again` is true, because it costs a second forward pass.
        """
        return


balancings = Registry[Balancing]("balancing")


def factors(shares: dict[str, Share]) -> dict[str, float]:
    """Return the factor w_t / s_t of each target's loss."""
    return {target: share.factor for target, share in shares.items()}


def import_torchjd(module: str, method: str) -> ModuleType:
    """Import a module of torchjd. Raises `RecipeError` that names the extra when it is not installed."""
    try:
        return importlib.import_module(f"torchjd.{module}")
    except ModuleNotFoundError:
        raise RecipeError(f"balancing '{method}' needs torchjd: pip install 'plait[balancing]'") from None


def summed(weighted_losses: list[tuple[Tensor, float]]) -> Tensor:
    """Return the sum of losses, each times its weight."""
    if len(weighted_losses) == 1:
        # Each operation costs microseconds in every step.
        loss, weight = weighted_losses[0]
        return loss if weight == 1.0 else loss * weight
    terms = [loss * weight for loss, weight in weighted_losses]
    return torch.stack(terms).sum()
