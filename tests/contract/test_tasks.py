"""The contract of all tasks, and of the tasks of each base: Prediction, Writing, Comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from plait.errors import TrainingError
from plait.nn.batch import Tokens
from plait.tasks.base import MAIN, Task, TaskOptions
from plait.tasks.base_comparison import Comparison
from plait.tasks.base_prediction import Prediction
from plait.tasks.base_writing import Writing
from support.export import exported_answer
from support.gradients import silent_parameters
from support.options import assert_option_matters, options_of
from support.tasks import (
    FUSED,
    ROWS,
    STEPS,
    UNLABELLED,
    answer,
    build_head,
    columns_of_labels,
    fit_task,
    inputs,
    labels_of,
    one_row,
    perfect_output,
    task_config,
    task_names,
)

LEARNED = [*task_names(Prediction), *task_names(Writing)]


def nowhere() -> torch.Tensor:
    return torch.zeros(ROWS, dtype=torch.bool)


def test_every_task_has_one_of_the_three_bases() -> None:
    assert sorted([*LEARNED, *task_names(Comparison)]) == task_names()


@pytest.mark.parametrize("name", task_names())
class TestTask:
    def test_the_score_is_one_of_the_metrics(self, name: str) -> None:
        task = fit_task(name).task
        assert task.score in task.metrics

    def test_a_perfect_output_is_measured_as_perfect(self, name: str) -> None:
        fitted = fit_task(name)
        output = perfect_output(fitted).numpy()
        score = fitted.task.measure_score(output, fitted.truth().numpy())
        assert score == pytest.approx(1.0 if fitted.task.higher else 0.0, abs=1e-3)

    def test_metrics_do_not_depend_on_the_order_of_rows(self, name: str) -> None:
        fitted = fit_task(name)
        output = answer(fitted.task, name)[fitted.labelled].numpy()
        rows = fitted.task.score_rows(output, fitted.truth().numpy())
        reversed_rows = rows.take(np.arange(len(rows))[::-1])
        for metric, expected in fitted.task.measure(output, fitted.truth().numpy()).items():
            assert fitted.task.metrics[metric](reversed_rows) == pytest.approx(expected, nan_ok=True), metric

    def test_metrics_take_samples_of_rows(self, name: str) -> None:
        """Rows may come several times, as in the bootstrap."""
        fitted = fit_task(name)
        output = answer(fitted.task, name)[fitted.labelled].numpy()
        rows = fitted.task.score_rows(output, fitted.truth().numpy())
        once, thrice = rows.take(np.array([1])), rows.take(np.array([1, 1, 1]))
        assert len(thrice) == 3
        score = fitted.task.metrics[fitted.task.score]
        assert score(thrice) == pytest.approx(score(once))

    def test_there_is_an_answer_for_each_row(self, name: str) -> None:
        task = fit_task(name).task
        answers = task.answers(answer(task, name))
        assert "" in answers
        assert all(len(column) == ROWS for column in answers.values())

    def test_a_single_row_is_answered_as_among_others(self, name: str) -> None:
        task, among = fit_task(name).task, inputs(name)
        with torch.no_grad():
            expected = task.decode(task.answer(*among))[3]
            single = task.decode(task.answer(*one_row(*among, 3)))[0]
        if isinstance(task, Writing):  # padded to the longest row
            expected = expected[: len(single)]
        torch.testing.assert_close(single, expected, atol=1e-5, rtol=1e-4)

    def test_its_answer_can_be_exported(self, name: str) -> None:
        task, (fused, encoded) = fit_task(name).task, inputs(name)
        last_steps = torch.arange(STEPS) >= torch.arange(ROWS)[:, None]
        graph = exported_answer(task, fused, encoded)
        for mask_BL in (torch.ones_like(last_steps), last_steps):
            tokens = {column: Tokens(t.x_BLD, mask_BL) for column, t in encoded.tokens.items()}
            masked = replace(encoded, tokens=tokens)
            torch.testing.assert_close(graph(fused, masked), task.answer(fused, masked))

    def test_state_is_json_and_restores_the_same_task(self, name: str) -> None:
        task = fit_task(name).task
        state = json.loads(json.dumps(task.state(), allow_nan=False))
        restored = type(task).from_state(task_config(name), state)
        build_head(restored, name)
        restored.load_state_dict(task.state_dict())
        assert torch.equal(answer(task, name), answer(restored.eval(), name))

    def test_every_parameter_learns(self, name: str) -> None:
        fitted, (fused, encoded) = fit_task(name), inputs(name)
        task = fitted.task.train()

        def loss() -> torch.Tensor:
            outputs = task.trained_outputs(fused, encoded)
            assert MAIN in outputs
            losses = [task.loss(output, fitted.target, fitted.labelled) for output in outputs.values()]
            return torch.stack(losses).sum()

        assert not silent_parameters(task, loss)

    def test_the_loss_of_the_baseline_is_a_unit(self, name: str) -> None:
        fitted = fit_task(name)
        assert 0 < fitted.task.baseline_loss(fitted.truth()) < np.inf


@pytest.mark.parametrize("name", LEARNED)
class TestTaskWithTarget:
    def test_unlabelled_rows_have_no_gradient(self, name: str) -> None:
        fitted = fit_task(name)
        assert fitted.labelled.tolist() == [row != UNLABELLED for row in range(ROWS)]
        output = fitted.task.answer(*inputs(name)).detach().requires_grad_()
        fitted.task.loss(output, fitted.target, fitted.labelled).backward()
        assert output.grad is not None
        assert not output.grad[UNLABELLED].any()
        assert output.grad[0].any()

    def test_without_labels_the_loss_is_zero(self, name: str) -> None:
        fitted = fit_task(name)
        output = fitted.task.answer(*inputs(name))
        assert fitted.task.loss(output, fitted.target, nowhere()) == 0

    def test_the_baseline_can_be_measured(self, name: str) -> None:
        fitted = fit_task(name)
        baseline, truth = fitted.task.baseline(fitted.truth()), fitted.truth()
        output = baseline.expand(len(truth), *baseline.shape).numpy()
        score = fitted.task.measure_score(output, truth.numpy())
        assert np.isfinite(score)
        assert score < 1 if fitted.task.higher else score > 0


@pytest.mark.parametrize("name", task_names(Prediction))
class TestPrediction:
    def test_a_row_without_inputs_gets_the_baseline(self, name: str) -> None:
        task, truth = predicting(fit_task(name).task), fit_task(name).truth()
        torch.testing.assert_close(task.baseline_output(), task.baseline(truth), atol=1e-6, rtol=1e-5)

    def test_the_baseline_beats_a_random_head(self, name: str) -> None:
        fitted = fit_task(name)
        task = predicting(fitted.task)
        baseline = task.baseline_output().expand(ROWS, *task.baseline_output().shape)
        random = task(torch.randn(ROWS, FUSED, generator=torch.Generator().manual_seed(0)))
        losses = [task.loss(output, fitted.target, fitted.labelled) for output in (baseline, random)]
        assert losses[0] <= losses[1]

    def test_a_mixture_of_equal_answers_is_that_answer(self, name: str) -> None:
        task = predicting(fit_task(name).task)
        output = answer(task, name)
        mixed = task.mix(torch.stack([output, output]), torch.tensor([0.3, 0.7]))
        answers = task.answers(mixed)
        for key, expected in task.answers(output).items():
            mixed_cells, expected_cells = answers[key].to_pylist(), expected.to_pylist()
            if isinstance(expected_cells[0], float):
                assert mixed_cells == pytest.approx(expected_cells)
            else:
                assert mixed_cells == expected_cells

    def test_sure_answers_become_labels(self, name: str) -> None:
        fitted = fit_task(name)
        task = predicting(fitted.task)
        target, is_sure = task.pseudo(perfect_output(fitted), 0.9)
        assert is_sure.all()
        torch.testing.assert_close(target, fitted.truth(), atol=1e-2, rtol=1e-2)

    def test_boosters_learn_targets_of_all_rows(self, name: str) -> None:
        fitted = fit_task(name)
        for parameters, target in predicting(fitted.task).boosting(fitted.truth()):
            assert "objective" in parameters
            assert len(target) == len(fitted.truth())


def predicting(task: Task) -> Prediction:
    assert isinstance(task, Prediction)
    return task


PREDICTION_OPTIONS = [
    (name, option) for name, option in options_of("tasks", TaskOptions) if name in task_names(Prediction)
]


@pytest.mark.parametrize(("name", "option"), PREDICTION_OPTIONS)
def test_every_option_of_a_prediction_matters(name: str, option: str) -> None:
    def outcome(options: dict[str, Any]) -> list[object]:
        """The target, the loss and the answers, for labels of every form that it learns."""
        outcomes: list[object] = []
        for labels in [labels_of(name), *columns_of_labels()]:
            try:
                fitted = fit_task(name, options, labels)
            except TrainingError:
                continue
            output = 3 * answer(fitted.task, name)
            loss = fitted.task.loss(output, fitted.target, fitted.labelled)
            answers = [column.to_pylist() for column in fitted.task.answers(output).values()]
            outcomes += [fitted.target, loss, answers]
        return outcomes

    assert_option_matters("tasks", name, option, outcome)
