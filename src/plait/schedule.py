"""How large a step is, and who takes it."""

from __future__ import annotations

import math

import torch
from torch import nn

from plait.recipe import TrainingRecipe


def learning_rate(step: int, total: int, recipe: TrainingRecipe) -> float:
    """The learning rate of a step (from 0): linear warm-up over a share of all steps, then half a cosine down to zero
    (Loshchilov & Hutter 2017, eq. 5 without restarts), or constant. A pure function, so a resumed training needs no state."""
    warm = recipe.warmup * total
    if step < warm:
        return recipe.learning_rate * (step + 1) / math.ceil(warm)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def optimizer_for(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """Weight decay is for weights of products alone: not for biases, norms, embeddings or learned tokens."""
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in embedded]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in embedded]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, eps=recipe.epsilon, fused=True)
