"""The learning rate of each step, and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from plait.nn.eager import eager
from plait.recipe.sections import TrainingOptions


@runtime_checkable
class Paced(Protocol):
    """A module that knows its parameters' shares of the learning rate."""

    def rates(self) -> Iterable[tuple[torch.Tensor, float]]:
        """Yield each parameter and its share."""
        ...


def learning_rate(step: int, total: int, options: TrainingOptions) -> float:
    """Return the learning rate of a step, counted from 0.

    It rises linearly over a share of all steps, then falls to zero along half a cosine (Loshchilov & Hutter
    2017, eq. 5 without restarts), or stays. A pure function, so a resumed training needs no state.
    """
    # The first step has a rate already, and the last step of the warm-up has all of it.
    warm = options.warmup * total
    if step < warm:
        return options.learning_rate * (step + 1) / math.ceil(warm)
    if options.schedule == "constant":
        return options.learning_rate
    angle = math.pi * (step - warm) / max(total - warm, 1)
    return options.learning_rate * 0.5 * (1 + math.cos(angle))


def optimizer_for(
    model: nn.Module, options: TrainingOptions, undecayed: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Build the optimizer of a model's parameters, and of `undecayed` ones, which have no weight decay.

    Weight decay is for weights of products only: not for biases, norms, embeddings or learned tokens. A
    group's `scale` is its share of the learning rate. It is below 1 in networks that were trained before.
    """
    embedded, scales = _parameter_traits(model)

    # Biases, norms and learned tokens have one dimension.
    by_scale_and_decay: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and id(parameter) not in embedded
        decay = options.weight_decay if decays else 0.0
        scale = scales.get(id(parameter), 1.0)
        by_scale_and_decay.setdefault((scale, decay), []).append(parameter)
    by_scale_and_decay.setdefault((1.0, 0.0), []).extend(undecayed)

    # A checkpoint numbers parameters by their place, so the order must be the same in every run.
    groups = []
    for scale, decay in sorted(by_scale_and_decay, reverse=True):
        parameters = by_scale_and_decay[scale, decay]
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay, "scale": scale})

    if options.optimizer == "sgd":
        return eager(torch.optim.SGD)(
            groups, lr=options.learning_rate, momentum=0.9, nesterov=True, fused=True
        )
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return eager(kind)(groups, lr=options.learning_rate, eps=options.epsilon, fused=True)


def _parameter_traits(model: nn.Module) -> tuple[set[int], dict[int, float]]:
    """Return the ids of the parameters of embeddings, and by id the shares of the learning rate."""
    embedded: set[int] = set()
    scales: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            embedded.update(id(parameter) for parameter in module.parameters())
        if isinstance(module, Paced):
            scales.update((id(parameter), scale) for parameter, scale in module.rates())
    return embedded, scales
