"""What training minimises: the losses of fused answers, of unimodal heads, of mixed rows, and of
unlabelled rows.

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
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        return cls(share, torch.randperm(rows).to(device))

    def mixed(self, encoded: Encoded) -> Encoded:
        """Mix all columns of a row with its partner's. A token that only one of the two has stays."""
        partner_B = self.partner_B
        tokens: dict[str, Tokens] = {}
        for column, row in encoded.tokens.items():
            x_BLD, mask_BL = row.x_BLD[partner_B], row.mask_BL[partner_B]
            mean_BLD = self.share * row.x_BLD + (1 - self.share) * x_BLD
            mixed_BLD = torch.where((row.mask_BL & mask_BL)[..., None], mean_BLD, row.x_BLD)
            mixed_BLD = torch.where((mask_BL & ~row.mask_BL)[..., None], x_BLD, mixed_BLD)
            tokens[column] = Tokens(mixed_BLD, row.mask_BL | mask_BL)
        masks = []
        for mask in (encoded.present, encoded.in_table):
            masks.append({column: mask_B | mask_B[partner_B] for column, mask_B in mask.items()})
        return Encoded(tokens, *masks)


def losses(
    model: MultimodalModel,
    batch: Batch,
    mixing: Mixing | None = None,
    gradients: Mapping[str, Tensor] | None = None,
) -> Losses:
    """Return each target's losses: its own under `MAIN`, and those of unimodal heads under their
    blocks' names.

    A target that no row here has is left out. Targets with `gradients` (see `whole_batch_losses`) get a
    loss that has these gradients at their outputs.
    """
    complete, hidden = _views(model, batch, mixing)
    fused_hidden = model.fuse(hidden)
    fused_complete = fused_hidden if complete is hidden else model.fuse(complete)

    by_target: Losses = {}
    for target in model.targets:
        task = model.task(target)
        if not bool(batch.labelled[target].any()):
            continue
        sees_hidden = task.sees_hidden_cells(model.columns)
        encoded, fused = (hidden, fused_hidden) if sees_hidden else (complete, fused_complete)
        if gradients and target in gradients:
            output = task.answer(fused.get(target), encoded)
            by_target[target] = {MAIN: (output * gradients[target]).sum()}
        else:
            loss_of = _loss_of(task, batch, target, mixing)
            by_target[target] = task.losses(fused.get(target), encoded, loss_of)
    return by_target


def _views(model: MultimodalModel, batch: Batch, mixing: Mixing | None) -> tuple[Encoded, Encoded]:
    """Encode a batch: once with all of its cells, once without those that training hides.

    Both are the same where no task needs all cells, so that hidden cells are not even encoded.
    """
    needs_all = not all(model.task(t).sees_hidden_cells(model.columns) for t in model.targets)
    if batch.complete is None or not needs_all:
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
    """Return the function from an output to a task's mean loss over labelled rows, mixed where rows are
    mixed.
    """
    labels, labelled_B = batch.targets[target], batch.labelled[target]

    def loss_of(output: Tensor, present_B: Tensor | None) -> Tensor:
        """Return the mean loss of outputs (B, ...) over rows that are labelled and present."""
        counts_B = labelled_B if present_B is None else labelled_B & present_B
        loss = task.loss(output, labels, counts_B)
        if mixing is None:
            return loss
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
        by_target[target] = model.task(target).loss(output, batch.targets[target], batch.labelled[target])
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
    targets = model.comparisons
    states, outputs = [], []
    for micro_batch in micro_batches:
        states.append(_random_state())
        with torch.no_grad(), autocast():
            complete, _ = _views(model, micro_batch, None)
            outputs.append({target: model.task(target).answer(None, complete) for target in targets})

    leaves = {}
    for target in targets:
        leaves[target] = torch.cat([output[target] for output in outputs]).requires_grad_()
    with autocast():
        by_target = answer_losses(model, leaves, batch)
    torch.stack([loss * factors[target] for target, loss in by_target.items()]).sum().backward()

    detached = {target: loss.detach() for target, loss in by_target.items()}
    return detached, _output_gradients(leaves, micro_batches, factors), states


def _output_gradients(
    leaves: dict[str, Tensor], micro_batches: list[Batch], factors: Mapping[str, float]
) -> list[dict[str, Tensor]]:
    """Cut the gradients of a batch's outputs into those of its micro-batches, by target."""
    gradients: list[dict[str, Tensor]] = [{} for _ in micro_batches]
    sizes = [len(micro_batch) for micro_batch in micro_batches]
    for target, leaf in leaves.items():
        if leaf.grad is None:
            continue
        for number, gradient in enumerate((leaf.grad / factors[target]).split(sizes)):
            gradients[number][target] = gradient
    return gradients


def _random_state() -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def restore_random(state: RandomState) -> None:
    """Set the random generators of all devices to a state."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def consistency(model: MultimodalModel, weak: Batch, strong: Batch, factors: Mapping[str, float]) -> Tensor:
    """Return the loss on rows without a label (Sohn et al. 2020, "FixMatch", eq. 4).

    Where the answers to complete, unaugmented rows are sure, they stand in for labels of the same rows
    with some cells hidden and the others augmented. For numbers, every answer counts. Each target
    counts times its factor.
    """
    with torch.no_grad():
        answers = _fused_outputs(model, weak)
    outputs = _fused_outputs(model, strong)
    terms = []
    for target, (task, output) in outputs.items():
        unlabelled_B = ~weak.labelled[target]
        answer, sure_B = task.pseudo(answers[target][1], SURE)
        counts_B = sure_B & unlabelled_B
        share = counts_B.sum() / unlabelled_B.sum().clamp(min=1)
        terms.append(factors[target] * task.loss(output, answer, counts_B) * share)
    return torch.stack(terms).sum()


def _fused_outputs(model: MultimodalModel, batch: Batch) -> dict[str, tuple[Prediction, Tensor]]:
    """Return each predicted target's task and its fused output, also for rows that have one block only."""
    outputs = {}
    for target, fused in model.fuse(model.encode(model.packed(batch))).items():
        task = model.task(target)
        assert isinstance(task, Prediction)
        outputs[target] = (task, task(fused.vector_BD))
    return outputs


def loss_weights(model: MultimodalModel, unimodal_weight: float, remaining: float) -> Weights:
    """Return the weights of all losses when a share of `remaining` of the training is still to come.

    A target without weights of its own counts as it is.
    """
    weights = {}
    for target in model.targets:
        blocks = model.fuser(target).unimodal_blocks if target in model.fuser_of else []
        weights[target] = model.task(target).loss_weights(blocks, unimodal_weight, remaining)
    return weights


def weighed(by_target: Losses, weights: Weights) -> dict[str, Tensor]:
    """Add up each target's losses with these weights. A loss without a weight counts as it is."""
    sums = {}
    for target, by_name in by_target.items():
        of_target = weights.get(target, {})
        sums[target] = summed([(loss, of_target.get(name, 1.0)) for name, loss in by_name.items()])
    return sums
