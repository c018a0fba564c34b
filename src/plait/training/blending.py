"""Gradient blending: weigh the fused loss and the unimodal losses by what each one still teaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from plait.data.dataset import Dataset
from plait.model.network import MultimodalModel
from plait.nn.device import Settings
from plait.prediction.predictor import BATCH
from plait.tasks.base import MAIN
from plait.training.objective import Term, Weights, added, loss_terms
from plait.training.row_counts import counted

TIMES = 10  # how often losses are weighed anew in a training
MIN_OVERFITTING = 1e-4  # a loss whose overfitting did not grow would divide by zero

Measured = dict[str, list[float]]  # each loss on training rows, and on validation rows


def blended(measured: list[Measured]) -> dict[str, float]:
    """Return the weights of losses by gradient blending: w_k ~ G_k / O_k^2, adding up to one.

    `measured` holds, for several moments of the training, each loss on training rows and on validation rows.
    G is how much the latter fell between the last two moments. O is how much the gap between both grew. A
    loss that did not fall weighs nothing. Where none fell, the weights of the moment before stay.

    Source: Wang et al. 2020, "What makes training multi-modal classification networks hard?", proposition 1.
    """
    if len(measured) < 2:
        return _equal(measured[-1])
    weights = {}
    for name in measured[-1]:
        train, valid = measured[-1][name]
        train_before, valid_before = measured[-2][name]
        gain = max(valid_before - valid, 0.0)
        overfitting = (valid - train) - (valid_before - train_before)
        weights[name] = gain / max(abs(overfitting), MIN_OVERFITTING) ** 2
    total = sum(weights.values())
    if total <= 0:
        return blended(measured[:-1])
    return {name: weight / total for name, weight in weights.items()}


def _equal(names: Iterable[str]) -> dict[str, float]:
    """Return the same weight for each of these losses, once for each name; they add up to one."""
    distinct = dict.fromkeys(names)
    return dict.fromkeys(distinct, 1 / len(distinct))


def blended_targets(model: MultimodalModel) -> list[str]:
    """Return the targets whose losses are blended: those with unimodal heads."""
    return [target for target in model.fuser_of if model.fuser(target).unimodal_blocks]


def blended_weights(model: MultimodalModel, measured: list[Measured]) -> Weights:
    """Return the weights of all losses. Before anything is measured, all weigh the same."""
    if measured:
        return dict.fromkeys(model.fuser_of, blended(measured))

    names = [MAIN]
    for target in blended_targets(model):
        names += model.fuser(target).unimodal_blocks
    return dict.fromkeys(model.fuser_of, _equal(names))


@torch.inference_mode()
def measure(
    model: MultimodalModel, train: Dataset, valid: Dataset, settings: Settings, factors: Mapping[str, float]
) -> Measured:
    """Return each loss on training rows and on validation rows, added up over targets."""
    model.eval()
    of_train = _mean_losses(model, train, settings, factors)
    of_valid = _mean_losses(model, valid, settings, factors)
    measured = {}
    for name, train_loss in of_train.items():
        measured[name] = [train_loss, of_valid[name]]
    return measured


def _mean_losses(
    model: MultimodalModel, data: Dataset, settings: Settings, factors: Mapping[str, float]
) -> dict[str, float]:
    """Return each loss, a mean over the rows that count for it, added up over targets.

    Each target counts times its factor.
    """
    terms: list[Term] = []
    for batch in data.in_order(BATCH):
        with settings.autocast():
            terms += loss_terms(model, batch.to(torch.device(settings.device)))
    by_target = added(terms, counted(terms))

    sums: dict[str, float] = {}
    for target in model.fuser_of:
        # A target may have no label here.
        for name, loss in by_target.get(target, {}).items():
            sums[name] = sums.get(name, 0.0) + float(loss) * factors[target]
    return sums
