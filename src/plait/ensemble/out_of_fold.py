"""Out-of-fold predictions: each row is predicted by fits that were not trained on it.

Weights and scores of an ensemble come from them (Wolpert 1992, "Stacked generalization"). Not every member
predicts every row: the run's network is trained once, so it predicts the validation rows only. A row without
a prediction holds NaN, so that nothing can mistake it for an answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.ensemble.ensemble import Bag, Mixture, mixed_outputs, needed_members
from plait.members.base import Examples
from plait.table.table import Progress
from plait.tasks.base_prediction import Prediction

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class OutOfFoldPrediction:
    """Out-of-fold outputs of one target for N rows: `outputs` (N, ...), and `mask` (N,), which is True in
    rows that have a prediction. The other rows are NaN.
    """

    outputs: Tensor
    mask: Tensor

    def cooled(self, temperature: float) -> OutOfFoldPrediction:
        """Divide the outputs by a temperature."""
        return OutOfFoldPrediction(self.outputs / temperature, self.mask)


@dataclass(frozen=True)
class CrossFit:
    """The fits of one member, and the rows that each of them was not trained on.

    `held_out[repeat][fold]` has the places of these rows among the examples, in the order of `bag.folds`.
    """

    bag: Bag
    held_out: list[list[np.ndarray]]

    @property
    def name(self) -> str:
        """The member's name."""
        return self.bag.name

    def predict(
        self, examples: Examples, subsets: Sequence[Sequence[str]], tasks: Mapping[str, Prediction]
    ) -> list[dict[str, OutOfFoldPrediction]]:
        """Predict each row by the fits that held it out: for each subset of the columns, by target.

        Repeats are averaged over the rows that all of them held out.
        """
        fits = iter(self.bag.folds)
        repeats = []
        for held_out in self.held_out:
            outputs = []
            for rows in held_out:
                fit = next(fits)
                outputs.append(fit.outputs(examples.take(rows), subsets) if len(rows) else None)
            repeats.append([_joined(outputs, held_out, len(examples), n) for n in range(len(subsets))])

        even = dict.fromkeys(range(len(repeats)), 1 / len(repeats))
        predictions = []
        for subset in range(len(subsets)):
            means = {}
            for target in repeats[0][subset]:
                of_repeats = {number: repeat[subset][target] for number, repeat in enumerate(repeats)}
                means[target] = weighted_mean(tasks[target], of_repeats, even)
            predictions.append(means)
        return predictions


class OutOfFoldEnsemble:
    """Answers (see `prediction.Answering`) like the ensemble, but by out-of-fold predictions, on the rows
    that its members were cross-fitted on.

    A target is scored on the rows that every member with a weight predicts. On other rows a mean would be
    one of fewer members, which is another ensemble than the one that is served.
    """

    def __init__(
        self,
        members: Sequence[CrossFit],
        examples: Examples,
        tasks: dict[str, Prediction],
        columns: list[str],
    ) -> None:
        self.members, self.examples, self.tasks, self.columns = members, examples, tasks, columns
        self.mixtures: dict[str, Mixture] = {}
        self.predictions: dict[str, dict[str, OutOfFoldPrediction]] = {}
        for member in members:
            (self.predictions[member.name],) = member.predict(examples, [columns], tasks)

    def of_target(self, target: str) -> dict[str, OutOfFoldPrediction]:
        """Return the predictions of a target from all columns, by member."""
        return {name: by[target] for name, by in self.predictions.items() if target in by}

    def prepare(self, *arguments: object, **options: object) -> Dataset:
        """Refuse: only the rows that the members were cross-fitted on have an out-of-fold prediction."""
        raise NotImplementedError("out-of-fold predictions exist only for the rows of the training table")

    def scored(self, target: str) -> Tensor:
        """Return which examples a target is scored on: (N,), True where every member with a weight has a
        prediction, and the row a label.
        """
        mask = self.examples.target(target)[1].clone()
        predictions = self.of_target(target)
        for name in self.mixtures[target].needs():
            mask &= predictions[name].mask
        return mask

    def rows(self) -> Dataset:
        """Return the rows that are scored. Each target has labels only where it is scored."""
        prepared, places = self.examples.prepared, self.examples.rows

        # targets differ in the members that have a weight, so they differ in the rows that are scored
        labelled = {}
        for target, label_mask in prepared.batch.labelled.items():
            labelled[target] = torch.zeros_like(label_mask)
            labelled[target][places] = self.scored(target)
        prepared = replace(prepared, batch=replace(prepared.batch, labelled=labelled))
        scored = torch.stack([mask[places] for mask in labelled.values()]).any(0)
        preprocessing = next(iter(self.examples.views.values())).preprocessing
        return Dataset(prepared, preprocessing, places[scored].numpy())

    def outputs(
        self, rows: Dataset, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Answer rows that `rows` returned, for each subset of the columns; NaN where one is not scored."""
        # rows are numbers of the table's rows, in ascending order; outputs are by place among the examples
        places = torch.searchsorted(self.examples.rows, rows.rows)
        names = needed_members(self.mixtures)
        outputs: dict[str, list[dict[str, Tensor]]] = {}
        for member in self.members:
            if member.name in names:
                outputs[member.name] = []
                for predictions in member.predict(self.examples, subsets, self.tasks):
                    outputs[member.name].append({t: p.outputs[places] for t, p in predictions.items()})
        progress(len(rows))
        return mixed_outputs(self.mixtures, self.tasks, outputs, len(subsets))


def weighted_mean(
    task: Prediction, predictions: Mapping[Key, OutOfFoldPrediction], weights: Mapping[Key, float]
) -> OutOfFoldPrediction:
    """Average predictions by their weights, in the rows that all with a weight predict."""
    used = [key for key, weight in weights.items() if weight]
    if len(used) == 1:
        return predictions[used[0]]
    mask = torch.stack([predictions[key].mask for key in used]).all(0)
    outputs = torch.full_like(predictions[used[0]].outputs, torch.nan)
    outputs[mask] = task.mix(
        torch.stack([predictions[key].outputs[mask] for key in used]),
        torch.tensor([weights[key] for key in used]),
    )
    return OutOfFoldPrediction(outputs, mask)


def _joined(
    outputs: list[list[dict[str, Tensor]] | None], held_out: list[np.ndarray], rows: int, subset: int
) -> dict[str, OutOfFoldPrediction]:
    """Put what the fits of one repeat predict from a subset of the columns into their rows, by target."""
    mask = _mask(held_out, rows)
    predictions: dict[str, OutOfFoldPrediction] = {}
    for places, of_fit in zip(held_out, outputs, strict=True):
        for target, output in of_fit[subset].items() if of_fit else ():
            if target not in predictions:
                empty = torch.full((rows, *output.shape[1:]), torch.nan)
                predictions[target] = OutOfFoldPrediction(empty, mask)
            predictions[target].outputs[torch.from_numpy(places)] = output
    return predictions


def _mask(held_out: list[np.ndarray], rows: int) -> Tensor:
    """Return True in the rows that one of the folds held out: (rows,)."""
    mask = torch.zeros(rows, dtype=torch.bool)
    for places in held_out:
        mask[torch.from_numpy(places)] = True
    return mask
