"""How the answers of members become one answer for a target: temperatures, weights, and a stacked model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from plait.recipe.sections import STACK
from plait.table.json import JSON
from plait.tasks.base_prediction import Prediction

ROUNDING = 1e-3  # of the sum of all weights


@dataclass(frozen=True)
class Stack:
    """A linear model of the outputs of several members: weight (inputs, outputs) and bias."""

    members: list[str]
    weight: Tensor
    bias: Tensor

    def output(self, task: Prediction, outputs: list[Tensor]) -> Tensor:
        """Return the output from those of the members, in their order."""
        output = stack_input(task, outputs) @ self.weight
        if not self.bias.ndim:  # a task of one number has outputs (B,)
            output = output[:, 0]
        return output + self.bias


@dataclass
class Mixture:
    """How the members' outputs for one target become the ensemble's.

    Each member's logits are divided by its temperature. Then the members' answers are averaged by the
    weights, which add up to one. `temperature` calibrates this mean, and `offset` those of numbers whose
    logarithm is learned. The stacked model has a weight under the name "stack".
    """

    weights: dict[str, float]
    temperatures: dict[str, float]
    temperature: float = 1.0
    offset: float = 0.0
    stack: Stack | None = None

    def needs(self) -> set[str]:
        """Return the members without which there is no answer."""
        names = {name for name, weight in self.weights.items() if weight}
        if STACK in names and self.stack is not None:
            names.remove(STACK)
            names.update(self.stack.members)
        return names

    def without(self, member: str) -> Mixture | None:
        """Return the mixture without a member, whose weight the others share in proportion to theirs.

        A stacked model that reads the member is left out with it. Return None if no other has a weight.
        """
        left_out = {member}
        if self.stack is not None and member in self.stack.members:
            left_out.add(STACK)
        others = {name: weight for name, weight in self.weights.items() if name not in left_out}
        total = sum(others.values())
        if not total:
            return None
        weights = {name: weight / total for name, weight in others.items()}
        return replace(self, weights=weights)

    def output(self, task: Prediction, outputs: dict[str, Tensor]) -> Tensor:
        """Answer from the outputs of the members."""
        cooled = {}
        for name, output in outputs.items():
            cooled[name] = output / self.temperatures.get(name, 1.0)
        if self.stack is not None and self.weights.get(STACK):
            inputs = [cooled[name] for name in self.stack.members]
            cooled[STACK] = self.stack.output(task, inputs)

        # A member without a weight need not be there: `Ensemble.pruned` leaves it out.
        mixed = []
        weights = []
        for name, weight in self.weights.items():
            if weight:
                mixed.append(cooled[name])
                weights.append(weight)
        return task.mix(torch.stack(mixed), torch.tensor(weights)) / self.temperature + self.offset

    def state(self) -> JSON:
        """Return all but the tensors of the stacked model, as JSON."""
        saved = _Saved(
            weights=self.weights,
            temperatures=self.temperatures,
            temperature=self.temperature,
            offset=self.offset,
            stacked=self.stack.members if self.stack else [],
        )
        return saved.model_dump(mode="json")

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the stacked model, to be saved beside `state`."""
        if self.stack is None:
            return {}
        return {"weight": self.stack.weight, "bias": self.stack.bias}

    @classmethod
    def from_state(cls, state: object, tensors: dict[str, Tensor]) -> Mixture:
        """Invert `state` and `tensors`. Raises `ValueError` or `KeyError` if they do not fit."""
        saved = _Saved.model_validate(state)
        total = sum(saved.weights.values())
        if abs(total - 1) > ROUNDING:
            raise ValueError(f"the weights of a mixture add up to {total:g}, expected 1")
        stack = None
        if saved.stacked:
            stack = Stack(saved.stacked, tensors["weight"], tensors["bias"])
        return cls(saved.weights, saved.temperatures, saved.temperature, saved.offset, stack)


class _Saved(BaseModel):
    """What is saved of a mixture."""

    model_config = ConfigDict(extra="forbid")
    weights: dict[str, Annotated[float, Field(ge=0)]]
    temperatures: dict[str, Annotated[float, Field(gt=0)]]
    temperature: float = Field(gt=0)
    offset: float = 0.0
    stacked: list[str]


def needed_members(mixtures: dict[str, Mixture]) -> set[str]:
    """Return the names of the members without which a target has no answer."""
    names: set[str] = set()
    for mixture in mixtures.values():
        names |= mixture.needs()
    return names


def mean(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Return the output of the mean of several models' answers."""
    count = len(outputs)
    if count == 1:
        return outputs[0]
    weights = torch.full((count,), 1 / count)
    return task.mix(torch.stack(outputs), weights)


def stack_input(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Put the members' outputs side by side, (B, numbers); for classes, logarithms of probabilities."""
    columns = []
    for output in outputs:
        # A mean of an output with itself is that output in the form of a mean: logits of any offset agree.
        normalised = mean(task, [output, output])
        columns.append(normalised[:, None] if normalised.ndim == 1 else normalised)
    return torch.cat(columns, 1)
