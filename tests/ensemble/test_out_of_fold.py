"""Out-of-fold predictions: which rows have one, what it is, and which rows an ensemble is scored on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plait.ensemble.mixture import Mixture
from plait.ensemble.out_of_fold import CrossFitMixture, OutOfFoldEnsemble, OutOfFoldPrediction, weighted_mean
from support.examples import constants, numbers

ROWS = 6
NAN = float("nan")


def predict(answers: list[float], held_out: list[list[list[int]]]) -> OutOfFoldPrediction:
    """Predict the target of six rows by fits that answer these numbers."""
    examples = numbers(ROWS)
    tasks = examples.views["network"].preprocessing.tasks
    (predictions,) = constants("member", answers, held_out).predict(examples, [["x"]], tasks)
    return predictions["y"]


def assert_outputs(prediction: OutOfFoldPrediction, outputs: list[float]) -> None:
    expected = torch.tensor(outputs, dtype=torch.float32)
    torch.testing.assert_close(prediction.outputs, expected, equal_nan=True)
    assert torch.equal(prediction.mask, ~prediction.outputs.isnan())


def test_each_row_is_predicted_by_the_fit_that_held_it_out() -> None:
    assert_outputs(predict([1.0, 2.0], [[[0, 2, 4], [1, 3, 5]]]), [1, 2, 1, 2, 1, 2])


def test_rows_that_no_fit_held_out_have_no_prediction() -> None:
    assert_outputs(predict([7.0], [[[1, 4]]]), [NAN, 7, NAN, NAN, 7, NAN])


def test_repeats_are_averaged() -> None:
    halves = [[0, 1, 2], [3, 4, 5]]
    assert_outputs(predict([1.0, 2.0, 5.0, 8.0], [halves, halves]), [3, 3, 3, 5, 5, 5])


def test_a_mean_of_repeats_needs_all_of_them() -> None:
    assert_outputs(predict([1.0, 5.0], [[[0, 1]], [[1, 2]]]), [NAN, 3, NAN, NAN, NAN, NAN])


def test_a_member_without_held_out_rows_predicts_nothing() -> None:
    member = constants("member", [1.0], [[[]]])
    assert member.predict(numbers(ROWS), [["x"]], {}) == [{}]


class TestWeightedMean:
    """Two members of four rows: the second one predicts the last two."""

    predictions = {
        "everywhere": OutOfFoldPrediction(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4).bool()),
        "late": OutOfFoldPrediction(torch.tensor([NAN, NAN, 7.0, 8.0]), torch.tensor([0, 0, 1, 1]).bool()),
    }

    def mean(self, weights: dict[str, float]) -> OutOfFoldPrediction:
        task = numbers(ROWS).views["network"].preprocessing.tasks["y"]
        return weighted_mean(task, self.predictions, weights)

    def test_it_covers_the_rows_that_all_members_predict(self) -> None:
        assert_outputs(self.mean({"everywhere": 0.75, "late": 0.25}), [NAN, NAN, 4, 5])

    def test_a_member_without_a_weight_takes_no_rows_away(self) -> None:
        assert_outputs(self.mean({"everywhere": 1.0, "late": 0.0}), [1, 2, 3, 4])


class TestOutOfFoldEnsemble:
    """Two targets: the network, which predicts the last two rows, has a weight for one of them."""

    @pytest.fixture
    def out_of_fold(self) -> OutOfFoldEnsemble:
        examples = numbers(ROWS, ["y", "z"])
        tasks = examples.views["network"].preprocessing.tasks
        members = [
            constants("network", [1.0], [[[4, 5]]], ["y", "z"]),
            constants("line", [3.0, 5.0], [[[0, 1, 4], [2, 3, 5]]], ["y", "z"]),
        ]
        predictions = OutOfFoldEnsemble(members, examples, tasks, ["x"])
        both = Mixture({"network": 0.5, "line": 0.5}, {})
        line_alone = Mixture({"network": 0.0, "line": 1.0}, {})
        everywhere = np.arange(ROWS)
        predictions.mixtures["y"] = CrossFitMixture(both, [(everywhere, both)])
        predictions.mixtures["z"] = CrossFitMixture(line_alone, [(everywhere, line_alone)])
        return predictions

    def test_a_row_is_scored_if_all_members_predict_it(self, out_of_fold: OutOfFoldEnsemble) -> None:
        assert out_of_fold.scored("y").tolist() == [False] * 4 + [True] * 2
        assert out_of_fold.scored("z").all(), "a member without a weight takes no rows away"

    def test_a_row_without_a_label_is_not_scored(self, out_of_fold: OutOfFoldEnsemble) -> None:
        out_of_fold.examples.prepared.batch.labelled["y"][5] = False
        assert out_of_fold.scored("y").tolist() == [False] * 4 + [True, False]

    def test_each_target_has_labels_where_it_is_scored(self, out_of_fold: OutOfFoldEnsemble) -> None:
        rows = out_of_fold.rows()
        assert len(rows) == ROWS
        labelled = rows.prepared.batch.labelled
        assert labelled["y"].tolist() == [False] * 4 + [True] * 2
        assert labelled["z"].all()
        assert out_of_fold.examples.prepared.batch.labelled["y"].all(), "the examples keep their labels"

    def test_answers_are_those_of_the_mixture(self, out_of_fold: OutOfFoldEnsemble) -> None:
        (answers,) = out_of_fold.subset_outputs(out_of_fold.rows(), [["x"]])
        expected_y = torch.tensor([NAN, NAN, NAN, NAN, 2.0, 3.0])
        torch.testing.assert_close(answers["y"], expected_y, equal_nan=True)
        torch.testing.assert_close(answers["z"], torch.tensor([3.0, 3.0, 5.0, 5.0, 3.0, 5.0]))
