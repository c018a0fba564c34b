"""What training minimises: the losses of fused answers, unimodal heads, mixed rows and unlabelled rows.

B rows, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from plait.balancing.base import summed
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Encoded, Tokens
from plait.tasks.base import MAIN
from plait.tasks.base_prediction import Prediction

Losses: TypeAlias = dict[str, dict[str, Tensor]]  # by target, then by name: MAIN, or a block
Weights: TypeAlias = dict[str, dict[str, float]]  # of these losses
Key: TypeAlias = tuple[str, str, int]  # of a loss: target, name, and 1 for the labels of mixed rows' partners
Counts: TypeAlias = dict[Key, Tensor]  # of the rows that a loss is a mean over
Outputs: TypeAlias = dict[str, dict[str, tuple[Tensor, Tensor | None]]]  # by target and name, with rows
RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the CPU, of each GPU

SURE = 0.95  # the probability from which an answer stands in for a label


@dataclass(frozen=True)
class Mixing:
    """Mixed rows: each row counts with `share`, its partner with `1 - share` (Zhang et al. 2018, "mixup")."""

    share: float
    partner_B: Tensor

    @classmethod
    def draw(cls, alpha: float, sizes: Iterable[int], device: torch.device) -> list[Mixing]:
        """Draw one share for a batch from Beta(alpha, alpha), and random partners (eq. 1 and its code).

        The batch comes in micro-batches of these sizes, and a row's partner is in its own micro-batch.
        """
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        mixings = []
        for rows in sizes:
            partner_B = torch.randperm(rows)
            mixings.append(cls(share, partner_B.to(device)))
        return mixings

    def mixed(self, encoded: Encoded) -> Encoded:
        """Mix all columns of each row with its partner's. A cell that only one of the two has stays."""
        tokens = {column: self._mixed_tokens(row) for column, row in encoded.tokens.items()}
        return Encoded(tokens, self.either(encoded.present), self.either(encoded.in_table))

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

    def either(self, mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each column where a row or its partner has it."""
        return {column: mask_B | mask_B[self.partner_B] for column, mask_B in mask.items()}


@dataclass(frozen=True)
class Labels:
    """What one loss compares outputs with: targets (B, ...), and the rows (B,) that have one.

    Mixed rows have labels of their own, which count with the `weight` of their share, and their partners'.
    """

    target: Tensor
    rows_B: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Term:
    """A mean loss, what it counts with in its sum, and the rows (B,) that it is a mean over."""

    key: Key
    loss: Tensor
    rows_B: Tensor
    weight: float


def losses(model: MultimodalModel, batch: Batch, mixing: Mixing | None = None) -> Losses:
    """Return each target's losses: the fused one under `MAIN`, the unimodal ones under their blocks' names.

    A target that no row here has is left out.
    """
    return added(loss_terms(model, batch, mixing))


def loss_terms(
    model: MultimodalModel,
    batch: Batch,
    mixing: Mixing | None = None,
    gradients: Mapping[str, Tensor] | None = None,
) -> list[Term]:
    """Return the mean losses of a batch or a micro-batch, before they are added up.

    Targets with `gradients` (see `compare`) get a loss that has these gradients at their outputs.
    """
    outputs = _trained_outputs(model, batch, mixing, labelled_targets(model, batch))

    of_gradients = []
    for target, gradient in (gradients or {}).items():
        if target in outputs:
            ((output, _),) = outputs.pop(target).values()
            loss = (output * gradient).sum()
            of_gradients.append(Term((target, MAIN, 0), loss, batch.labelled[target], 1.0))
    return of_gradients + _terms(model, batch, mixing, outputs)


def labelled_targets(model: MultimodalModel, batch: Batch) -> list[str]:
    """Return the targets that some row of a batch has."""
    return [target for target in model.targets if bool(batch.labelled[target].any())]


def added(terms: Iterable[Term], counts: Counts | None = None) -> Losses:
    """Add up mean losses of one target and name.

    With `counts`, these are the rows of a whole batch, and each loss becomes the share that its rows have in
    the mean over the batch. A loss without a count stays as it is.
    """
    weighted: dict[str, dict[str, list[tuple[Tensor, float]]]] = {}
    for term in terms:
        loss = term.loss
        if counts is not None and term.key in counts:
            rows = term.rows_B.sum().to(loss.dtype)
            loss = loss * (rows / counts[term.key].clamp(min=1))
        target, name, _ = term.key
        weighted.setdefault(target, {}).setdefault(name, []).append((loss, term.weight))

    by_target: Losses = {}
    for target, by_name in weighted.items():
        by_target[target] = {name: summed(losses) for name, losses in by_name.items()}
    return by_target


def counted(terms: Iterable[Term]) -> Counts:
    """Return the number of rows that each loss of all micro-batches is a mean over."""
    counts: Counts = {}
    for term in terms:
        _add_rows(counts, term.key, term.rows_B)
    return counts


def count_rows(
    model: MultimodalModel, micro_batches: Sequence[Batch], mixings: Sequence[Mixing | None]
) -> Counts:
    """Return what `counted` returns, from masks alone: no encoder runs.

    Tasks that leave out rows by their outputs need `first_pass`.
    """
    counts: Counts = {}
    for batch, mixing in zip(micro_batches, mixings, strict=True):
        for target in model.targets:
            for name, present_B in _present_by_name(model, batch, target, mixing).items():
                for index, labels in enumerate(_labels(batch, target, present_B, mixing)):
                    _add_rows(counts, (target, name, index), labels.rows_B)
    return counts


def _add_rows(counts: Counts, key: Key, rows_B: Tensor) -> None:
    rows = rows_B.sum()
    counts[key] = counts[key] + rows if key in counts else rows


def _present_by_name(
    model: MultimodalModel, batch: Batch, target: str, mixing: Mixing | None
) -> dict[str, Tensor | None]:
    """Return for each of a target's losses which rows have a cell for it, (B,); None if that is no matter."""
    by_name: dict[str, Tensor | None] = {MAIN: None}
    if target not in model.fuser_of:
        return by_name

    present = batch.present
    if batch.complete is not None and not model.task(target).sees_hidden_cells(model.columns):
        present = batch.complete.present
    if mixing is not None:
        present = mixing.either(present)
    fuser = model.fuser(target)
    of_blocks = fuser.of_blocks(present)
    for block in fuser.unimodal_blocks:
        by_name[block] = of_blocks[block]
    return by_name


def _trained_outputs(
    model: MultimodalModel, batch: Batch, mixing: Mixing | None, targets: Iterable[str]
) -> Outputs:
    """Return the outputs of these targets that losses are taken of, and which rows they count for."""
    complete, hidden = _views(model, batch, mixing)
    fused_hidden = model.fuse(hidden)
    fused_complete = fused_hidden if complete is hidden else model.fuse(complete)

    outputs: Outputs = {}
    for target in targets:
        task = model.task(target)
        encoded, fused_by_target = complete, fused_complete
        if task.sees_hidden_cells(model.columns):
            encoded, fused_by_target = hidden, fused_hidden

        fused = fused_by_target.get(target)
        outputs[target] = {}
        for name, output in task.trained_outputs(fused, encoded).items():
            present_B = None if fused is None or name == MAIN else fused.present[name]
            outputs[target][name] = (output, present_B)
    return outputs


def _terms(model: MultimodalModel, batch: Batch, mixing: Mixing | None, outputs: Outputs) -> list[Term]:
    """Compare outputs with labels."""
    terms = []
    for target, by_name in outputs.items():
        task = model.task(target)
        for name, (output, present_B) in by_name.items():
            for index, labels in enumerate(_labels(batch, target, present_B, mixing)):
                loss = task.loss(output, labels.target, labels.rows_B)
                rows_B = task.learnable(output, labels.target, labels.rows_B)
                terms.append(Term((target, name, index), loss, rows_B, labels.weight))
    return terms


def _labels(batch: Batch, target: str, present_B: Tensor | None, mixing: Mixing | None) -> list[Labels]:
    """Return a target's labels of the rows that are labelled and present. Mixed rows have partners' too."""
    labels, labelled_B = batch.targets[target], batch.labelled[target]
    rows_B = labelled_B if present_B is None else labelled_B & present_B
    if mixing is None:
        return [Labels(labels, rows_B)]

    # The labels are the partner's, but the output is of the row: it is present or not by itself.
    partner_rows_B = labelled_B[mixing.partner_B]
    if present_B is not None:
        partner_rows_B = partner_rows_B & present_B
    of_partners = Labels(labels[mixing.partner_B], partner_rows_B, 1 - mixing.share)
    return [Labels(labels, rows_B, mixing.share), of_partners]


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


def answer_losses(model: MultimodalModel, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the loss of each target's output, as a mean over its labelled rows."""
    by_target = {}
    for target, output in outputs.items():
        task = model.task(target)
        by_target[target] = task.loss(output, batch.targets[target], batch.labelled[target])
    return by_target


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
    """Run all micro-batches without a graph, so that only outputs stay in memory, of comparisons alone."""
    states: list[RandomState] = []
    measured: list[Term] = []
    compared: dict[str, list[Tensor]] = {target: [] for target in model.comparisons}
    for batch, mixing in zip(micro_batches, mixings, strict=True):
        states.append(random_state())
        targets = dict.fromkeys([*labelled_targets(model, batch), *compared])
        with autocast():
            outputs = _trained_outputs(model, batch, mixing, targets)
            for target, of_batch in compared.items():
                ((output, _),) = outputs.pop(target).values()
                of_batch.append(output)
            measured += _terms(model, batch, mixing, outputs)

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
    """Take the losses that compare all rows of a batch when only micro-batches of it fit in memory (Gao
    et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup").

    `compared` are the outputs for the whole batch, which `first_pass` returns. Return the losses, and their
    gradients at each micro-batch's outputs. Add to the gradients of the tasks' own parameters that `loss`
    uses, each target's times its factor.
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


def count_unlabelled(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """Return how many rows have no label, for each target that is predicted."""
    return {target: (~batch.labelled[target]).sum() for target in model.fuser_of}


def consistency(
    model: MultimodalModel,
    weak: Batch,
    strong: Batch,
    factors: Mapping[str, float],
    counts: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the loss on rows without a label (Sohn et al. 2020, "FixMatch", eq. 4).

    Where the answers to complete, unaugmented rows (`weak`) are sure, they stand in for labels of the same
    rows with some cells hidden and the others augmented (`strong`). For numbers, every answer counts. Each
    target counts times its factor. `counts` are those of all unlabelled rows of a step, if these rows are
    a micro-batch of them.
    """
    counts = count_unlabelled(model, weak) if counts is None else counts
    with torch.no_grad():
        answers = _fused_outputs(model, weak)
    outputs = _fused_outputs(model, strong)

    terms = []
    for target, (task, output) in outputs.items():
        _, weak_output = answers[target]
        answer, sure_B = task.pseudo(weak_output, SURE)
        counts_B = sure_B & ~weak.labelled[target]

        # `loss` is a mean over rows that count, but eq. 4 divides by all unlabelled rows.
        share = counts_B.sum() / counts[target].clamp(min=1)
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
