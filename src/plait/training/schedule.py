"""How large a step is, and who takes it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from plait.recipe.sections import TrainingOptions


@runtime_checkable
class Paced(Protocol):
    """A part that knows its parameters' shares of the learning rate."""

    def rates(self) -> Iterable[tuple[torch.Tensor, float]]: ...


def learning_rate(step: int, total: int, recipe: TrainingOptions) -> float:
    """The learning rate of a step (from 0): linear warm-up over a share of all steps, then half a
    cosine down to zero (Loshchilov & Hutter 2017, eq. 5 without restarts), or constant. A pure
    function, so a resumed training needs no state.
    """
    warm = recipe.warmup * total
    if step < warm:
        return recipe.learning_rate * (step + 1) / math.ceil(warm)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def optimizer_for(
    model: nn.Module, recipe: TrainingOptions, others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """For a model's parameters, and for `others`, which never decay.

    Weight decay is for weights of products alone: not for biases, norms, embeddings or learned tokens.
    A group's `scale` is its share of the learning rate: 1, but in networks that were trained before.
    """
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    scales = {id(p): scale for m in model.modules() if isinstance(m, Paced) for p, scale in m.rates()}
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            decay = recipe.weight_decay if p.ndim > 1 and id(p) not in embedded else 0.0
            found.setdefault((-scales.get(id(p), 1.0), -decay), []).append(p)
    found.setdefault((-1.0, 0.0), []).extend(others)
    groups = [
        {"params": found[key], "weight_decay": -key[1], "scale": -key[0]}
        for key in sorted(found)
        if found[key]
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, eps=recipe.epsilon, fused=True)
