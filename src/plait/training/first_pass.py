"""Look at a whole batch before its gradients are taken in micro-batches, which see only some of its rows.

Two things need that: losses that compare all rows of a batch, and numbers of rows that only outputs tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.randomness import RandomState, random_state
from plait.training.mixing import Mixing
from plait.training.objective import (
    Counts,
    Losses,
    Term,
    added,
    answer_losses,
    labelled_targets,
    terms_of,
    trained_outputs,
)
from plait.training.row_counts import counted


@dataclass(frozen=True)
class FirstPass:
    """What a pass over the micro-batches of a batch tells before any gradient is taken.

    `losses` are those of the batch, and `counts` the rows that each is a mean over. `compared` has the
    outputs of the tasks that compare rows, of all the batch. `states` are those of the random generators
    before each micro-batch, with which a second pass draws the same dropout.
    """

    losses: Losses
    counts: Counts
    compared: dict[str, Tensor]
    states: list[RandomState]


@torch.no_grad()
def first_pass(
    model: MultimodalModel,
    micro_batches: Sequence[Batch],
    mixings: Sequence[Mixing | None],
    autocast: Callable[[], AbstractContextManager[object]],
) -> FirstPass:
    """Run all micro-batches without gradients.

    Nothing stays in memory but losses, and the outputs of the tasks that compare rows.
    """
    states: list[RandomState] = []
    measured: list[Term] = []
    compared: dict[str, list[Tensor]] = {target: [] for target in model.comparisons}
    for batch, mixing in zip(micro_batches, mixings, strict=True):
        states.append(random_state())
        targets = dict.fromkeys([*labelled_targets(model, batch), *compared])
        with autocast():
            outputs = trained_outputs(model, batch, mixing, targets)
            for target, of_batch in compared.items():
                ((output, _),) = outputs.pop(target).values()
                of_batch.append(output)
            measured += terms_of(model, batch, mixing, outputs)

    counts = counted(measured)
    joined = {target: torch.cat(of_batches) for target, of_batches in compared.items()}
    return FirstPass(added(measured, counts), counts, joined, states)


def compare(
    model: MultimodalModel,
    compared: Mapping[str, Tensor],
    micro_batches: Sequence[Batch],
    batch: Batch,
    autocast: Callable[[], AbstractContextManager[object]],
    factors: Mapping[str, float],
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Take the losses that compare all rows of a batch, from the outputs of a first pass.

    Return the losses of the targets in `compared`, and for each micro-batch their gradients at its outputs: a
    second pass carries these into the network. Parameters that `loss` itself uses get their gradients here,
    each target's times its factor.

    Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup".
    """
    # The outputs are leaves: the backward pass stops there.
    leaves = {target: output.detach().requires_grad_() for target, output in compared.items()}
    with autocast():
        by_target = answer_losses(model, leaves, batch)
    terms, detached = [], {}
    for target, loss in by_target.items():
        terms.append(loss * factors[target])
        detached[target] = loss.detach()
    torch.stack(terms).sum().backward()
    return detached, _output_gradients(leaves, micro_batches, factors)


def _output_gradients(
    leaves: dict[str, Tensor], micro_batches: Sequence[Batch], factors: Mapping[str, float]
) -> list[dict[str, Tensor]]:
    """Cut the gradients of a batch's outputs into those of its micro-batches, by target."""
    by_micro_batch: list[dict[str, Tensor]] = []
    sizes = []
    for micro_batch in micro_batches:
        by_micro_batch.append({})
        sizes.append(len(micro_batch))

    for target, leaf in leaves.items():
        if leaf.grad is None:
            continue
        # The balancing weighs this target once more, so the factor is taken out again.
        gradient = leaf.grad / factors[target]
        for gradients, rows in zip(by_micro_batch, gradient.split(sizes), strict=True):
            gradients[target] = rows
    return by_micro_batch
