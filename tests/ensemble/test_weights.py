"""Temperatures and weights of members, some of which predict only a fifth of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plait.data.plan_ensemble import EnsemblePlan
from plait.ensemble.out_of_fold import OutOfFoldPrediction
from plait.ensemble.weights import Weighing, cross_fit_mixture, fit_mixture
from plait.recipe.sections import STACK
from plait.tasks.base_prediction import Prediction
from plait.tasks.classification import Classification
from plait.tasks.regression import Config, Labels, Regression

ROWS = 400
FOLDS = np.array_split(np.arange(ROWS), 4)
EVERYWHERE = torch.ones(ROWS, dtype=torch.bool)
LAST_FIFTH = torch.arange(ROWS) >= ROWS * 4 // 5


def weighing(task: Prediction, target: Tensor, labelled: Tensor = EVERYWHERE, **options: Any) -> Weighing:
    return Weighing(task, target, labelled, EnsemblePlan(**options), seed=0)


def noisy(target: Tensor, noise: float, seed: int, mask: Tensor = EVERYWHERE) -> OutOfFoldPrediction:
    """A member that predicts the target but for noise, in the rows of the mask."""
    outputs = target + noise * torch.randn(ROWS, generator=torch.Generator().manual_seed(seed))
    return OutOfFoldPrediction(outputs.masked_fill(~mask, torch.nan), mask)


def test_a_mixture_answers_a_fold_without_its_labels() -> None:
    """The labels of the first fold are changed: its own mixture stays, and that of another one does not."""
    task = Regression(Config(), Labels(mean=0.0, std=1.0))
    target = torch.randn(ROWS, generator=torch.Generator().manual_seed(0))
    changed = target.clone()
    changed[FOLDS[0]] = torch.randn(len(FOLDS[0]))
    predictions = {"line": noisy(target, 0.5, 1), "trees": noisy(target, 0.5, 2)}

    before = cross_fit_mixture(weighing(task, target, stack=True), predictions, FOLDS)
    after = cross_fit_mixture(weighing(task, changed, stack=True), predictions, FOLDS)
    outputs = {name: prediction.outputs for name, prediction in predictions.items()}
    answers = []
    for mixture in (before, after):
        answers.append([of_fold.output(task, outputs) for _, of_fold in mixture.by_fold])
    torch.testing.assert_close(answers[0][0], answers[1][0])
    assert not torch.allclose(answers[0][1], answers[1][1])
    assert not torch.allclose(before.served.output(task, outputs), after.served.output(task, outputs))


class TestNumbers:
    task = Regression(Config(), Labels(mean=0.0, std=1.0))
    target = torch.randn(ROWS, generator=torch.Generator().manual_seed(0))

    def weights(self, predictions: dict[str, OutOfFoldPrediction], **options: Any) -> dict[str, float]:
        return fit_mixture(weighing(self.task, self.target, **options), predictions, FOLDS).weights

    def complete(self) -> dict[str, OutOfFoldPrediction]:
        return {"line": noisy(self.target, 0.5, 1), "trees": noisy(self.target, 0.5, 2)}

    def test_a_good_member_of_few_rows_gets_the_weight(self) -> None:
        network = noisy(self.target, 0.05, 3, LAST_FIFTH)
        weights = self.weights({"network": network, **self.complete()})
        assert sum(weights.values()) == pytest.approx(1)
        assert weights["network"] > 0.9

    def test_a_bad_member_of_few_rows_changes_no_weight(self) -> None:
        network = noisy(self.target, 5.0, 3, LAST_FIFTH)
        weights = self.weights({"network": network, **self.complete()})
        assert weights == {**self.weights(self.complete()), "network": 0.0}

    def test_complete_members_keep_their_proportion(self) -> None:
        network = noisy(self.target, 0.5, 3, LAST_FIFTH)
        before = self.weights(self.complete())
        after = self.weights({"network": network, **self.complete()})
        assert 0.1 < after["network"] < 0.6
        assert after["line"] / after["trees"] == pytest.approx(before["line"] / before["trees"])

    def test_a_member_is_not_judged_by_rows_without_label(self) -> None:
        """The network is wrong in rows without a label, and nowhere else."""
        labelled = torch.arange(ROWS) % 2 == 0
        wrong = OutOfFoldPrediction(torch.where(labelled, self.target, self.target + 50), EVERYWHERE)
        weights = self.weights({"network": wrong, **self.complete()}, labelled=labelled, bags=1)
        assert weights["network"] > 0.9

    def test_a_member_that_shares_no_row_gets_no_weight(self) -> None:
        early = noisy(self.target, 0.5, 1, ~LAST_FIFTH)
        late = noisy(self.target, 0.1, 2, LAST_FIFTH)
        assert self.weights({"early": early, "late": late}) == {"early": 1.0}


class TestClasses:
    task = Classification([0, 1, 2], [ROWS // 3] * 3, "none", 0.0)
    target = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(0))

    def logits(self, seed: int, scale: float = 1.0, mask: Tensor = EVERYWHERE) -> OutOfFoldPrediction:
        generator = torch.Generator().manual_seed(seed)
        hits = torch.nn.functional.one_hot(self.target, 3).float()
        logits = scale * (2 * hits + torch.randn(ROWS, 3, generator=generator))
        return OutOfFoldPrediction(logits.masked_fill(~mask[:, None], torch.nan), mask)

    def test_temperatures_come_from_the_rows_of_a_member(self) -> None:
        members = {
            "network": self.logits(1, 6.0, LAST_FIFTH),
            "line": self.logits(1),
            "hot": self.logits(1, 6.0),
        }
        mixture = fit_mixture(weighing(self.task, self.target), members, FOLDS)
        assert mixture.temperatures["hot"] == pytest.approx(6 * mixture.temperatures["line"], rel=0.01)
        hot_in_last_fifth = OutOfFoldPrediction(members["hot"].outputs, LAST_FIFTH)
        expected = weighing(self.task, self.target).temperature(hot_in_last_fifth)
        assert mixture.temperatures["network"] == pytest.approx(expected)
        assert np.isfinite(mixture.temperature)

    def test_the_stacked_model_reads_complete_members_only(self) -> None:
        members = {
            "network": self.logits(1, 1.0, LAST_FIFTH),
            "line": self.logits(2),
            "trees": self.logits(3),
        }
        mixture = fit_mixture(weighing(self.task, self.target, stack=True), members, FOLDS)
        assert STACK in mixture.weights
        assert mixture.stack is not None
        assert mixture.stack.members == ["line", "trees"]
        inputs = [members[name].outputs for name in mixture.stack.members]
        outputs = mixture.stack.output(self.task, inputs)
        assert self.task.measure(outputs.numpy(), self.target.numpy())["accuracy"] > 0.9
