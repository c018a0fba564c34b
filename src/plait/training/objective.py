"""What training minimises on labelled rows: the losses of fused answers and of unimodal heads. B rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from plait.balancing.base import summed
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Encoded, Masks
from plait.tasks.base import MAIN
from plait.training.mixing import Mixing

Losses: TypeAlias = dict[str, dict[str, Tensor]]  # by target, then by name: MAIN, or a block
Weights: TypeAlias = dict[str, dict[str, float]]  # of these losses
Key: TypeAlias = tuple[str, str, int]  # of a loss: target, name, and 1 for the labels of mixed rows' partners
Counts: TypeAlias = dict[Key, Tensor]  # of the rows that a loss is a mean over

# Each target's outputs by name, with the rows (B,) that have a cell for it; None where that does not matter.
TrainedOutputs: TypeAlias = dict[str, dict[str, tuple[Tensor, Tensor | None]]]


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
    outputs = trained_outputs(model, batch, mixing, labelled_targets(model, batch))

    of_gradients = []
    for target, gradient in (gradients or {}).items():
        if target in outputs:
            ((output, _),) = outputs.pop(target).values()
            loss = (output * gradient).sum()
            of_gradients.append(Term((target, MAIN, 0), loss, batch.labelled[target], 1.0))
    return of_gradients + terms_of(model, batch, mixing, outputs)


def labelled_targets(model: MultimodalModel, batch: Batch) -> list[str]:
    """Return the targets that some row of a batch has."""
    return [target for target in model.targets if batch.has_label(target)]


def trained_outputs(
    model: MultimodalModel, batch: Batch, mixing: Mixing | None, targets: Iterable[str]
) -> TrainedOutputs:
    """Return the outputs of these targets that losses are taken of, and which rows they count for."""
    complete, hidden = _views(model, batch, mixing)
    fused_hidden = model.fuse(hidden)
    fused_complete = fused_hidden if complete is hidden else model.fuse(complete)

    outputs: TrainedOutputs = {}
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


def _views(model: MultimodalModel, batch: Batch, mixing: Mixing | None) -> tuple[Encoded, Encoded]:
    """Encode a batch twice: with all of its cells, and without those that training hides.

    Both are the same if no task needs all cells. Then hidden cells are not even encoded.
    """
    masks = _encoded_masks(model, batch)
    if masks is None:
        hidden = model.encode(model.packed(batch))
        hidden = hidden if mixing is None else mixing.mixed(hidden)
        return hidden, hidden

    complete_batch = replace(batch, present=masks.present, in_table=masks.in_table, complete=None)
    complete = model.encode(model.packed(complete_batch))
    hidden = model.hide(complete, batch.masks)
    if mixing is None:
        return complete, hidden
    return mixing.mixed(complete), mixing.mixed(hidden)


def _encoded_masks(model: MultimodalModel, batch: Batch) -> Masks | None:
    """Return the masks of the cells that are encoded; None if they are the batch's own."""
    all_see_hidden = all(model.task(target).sees_hidden_cells(model.columns) for target in model.targets)
    return None if all_see_hidden else batch.complete


def packed(model: MultimodalModel, batch: Batch) -> Batch:
    """Leave out the cells that training does not encode (see `MultimodalModel.packed`).

    Call it before the batch moves to a GPU.
    """
    masks = _encoded_masks(model, batch)
    if masks is None:
        return model.packed(batch)
    all_cells = model.packed(replace(batch, present=masks.present))
    return replace(batch, values=all_cells.values, packed=True)


def terms_of(
    model: MultimodalModel, batch: Batch, mixing: Mixing | None, outputs: TrainedOutputs
) -> list[Term]:
    """Compare outputs with labels."""
    terms = []
    for target, by_name in outputs.items():
        task = model.task(target)
        for name, (output, present_B) in by_name.items():
            for index, labels in enumerate(labels_of(batch, target, present_B, mixing)):
                loss = task.loss(output, labels.target, labels.rows_B)
                rows_B = task.learnable(output, labels.target, labels.rows_B)
                terms.append(Term((target, name, index), loss, rows_B, labels.weight))
    return terms


def labels_of(batch: Batch, target: str, present_B: Tensor | None, mixing: Mixing | None) -> list[Labels]:
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


def answer_losses(model: MultimodalModel, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the loss of each target's output, as a mean over its labelled rows."""
    by_target = {}
    for target, output in outputs.items():
        task = model.task(target)
        by_target[target] = task.loss(output, batch.targets[target], batch.labelled[target])
    return by_target


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
        weighted_losses = []
        for name, loss in by_name.items():
            weighted_losses.append((loss, weight_of.get(name, 1.0)))
        sums[target] = summed(weighted_losses)
    return sums
