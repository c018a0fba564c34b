"""Members that read target statistics. The table is small, so that they must be told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plait.data import target_statistics
from plait.members.base import Lesson
from support.components import component
from support.members import ROWS, fit_member, fold_lessons, lesson, make, member_config, shuffled

NAMES = ("trees", "tabm")
COLUMNS = ["a", "v", "shop", "text"]
TASKS = {"price": "regression", "kind": "classification"}


@pytest.fixture(autouse=True)
def of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_statistics, "LEAST_ROWS", 0)
    monkeypatch.setattr(target_statistics, "MANY_CATEGORIES", 1)


@pytest.fixture
def of(tmp_path: Path) -> Lesson:
    return lesson(*make(TASKS), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_member_reads_statistics_of_each_target(
    name: str, of: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs,) = fit_member(name, of).outputs(of.held_out, [COLUMNS])
    monkeypatch.setattr(target_statistics, "LEAST_ROWS", ROWS)
    (without,) = fit_member(name, of).outputs(of.held_out, [COLUMNS])
    for target in TASKS:
        assert not torch.allclose(outputs[target], without[target])


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_member_has_its_statistics(name: str, of: Lesson, tmp_path: Path) -> None:
    member = fit_member(name, of)
    member.save(tmp_path)
    restored = component("members", name).load(member_config(name), tmp_path, None)
    subsets = [COLUMNS, ["a"], []]
    for before, after in zip(
        member.outputs(of.held_out, subsets), restored.outputs(of.held_out, subsets), strict=True
    ):
        for target in TASKS:
            torch.testing.assert_close(before[target], after[target], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_groups_have_no_statistics(name: str, of: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of a row's group would describe it, which new rows do not have."""
    split = of.plan.recipe.split.model_copy(update={"group": "shop"})
    recipe = of.plan.recipe.model_copy(update={"split": split})
    grouped = replace(of, plan=replace(of.plan, recipe=recipe))
    (outputs,) = fit_member(name, grouped).outputs(of.held_out, [COLUMNS])
    monkeypatch.setattr(target_statistics, "LEAST_ROWS", ROWS)
    (without,) = fit_member(name, of).outputs(of.held_out, [COLUMNS])
    for target in TASKS:
        torch.testing.assert_close(outputs[target], without[target])


@pytest.mark.parametrize("name", NAMES)
def test_labels_without_a_pattern_are_not_predicted(name: str, tmp_path: Path) -> None:
    """A row that saw its own label, or one of its fold, would be predicted too well."""
    examples, plan = make({"price": "regression"})
    lessons = fold_lessons(shuffled(examples, "price"), plan, tmp_path)
    fits = component("members", name).fit(member_config(name), lessons, lambda: None)
    answers, labels = [], []
    for fit, of in zip(fits, lessons, strict=True):
        (outputs,) = fit.out_of_fold.outputs(of.held_out, [COLUMNS])
        answers.append(outputs["price"])
        labels.append(of.held_out.target("price")[0])
    answer, label = torch.cat(answers), torch.cat(labels)
    assert (answer - label).square().mean() > 0.95 * label.var()
