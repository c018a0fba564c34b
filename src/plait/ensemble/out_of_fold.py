"""Out-of-fold predictions: each row is predicted by fits that were not trained on it.

Weights and scores of an ensemble come from them (Wolpert 1992, "Stacked generalization"). Not every member
predicts every row: the run's network is trained once, so it predicts the validation rows only. A row without
a prediction holds NaN, so that nothing can mistake it for an answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from plait.ensemble.ensemble import Bag
from plait.ensemble.mixture import Mixture
from plait.members.base import Examples, Fitted
from plait.table.table import Progress
from plait.tasks.base_prediction import Prediction

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class OutOfFoldPrediction:
    """Out-of-fold outputs of one target for N rows.

    `outputs` is (N, ...), and NaN in rows without a prediction. `mask` is (N,), and True in the other rows.
    """

    outputs: Tensor
    mask: Tensor

    @property
    def is_valid(self) -> bool:
        """Whether each row with a prediction has one that is a number."""
        return not bool(self.outputs[self.mask].isnan().any())

    def cooled(self, temperature: float) -> OutOfFoldPrediction:
        """Divide the outputs by a temperature."""
        return OutOfFoldPrediction(self.outputs / temperature, self.mask)


@dataclass(frozen=True)
class CrossFit:
    """The fits of one member, and the rows that each of them was not trained on.

    `bag` has those that are served, `fits` those that answer out of fold (see `members.base.Fit`), in the
    same order. `held_out[repeat][fold]` has the places of the rows among the examples.
    """

    bag: Bag
    fits: Sequence[Fitted]
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
        fits = iter(self.fits)
        repeats = []
        for held_out in self.held_out:
            fits_of_repeat = list(itertools.islice(fits, len(held_out)))
            repeats.append(_predict(fits_of_repeat, held_out, examples, subsets))

        # Every repeat counts as much as any other.
        weights = dict.fromkeys(range(len(repeats)), 1 / len(repeats))
        predictions = []
        for subset in range(len(subsets)):
            means = {}
            for target in repeats[0][subset]:
                by_repeat = {}
                for number, repeat in enumerate(repeats):
                    by_repeat[number] = repeat[subset][target]
                means[target] = weighted_mean(tasks[target], by_repeat, weights)
            predictions.append(means)
        return predictions


@dataclass(frozen=True)
class CrossFitMixture:
    """The mixture of a target that is served, and one for each fold that was fitted without its labels.

    `by_fold` has the places of each fold among the examples, and the mixture that answers them out of fold.
    It is empty if no row can be answered.
    """

    served: Mixture
    by_fold: list[tuple[np.ndarray, Mixture]]

    def without(self, member: str) -> CrossFitMixture | None:
        """Return the same mixtures without a member; None if one of them has no other member."""
        served = self.served.without(member)
        by_fold = []
        for places, mixture in self.by_fold:
            others = mixture.without(member)
            if others is None:
                return None
            by_fold.append((places, others))
        return CrossFitMixture(served, by_fold) if served is not None else None


class OutOfFoldEnsemble:
    """Answers like the ensemble, but by out-of-fold predictions, on the rows that its members were
    cross-fitted on: it can be scored (see `prediction.Answering`), but answers no other table.

    No label of a fold has a say in the answers for it: neither in the members nor in how they are mixed. The
    first fold is an exception in one thing: its labels have dropped members that were far behind.

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
        self.members = members
        self.examples = examples
        self.tasks = tasks
        self.columns = columns
        self.mixtures: dict[str, CrossFitMixture] = {}
        self.predictions: dict[str, dict[str, OutOfFoldPrediction]] = {}
        for member in members:
            (self.predictions[member.name],) = member.predict(examples, [columns], tasks)

    def of_target(self, target: str) -> dict[str, OutOfFoldPrediction]:
        """Return the predictions of a target from all columns, by member.

        Those that are no numbers are left out.
        """
        by_member = {}
        for name, by_target in self.predictions.items():
            if target in by_target and by_target[target].is_valid:
                by_member[name] = by_target[target]
        return by_member

    def invalid(self, target: str) -> list[str]:
        """Return the members whose predictions of a target are no numbers."""
        names = []
        for name, by_target in self.predictions.items():
            if target in by_target and not by_target[target].is_valid:
                names.append(name)
        return names

    def scored(self, target: str) -> Tensor:
        """Return which of the N examples a target is scored on: a mask (N,).

        It is True where every member with a weight has a prediction, and the row can be scored. This holds
        for the weights that are served, and for those of the row's fold.
        """
        labels, labelled = self.examples.target(target)
        mixture = self.mixtures[target]
        scored = torch.zeros_like(labelled)
        if not mixture.by_fold:
            return scored
        can_answer = self.tasks[target].scorable(labels, labelled) & self._predicted(target, mixture.served)
        for places, of_fold in mixture.by_fold:
            fold = torch.from_numpy(places)
            scored[fold] = (can_answer & self._predicted(target, of_fold))[fold]
        return scored

    def _predicted(self, target: str, mixture: Mixture) -> Tensor:
        """Return which examples all members of a mixture predict: a mask (N,)."""
        predictions = self.of_target(target)
        mask = torch.ones(len(self.examples), dtype=torch.bool)
        for name in mixture.needs():
            mask &= predictions[name].mask
        return mask

    def rows(self) -> Examples:
        """Return the rows that are scored. Each target has labels only where it is scored."""
        prepared = self.examples.prepared
        rows = self.examples.rows

        # Targets differ in the members that have a weight, so they differ in the rows that are scored.
        labelled = {}
        is_scored = torch.zeros(len(rows), dtype=torch.bool)
        for target, label_mask in prepared.batch.labelled.items():
            target_is_scored = self.scored(target)
            labelled[target] = torch.zeros_like(label_mask)
            labelled[target][rows] = target_is_scored
            is_scored |= target_is_scored

        scored = self.examples.take(np.flatnonzero(is_scored.numpy()))
        scored.prepared = replace(prepared, batch=replace(prepared.batch, labelled=labelled))
        return scored

    def subset_outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Answer rows that `rows` returned, for each subset of the columns; NaN where one is not scored."""
        # Rows are numbers of the table's rows, in ascending order; outputs are by place among the examples.
        scored = torch.searchsorted(self.examples.rows, rows.rows)
        names: set[str] = set()
        for mixture in self.mixtures.values():
            for _, of_fold in mixture.by_fold:
                names |= of_fold.needs()

        predictions = {}
        for member in self.members:
            if member.name in names:
                predictions[member.name] = member.predict(self.examples, subsets, self.tasks)
        progress(len(rows))

        answers = []
        for subset in range(len(subsets)):
            by_target = {}
            for target in self.mixtures:
                by_member = {}
                for name, of_subsets in predictions.items():
                    if target in of_subsets[subset]:
                        by_member[name] = of_subsets[subset][target].outputs
                by_target[target] = self.mixed(self.mixtures[target], target, by_member)[scored]
            answers.append(by_target)
        return answers

    def mixed(self, mixture: CrossFitMixture, target: str, outputs: dict[str, Tensor]) -> Tensor:
        """Mix the members' outputs for all examples, each fold by its own mixture; NaN outside of folds."""
        shape = self.tasks[target].baseline_output().shape
        answer = torch.full((len(self.examples), *shape), torch.nan)
        for places, mixture_of_fold in mixture.by_fold:
            of_fold = {name: output[places] for name, output in outputs.items()}
            answer[places] = mixture_of_fold.output(self.tasks[target], of_fold)
        return answer


