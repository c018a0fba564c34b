"""Two losses of a few parameters that pull apart, and a step with one way of balancing them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from plait.balancing.base import Balancing, Share
from support.components import component, configured

SHARES = {"a": Share(2.0, 4.0), "b": Share(1.0, 0.5, squared=True)}
UNIT_SHARES = {"a": Share(), "b": Share()}


def build(name: str, shares: dict[str, Share] = SHARES, **options: Any) -> Balancing:
    balancing: Balancing = component("balancing", name).build(configured("balancing", name, options), shares)
    return balancing


class Toy(nn.Module):
    """Two losses of shared parameters w. Each also has one parameter that the other does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.own = nn.ParameterDict({"a": torch.tensor(1.0), "b": torch.tensor(-1.0)})

    def losses(self) -> dict[str, torch.Tensor]:
        a = (self.w * torch.tensor([1.0, 2.0, -1.0])).sum().square() + self.own["a"].square() + 1
        b = (self.w - torch.tensor([0.0, -2.0, 2.0])).square().sum() + (self.own["b"] - 2).square()
        return {"a": a, "b": b}

    def values(self) -> dict[str, float]:
        return {target: float(loss.detach()) for target, loss in self.losses().items()}

    def gradients(self) -> np.ndarray:
        """The gradient of each loss by w: (2, 3)."""
        rows = [torch.autograd.grad(loss, self.w)[0].numpy() for loss in self.losses().values()]
        return np.stack(rows).astype(float)


def stepped(balancing: Balancing) -> Toy:
    """The toy with its gradients after one batch."""
    toy = Toy()
    balancing.backward(toy.losses(), [toy.w])
    balancing.finish([toy.w])
    return toy


def train(balancing: Balancing, steps: int) -> Toy:
    """The toy after some steps of gradient descent."""
    toy = Toy()
    optimizer = torch.optim.SGD([*toy.parameters(), *balancing.parameters()], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        balancing.backward(toy.losses(), [toy.w])
        balancing.finish([toy.w])
        optimizer.step()
        if balancing.again:
            balancing.after({target: loss.detach() for target, loss in toy.losses().items()})
    return toy
