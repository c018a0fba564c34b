"""The contract of all members: any task, any subset of inputs, the same answers once saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from plait.errors import ArtifactError
from plait.members.base import Lesson, Member
from plait.prediction.view import View
from support.components import component, component_names
from support.damage import flips
from support.members import (
    ROWS,
    SEEN,
    TARGETS,
    fit_member,
    fold_lessons,
    lesson,
    make,
    member_config,
    shuffled,
)

NAMES = component_names("members")


@dataclass(frozen=True)
class Fitted:
    """A member that learned all targets, and its outputs for subsets of the inputs."""

    name: str
    member: Member
    lesson: Lesson
    columns: list[str]

    @property
    def subsets(self) -> list[Sequence[str]]:
        """All columns, two smaller subsets, and none."""
        return [self.columns, ("a",), ("text", "v"), ()]

    def outputs(self) -> list[dict[str, torch.Tensor]]:
        return self.member.outputs(self.lesson.held_out, self.subsets)


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    examples, plan = make(TARGETS, epochs=20)
    of = lesson(examples, plan, tmp_path_factory.mktemp(request.param))
    columns = list(of.train.views["network"].preprocessing.inputs)
    return Fitted(request.param, fit_member(request.param, of), of, columns)


def test_every_subset_has_outputs_of_all_targets(fitted: Fitted) -> None:
    for outputs in fitted.outputs():
        assert set(outputs) == set(TARGETS)
        for output in outputs.values():
            assert len(output) == ROWS - SEEN
            assert torch.isfinite(output).all()


def test_hiding_columns_changes_answers(fitted: Fitted) -> None:
    of_all_columns, of_one_column, *_ = fitted.outputs()
    for target in TARGETS:
        assert not torch.equal(of_all_columns[target], of_one_column[target])


def test_without_inputs_all_rows_are_answered_alike(fitted: Fitted) -> None:
    *_, of_no_column = fitted.outputs()
    for output in of_no_column.values():
        torch.testing.assert_close(output, output[:1].expand_as(output))


def test_it_learns_what_the_inputs_tell(fitted: Fitted) -> None:
    if fitted.name == "tabicl":
        pytest.skip("its weights are random here")
    labels, _ = fitted.lesson.held_out.target("kind")
    task = fitted.lesson.tasks["kind"]
    assert task.measure_score(fitted.outputs()[0]["kind"].numpy(), labels.numpy()) > 0.6


def test_a_saved_member_answers_the_same(fitted: Fitted, tmp_path: Path) -> None:
    fitted.member.save(tmp_path)
    of = fitted.lesson
    view = View("network", of.plan, of.train.views["network"].preprocessing, of.settings)
    config = member_config(fitted.name)
    restored = component("members", fitted.name).load(config, tmp_path, view)
    for before, after in zip(fitted.outputs(), restored.outputs(of.held_out, fitted.subsets), strict=True):
        for target in TARGETS:
            torch.testing.assert_close(before[target], after[target], rtol=1e-5, atol=1e-5)


def test_any_flipped_byte_of_a_saved_member_is_an_error(fitted: Fitted, tmp_path: Path) -> None:
    fitted.member.save(tmp_path)
    of = fitted.lesson
    view = View("network", of.plan, of.train.views["network"].preprocessing, of.settings)
    config = member_config(fitted.name)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        for _ in flips(path):
            with pytest.raises(ArtifactError, match="is damaged"):
                component("members", fitted.name).load(config, tmp_path, view)


@pytest.mark.parametrize("name", NAMES)
def test_missing_labels_are_not_learned_from(name: str, tmp_path: Path) -> None:
    """Whatever stands in their place changes nothing."""
    outputs = []
    for changes in (False, True):
        examples, plan = make({"kind": "classification"}, epochs=3)
        batch = examples.prepared.batch
        batch.labelled["kind"][:5] = False
        if changes:
            batch.targets["kind"][:5] = 0
        of = lesson(examples, plan, tmp_path)
        outputs.append(fit_member(name, of).outputs(of.held_out, [("a", "v")])[0]["kind"])
    torch.testing.assert_close(outputs[0], outputs[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_labels_of_a_fold_choose_nothing_for_its_own_answers(name: str, tmp_path: Path) -> None:
    """The folds' labels are what a member is weighed by, and what the ensemble is scored by."""
    outputs = []
    for is_shuffled in (False, True):
        examples, plan = make({"kind": "classification"}, epochs=3)
        lessons = fold_lessons(examples, plan, tmp_path)
        if is_shuffled:
            lessons[0] = replace(lessons[0], held_out=shuffled(lessons[0].held_out, "kind"))
        fits = component("members", name).fit(member_config(name), lessons, lambda: None)
        (of_fold,) = fits[0].out_of_fold.outputs(lessons[0].held_out, [("a", "v")])
        outputs.append(of_fold["kind"])
    torch.testing.assert_close(outputs[0], outputs[1])
