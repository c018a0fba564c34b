"""What training minimises: the losses of fused answers, unimodal heads, mixed rows and unlabelled rows.

B rows, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from plait.balancing.base import summed
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Encoded, Tokens
from plait.tasks.base import MAIN, LossOf, Task
from plait.tasks.base_prediction import Prediction

Losses: TypeAlias = dict[str, dict[str, Tensor]]  # by target, then by name: MAIN, or a block
Weights: TypeAlias = dict[str, dict[str, float]]  # of these losses
RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the CPU, of each GPU

SURE = 0.95  # the probability from which an answer stands in for a label


@dataclass(frozen=True)
class Mixing:
    """Mixed rows: each row counts with `share`, its partner with `1 - share` (Zhang et al. 2018, "mixup")."""

    share: float
    partner_B: Tensor

    @classmethod
    def draw(cls, alpha: float, rows: int, device: torch.device) -> Mixing:
        """Draw one share for a batch from Beta(alpha, alpha), and random partners (eq. 1 and its code)."""
        share = torch.distributions.Beta(alpha, alpha).sample()
        partner_B = torch.randperm(rows)
        return cls(float(share), partner_B.to(device))

    def mixed(self, encoded: Encoded) -> Encoded:
        """Mix all columns of each row with its partner's. A cell that only one of the two has stays."""
        tokens = {column: self._mixed_tokens(row) for column, row in encoded.tokens.items()}
        return Encoded(tokens, self._either(encoded.present), self._either(encoded.in_table))

    def _mixed_tokens(self, row: Tokens) -> Tokens:
        """Mix the tokens of a column. A token that only one of two rows has stays."""
        row_BLD, row_mask_BL = row.x_BLD, row.mask_BL
        partner_BLD = row_BLD[self.partner_B]
        partner_mask_BL = row_mask_BL[self.partner_B]

        has_both_BL = row_mask_BL & partner_mask_BL
        has_partner_only_BL = partner_mask_BL & ~row_mask_BL
        mean_BLD = self.share * row_BLD + (1 - self.share) * partner_BLD
        mixed_BLD = torch.where(has_both_BL[..., None], mean_BLD, row_BLD)
        mixed_BLD = torch.where(has_partner_only_BL[..., None], partner_BLD, mixed_BLD)
        return Tokens(mixed_BLD, row_mask_BL | partner_mask_BL)

    def _either(self, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each column where a row or its partner has it."""
        return {column: mask_B | mask_B[self.partner_B] for column, mask_B in mask.items()}


def losses(
    model: MultimodalModel,
    batch: Batch,
    mixing: Mixing | None = None,
    gradients: Mapping[str, Tensor] | None = None,
) -> Losses:
    """Return each target's losses: the fused one under `MAIN`, the unimodal ones under their blocks' names.

    A target that no row here has is left out. Targets with `gradients` (see `whole_batch_losses`) get a
    loss that has these gradients at their outputs.
    """
    complete, hidden = _views(model, batch, mixing)
    fused_hidden = model.fuse(hidden)
    fused_complete = fused_hidden if complete is hidden else model.fuse(complete)

    by_target: Losses = {}
    for target in model.targets:
        if not bool(batch.labelled[target].any()):
            continue

        task = model.task(target)
        encoded, fused = complete, fused_complete
        if task.sees_hidden_cells(model.columns):
            encoded, fused = hidden, fused_hidden

        if gradients and target in gradients:
            output = task.answer(fused.get(target), encoded)
            by_target[target] = {MAIN: (output * gradients[target]).sum()}
        else:
            loss_of = _loss_of(task, batch, target, mixing)
            by_target[target] = task.losses(fused.get(target), encoded, loss_of)
    return by_target


def _views(model: MultimodalModel, batch: Batch, mixing: Mixing | None) -> tuple[Encoded, Encoded]:
    """Encode a batch twice: with all of its cells, and without those that training hides.

    Both are the same if no task needs all cells. Then hidden cells are not even encoded.
    """
    all_see_hidden = all(model.task(target).sees_hidden_cells(model.columns) for target in model.targets)
    if batch.complete is None or all_see_hidden:
        hidden = model.encode(model.packed(batch))
        hidden = hidden if mixing is None else mixing.mixed(hidden)
        return hidden, hidden

    masks = batch.complete
    complete_batch = replace(batch, present=masks.present, in_table=masks.in_table, complete=None)
    complete = model.encode(model.packed(complete_batch))
    hidden = model.hide(complete, batch.masks)
    if mixing is None:
        return complete, hidden
    return mixing.mixed(complete), mixing.mixed(hidden)


def _loss_of(task: Task, batch: Batch, target: str, mixing: Mixing | None) -> LossOf:
    """Return the function from an output to a task's mean loss. Mixed rows have mixed labels."""
    labels = batch.targets[target]
    labelled_B = batch.labelled[target]

    def loss_of(output: Tensor, present_B: Tensor | None) -> Tensor:
        """Return the mean loss of outputs (B, ...) over rows that are labelled and present."""
        counts_B = labelled_B if present_B is None else labelled_B & present_B
        loss = task.loss(output, labels, counts_B)
        if mixing is None:
            return loss

        # The labels are the partner's, but the output is of the row: it is present or not by itself.
        partner_B = mixing.partner_B
        partner_counts_B = labelled_B[partner_B]
        if present_B is not None:
            partner_counts_B = partner_counts_B & present_B
        partner_loss = task.loss(output, labels[partner_B], partner_counts_B)
        return mixing.share * loss + (1 - mixing.share) * partner_loss

    return loss_of


def answer_losses(model: MultimodalModel, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the loss of each target's output, as a mean over its labelled rows."""
    by_target = {}
    for target, output in outputs.items():
        task = model.task(target)
        by_target[target] = task.loss(output, batch.targets[target], batch.labelled[target])
    return by_target


def whole_batch_losses(
    model: MultimodalModel,
    micro_batches: list[Batch],
    batch: Batch,
    autocast: Callable[[], AbstractContextManager[object]],
    factors: Mapping[str, float],
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], list[RandomState]]:
    """Take the losses that compare all rows of a batch when only micro-batches of it fit in memory (Gao
    et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup").

    Return the losses, their gradients at each micro-batch's outputs, and the states of the random
    generators before each micro-batch, with which a second pass draws the same dropout. Add to the
    gradients of the tasks' own parameters that `loss` uses, each target's times its factor.
    """
    # Encode all rows without a graph, so that only the outputs stay in memory.
    states, outputs = [], []
    for micro_batch in micro_batches:
        states.append(random_state())
        with torch.no_grad(), autocast():
            complete, _ = _views(model, micro_batch, None)
            outputs.append(
                {target: model.task(target).answer(None, complete) for target in model.comparisons}
            )

    # Compare all rows. The outputs are leaves: the backward pass stops there.
    leaves = {}
    for target in model.comparisons:
        of_batch = torch.cat([output[target] for output in outputs])
        leaves[target] = of_batch.requires_grad_()
    with autocast():
        by_target = answer_losses(model, leaves, batch)
    terms, detached = [], {}
    for target, loss in by_target.items():
        terms.append(loss * factors[target])
        detached[target] = loss.detach()
    torch.stack(terms).sum().backward()
    return detached, _output_gradients(leaves, micro_batches, factors), states


def _output_gradients(
    leaves: dict[str, Tensor], micro_batches: list[Batch], factors: Mapping[str, float]
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


def random_state() -> RandomState:
    """Return the states of the random generators of all devices."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), on_gpus


def restore_random(state: RandomState) -> None:
    """Set the random generators of all devices to a state."""
    on_cpu, on_gpus = state
    torch.set_rng_state(on_cpu)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)


def consistency(model: MultimodalModel, weak: Batch, strong: Batch, factors: Mapping[str, float]) -> Tensor:
    """Return the loss on rows without a label (Sohn et al. 2020, "FixMatch", eq. 4).

    Where the answers to complete, unaugmented rows (`weak`) are sure, they stand in for labels of the same
    rows with some cells hidden and the others augmented (`strong`). For numbers, every answer counts. Each
    target counts times its factor.
    """
    with torch.no_grad():
        answers = _fused_outputs(model, weak)
    outputs = _fused_outputs(model, strong)

    terms = []
    for target, (task, output) in outputs.items():
        _, weak_output = answers[target]
        answer, sure_B = task.pseudo(weak_output, SURE)
        unlabelled_B = ~weak.labelled[target]
        counts_B = sure_B & unlabelled_B

        # `loss` is a mean over rows that count, but eq. 4 divides by all unlabelled rows.
        share = counts_B.sum() / unlabelled_B.sum().clamp(min=1)
        terms.append(factors[target] * task.loss(output, answer, counts_B) * share)
    return torch.stack(terms).sum()


def _fused_outputs(model: MultimodalModel, batch: Batch) -> dict[str, tuple[Prediction, Tensor]]:
    """Return each predicted target's task and its fused output, also for rows that have one block only."""
    encoded = model.encode(model.packed(batch))
    fused_by_target = model.fuse(encoded)
    outputs = {}
    for target, fused in fused_by_target.items():
        task = model.prediction(target)
        outputs[target] = (task, task(fused.vector_BD))
    return outputs


def loss_weights(model: MultimodalModel, unimodal_weight: float, remaining: float) -> Weights:
    """Return the weights of all losses when a share of `remaining` of the training is still to come."""
    weights = {}
    for target in model.targets:
        blocks = model.fuser(target).unimodal_blocks if target in model.fuser_of else []
        task = model.task(target)
        weights[target] = task.loss_weights(blocks, unimodal_weight, remaining)
    return weights


def weighed(by_target: Losses, weights: Weights) -> dict[str, Tensor]:
    """Add up each target's losses with these weights. A loss without a weight counts as it is."""
    sums = {}
    for target, by_name in by_target.items():
        weight_of = weights.get(target, {})
        terms = [(loss, weight_of.get(name, 1.0)) for name, loss in by_name.items()]
        sums[target] = summed(terms)
    return sums