def weighted_mean(
    task: Prediction, predictions: Mapping[Key, OutOfFoldPrediction], weights: Mapping[Key, float]
) -> OutOfFoldPrediction:
    """Average predictions by their weights, in the rows that all with a weight predict."""
    used = []
    used_weights = []
    for key, weight in weights.items():
        if weight:
            used.append(predictions[key])
            used_weights.append(weight)
    if len(used) == 1:
        return used[0]

    mask = predicted_by_all(used)
    used_outputs = [prediction.outputs[mask] for prediction in used]
    outputs = torch.full_like(used[0].outputs, torch.nan)
    outputs[mask] = task.mix(torch.stack(used_outputs), torch.tensor(used_weights))
    return OutOfFoldPrediction(outputs, mask)


def predicted_by_all(predictions: Iterable[OutOfFoldPrediction]) -> Tensor:
    """Return True in the rows that all of these predict: (N,)."""
    return torch.stack([prediction.mask for prediction in predictions]).all(0)


def _predict(
    fits: Sequence[Fitted],
    held_out: list[np.ndarray],
    examples: Examples,
    subsets: Sequence[Sequence[str]],
) -> list[dict[str, OutOfFoldPrediction]]:
    """Predict each row by the fit of one repeat that held it out: for each subset, by target."""
    by_fit = []
    for fit, places in zip(fits, held_out, strict=True):
        if len(places):
            by_fit.append(fit.outputs(examples.take(places), subsets))
        else:
            # A table may be split without validation rows, the only ones that the run's network predicts.
            by_fit.append([{} for _ in subsets])

    predictions = []
    for subset in range(len(subsets)):
        of_subset = [outputs[subset] for outputs in by_fit]
        predictions.append(_joined(of_subset, held_out, len(examples)))
    return predictions


def _joined(
    outputs: Sequence[dict[str, Tensor]], held_out: list[np.ndarray], rows: int
) -> dict[str, OutOfFoldPrediction]:
    """Put what the fits of one repeat predict into their rows, by target.

    `outputs` has those of each fit by target, for the rows that it held out.
    """
    mask = _mask(held_out, rows)
    predictions: dict[str, OutOfFoldPrediction] = {}
    for places, by_target in zip(held_out, outputs, strict=True):
        for target, output in by_target.items():
            if target not in predictions:
                nothing_yet = torch.full((rows, *output.shape[1:]), torch.nan)
                predictions[target] = OutOfFoldPrediction(nothing_yet, mask)
            predictions[target].outputs[torch.from_numpy(places)] = output
    return predictions


def _mask(held_out: list[np.ndarray], rows: int) -> Tensor:
    """Return True in the rows that one of the folds held out: (rows,)."""
    mask = torch.zeros(rows, dtype=torch.bool)
    for places in held_out:
        mask[torch.from_numpy(places)] = True
    return mask
