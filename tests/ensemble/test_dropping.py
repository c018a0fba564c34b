"""Members that are dropped after their first fold, that are repeated, and what each adds to the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import plait
from plait.data.plan_ensemble import EnsemblePlan
from plait.ensemble.dropping import LEAST_ROWS, FirstFold, compare
from plait.ensemble.mixture import Mixture, Stack
from plait.ensemble.out_of_fold import CrossFitMixture, OutOfFoldPrediction
from plait.ensemble.weights import Weighing
from plait.tasks.classification import Classification

ROWS = 600
FOLD = np.arange(200)
UNTRAINED = "{name: network, learning_rate: 1.0e-9}"


def task() -> Classification:
    return Classification(["a", "b", "c"], [1] * 3, "none", 0.0)


def labels() -> Tensor:
    return torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(0))


def answers(strength: float, seed: int, among: Tensor | None = None) -> OutOfFoldPrediction:
    """Logits that know the labels as well as `strength` says, of all rows or `among` some only."""
    generator = torch.Generator().manual_seed(seed)
    outputs = strength * torch.nn.functional.one_hot(labels(), 3).float()
    if among is not None:
        outputs[~among] = 0
    return OutOfFoldPrediction(
        outputs + torch.randn(ROWS, 3, generator=generator), torch.ones(ROWS, dtype=torch.bool)
    )


def first_fold(
    member: OutOfFoldPrediction,
    fold: np.ndarray = FOLD,
    costly: bool = False,
    **rivals: OutOfFoldPrediction,
) -> FirstFold | None:
    weighing = Weighing(task(), labels(), torch.ones(ROWS, dtype=torch.bool), EnsemblePlan(), 0)
    mask = torch.zeros(ROWS, dtype=torch.bool)
    mask[torch.from_numpy(fold)] = True
    outputs = torch.where(mask[:, None], member.outputs, torch.nan)
    return compare(weighing, fold, OutOfFoldPrediction(outputs, mask), rivals, costly)


def test_a_member_that_knows_nothing_is_dropped() -> None:
    first = first_fold(answers(0.0, 1), strong=answers(2.5, 2), weak=answers(1.0, 3))
    assert first is not None
    assert first.drops
    assert first.best == "strong"
    assert first.best_value > first.value
    assert first.reason("accuracy").startswith(f"accuracy {first.value:.3f} against ")


def test_a_member_that_is_as_good_stays() -> None:
    first = first_fold(answers(2.5, 1), strong=answers(2.5, 2))
    assert first is not None
    assert not first.drops


@pytest.mark.parametrize("costly", [False, True])
def test_a_weak_member_that_knows_other_rows_stays(costly: bool) -> None:
    is_first = torch.arange(ROWS) % 3 > 0
    strong, different = answers(3.0, 2, is_first), answers(3.0, 1, ~is_first)
    first = first_fold(different, costly=costly, strong=strong)
    assert first is not None
    assert first.value < first.best_value
    assert not first.drops


def test_a_costly_member_has_to_help_clearly() -> None:
    for costly in (False, True):
        first = FirstFold(0.80, "linear", 0.82, 100, behind=0.5, gain=0.5, costly=costly)
        assert first.drops == costly
        assert FirstFold(0.80, "linear", 0.82, 100, behind=0.5, gain=1.5, costly=costly).drops is False
        assert FirstFold(0.84, "linear", 0.82, 100, behind=-0.5, gain=0.1, costly=costly).drops is False
    assert first.reason("accuracy") == "accuracy 0.800 against 0.820 of linear, and slow"


def test_a_fold_of_few_rows_drops_nothing() -> None:
    few = np.arange(LEAST_ROWS - 1)
    assert first_fold(answers(0.0, 1), few, strong=answers(2.5, 2)) is None


def test_the_others_share_the_weight_of_a_member_left_out() -> None:
    mixture = Mixture({"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 2.0})
    without = mixture.without("a")
    assert without is not None
    assert without.weights == pytest.approx({"b": 0.6, "c": 0.4})
    assert Mixture({"a": 1.0, "b": 0.0}, {}).without("a") is None

    stack = Stack(["a", "b"], torch.ones(2, 1), torch.zeros(()))
    stacked = Mixture({"a": 0.5, "c": 0.25, "stack": 0.25}, {}, stack=stack).without("b")
    assert stacked is not None
    assert stacked.weights == pytest.approx({"a": 2 / 3, "c": 1 / 3}), "the stacked model reads b"

    by_fold = [(np.arange(3), mixture), (np.arange(3, 6), replace(mixture, weights={"a": 1.0}))]
    assert CrossFitMixture(mixture, by_fold).without("a") is None
    assert CrossFitMixture(mixture, by_fold[:1]).without("a") is not None


def rows(count: int = 300, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, count))
    return [{"x": float(a), "z": float(b), "y": float(3 * a - b)} for a, b in zip(x, z, strict=True)]


def fit(folder: Path, members: str, *overrides: str, quiet: bool = True, **arguments: Any) -> plait.Model:
    options = ["training.epochs=2", f"ensemble.members={members}", *overrides]
    return plait.fit(rows(), "y", overrides=options, out=folder, quiet=quiet, **arguments)


def test_a_dropped_member_is_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fit(tmp_path / "run", f"{{line: linear, idle: {UNTRAINED}}}", quiet=False)
    printed = capsys.readouterr().err
    table = printed[printed.index("member ") :].splitlines()[:4]
    assert table[0].split() == ["member", "rmse", "rows", "weight", "gain", "seconds"]
    assert max(len(line) for line in table) <= 80
    assert "idle: dropped after fold 1: y rmse" in printed
    dropped = model.record["members"]["y"]["idle"]
    assert dropped["note"].startswith("dropped after fold 1: rmse")
    assert " of line" in dropped["note"]
    assert (dropped["weight"], dropped["gain"]) == (0, None)
    assert dropped["rows"] == 60, "one of five folds"
    assert dropped["note"] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    assert "idle" not in [bag.name for bag in model.answering.bags]
    unseen = rows(5, seed=1)
    assert plait.load(tmp_path / "run", quiet=True).predict(unseen).equals(model.predict(unseen))


def test_the_first_member_is_never_dropped(tmp_path: Path) -> None:
    model = fit(tmp_path / "run", f"{{idle: {UNTRAINED}, line: linear}}")
    idle = model.record["members"]["y"]["idle"]
    assert idle["note"] == ""
    assert idle["rows"] > 60


def test_gains_show_which_member_the_answers_need(tmp_path: Path) -> None:
    members = "{line: linear, idle: {name: trees, rounds: 1}}"
    scores = fit(tmp_path / "run", members).record["members"]["y"]
    assert scores["line"]["gain"] > 0.1, "the root of the squared error grows without it"
    assert abs(scores["idle"]["gain"]) < scores["line"]["gain"] / 10
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{scores['line']['gain']:+.3f}" in page


def test_only_members_with_a_weight_are_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = "{line: linear, idle: {name: trees, rounds: 1}}"
    model = fit(tmp_path / "run", members, "ensemble.folds=2", "ensemble.repeats=3", quiet=False)
    assert "trained on 2 more sets of folds: line; idle had too little weight" in capsys.readouterr().err
    folds = {bag.name: len(bag.folds) for bag in model.answering.bags}
    assert folds["line"] == 6
