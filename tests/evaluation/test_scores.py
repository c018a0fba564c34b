"""Scores of subsets of the inputs, and the warnings that come from them."""

from __future__ import annotations

from typing import Any

import pytest

from plait.evaluation.scores import imbalance


def scores(fused: float, photo: tuple[float, float, float], text: tuple[float, float, float]) -> Any:
    """Return the scores of a target; an input's are its score, and the interval of the difference."""
    return {
        "score": "accuracy",
        "metrics": {"accuracy": {"value": fused}},
        "subsets": [(("photo",), {"value": photo[0]}), (("text",), {"value": text[0]})],
        "differences": [{"low": low, "high": high} for _, low, high in (photo, text)],
    }


def test_an_input_that_is_better_than_all_together_is_a_warning() -> None:
    warning = imbalance("label", scores(0.7, (0.5, -0.3, -0.1), (0.9, 0.1, 0.3)), higher=True)
    assert warning == (
        "label: 'text' by itself has a better accuracy on validation rows (0.900) than all inputs "
        "together (0.700)"
    )
    warning = imbalance("label", scores(0.7, (0.5, -0.3, -0.1), (0.9, 0.1, 0.3)), higher=False)
    assert warning
    assert "'photo' by itself" in warning


def test_a_difference_that_may_be_luck_is_no_warning() -> None:
    assert imbalance("label", scores(0.7, (0.5, -0.3, -0.1), (0.75, -0.05, 0.15)), higher=True) is None
    assert imbalance("label", None, higher=True) is None


def test_differences_of_subsets_are_paired_with_all_inputs(trained: Any) -> None:
    model, path = trained
    target = model.evaluate(path).targets["label"]
    fused = target.metrics["accuracy"].value
    assert len(target.differences) == len(target.subsets) == 2**4 - 2
    for (_, score), difference in zip(target.subsets, target.differences, strict=True):
        assert difference.value == pytest.approx(score.value - fused)
        assert difference.low <= difference.value <= difference.high
        assert difference.high - difference.low <= score.high - score.low + 0.1


def test_each_table_of_scores_names_its_bootstrap_samples(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = trained
    model.evaluate(path).show()
    printed = capsys.readouterr().out
    assert "95 % intervals by 1,000 bootstrap samples" in printed
    assert "with fewer inputs, 95 % intervals by 200 bootstrap samples" in printed
