"""Learn from rows without a label: sure answers stand in for the labels. B rows, D width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.tasks.base_prediction import Prediction

SURE = 0.95  # the probability from which an answer stands in for a label


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
