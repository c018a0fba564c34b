"""What torchjd's FAMO does where plait's training needs something else: the figures of 0001-own-famo.md.

Run it with `python docs/decisions/0001_own_famo.py`; it takes a few seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchjd.scalarization import FAMO

from plait.balancing import famo
from plait.balancing.base import Share

STEPS = 200
LEARNING_RATE = 0.02
MISSING = 1e30  # stands in for the loss of a target that the batch lacks: its gradient and its fall are zero


class Conflict(nn.Module):
    """Two losses of the same two parameters, with different minima."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([0.0, 3.0]))

    def forward(self) -> Tensor:
        squares = (self.x - torch.tensor([[-2.0, 0.0], [2.0, 0.0]])) ** 2
        return (squares * torch.tensor([[1.0, 0.1], [1.0, 4.0]])).sum(1) + 0.1


def train(model: Conflict, scalarizer: FAMO, steps: int) -> None:
    """Take steps of plain gradient descent."""
    for _ in range(steps):
        model.zero_grad()
        scalarizer(model()).backward()
        with torch.no_grad():
            model.x -= LEARNING_RATE * model.x.grad
        scalarizer.update(model())


def resumed() -> str:
    """Stop a training halfway, restore both states, and go on."""
    model, scalarizer = Conflict(), FAMO(2)
    train(model, scalarizer, STEPS)

    stopped, before = Conflict(), FAMO(2)
    train(stopped, before, STEPS // 2)
    again, after = Conflict(), FAMO(2)
    again.load_state_dict(stopped.state_dict())
    after.load_state_dict(before.state_dict())
    train(again, after, STEPS // 2)
    difference = (again.x - model.x).abs().max()
    return f"state_dict {sorted(before.state_dict())}; parameters differ by {difference:.1e} after the resume"


def unlabelled() -> str:
    """Train on batches that lack the second target, after ten that have both."""
    model, scalarizer = Conflict(), FAMO(2)
    train(model, scalarizer, 10)
    before = scalarizer.state_dict()["_w"].clone()
    for _ in range(STEPS):
        loss = model()[0].detach()
        scalarizer(torch.stack([loss, torch.tensor(MISSING)]))
        scalarizer.update(torch.stack([loss * 0.99, torch.tensor(MISSING)]))
    after = scalarizer.state_dict()["_w"]
    try:
        scalarizer(model()[:1])
    except ValueError as error:
        refusal = str(error).split(". ")[0]
    return f"one loss of two: '{refusal}'; filled up, w of the missing one {before[1]:.2f} -> {after[1]:.2f}"


def weighted() -> str:
    """Compare the part of the first target in the gradient, with its loss multiplied by 1 and by 10."""
    columns = []
    for weight in (1.0, 10.0):
        losses = torch.tensor([2.0, 3.0], requires_grad=True)
        FAMO(2)(losses * torch.tensor([weight, 1.0])).backward()
        theirs = losses.grad[0] / losses.grad[1]

        ours = torch.tensor([2.0, 3.0], requires_grad=True)
        shares = {"a": Share(weight), "b": Share()}
        balancing = famo.FAMO.build(famo.Config(), shares)
        balancing.backward({"a": ours[0], "b": ours[1]}, [])
        columns.append(f"weight {weight:g}: torchjd {theirs:.2f}, plait {ours.grad[0] / ours.grad[1]:.2f}")
    return "; ".join(columns)


if __name__ == "__main__":
    print("resume: ", resumed())
    print("missing:", unlabelled())
    print("weight: ", weighted())
