"""A step that runs out of memory is repeated in smaller micro-batches, as if it had begun with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import plait
from plait.balancing.base import balancings
from plait.errors import TrainingError
from plait.training import first_pass, objective, unlabelled
from plait.training.loop import Callback, Training
from support.tables import make_rows, write_csv

# Batch norms, dropout, mixed rows, hidden cells and a bank of earlier rows: what a step changes or draws.
OPTIONS = [
    "training.epochs=1",
    "training.batch_size=8",
    "training.keep=last",
    "training.precision=fp32",
    "training.mixup=0.4",
    "modalities.image.size=16",
    "columns.photo.encoder={name: resnet, width: 4, blocks: 1, stages: 1}",
    "columns.text.encoder={name: bag, width: 8, dropout: 0.3}",
]


@dataclass
class FailOnce:
    """A function that runs out of memory in one of its calls, counted from 1."""

    function: Callable[..., Any]
    failing_call: int
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError("CUDA out of memory"))
    calls: int = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.failing_call:
            raise self.error
        return self.function(*arguments)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of two targets, in which some rows have no label."""
    rows = make_rows(tmp_path, 40)
    for number, row in enumerate(rows):
        row["value"] = row["price"] * 2 + 1
        if number % 5 == 0:
            row["label"] = row["value"] = ""
    return write_csv(tmp_path / "train.csv", rows)


def weights(path: Path, micro_batch: int, *overrides: str, **arguments: Any) -> dict[str, torch.Tensor]:
    """Train for one epoch, and return the model's weights and buffers."""
    out = path.parent / f"run-{len(list(path.parent.iterdir()))}"
    options = [*OPTIONS, f"training.micro_batch={micro_batch}", *overrides]
    targets = ["label", "value"]
    plait.fit(path, targets, out=out, overrides=options, quiet=True, evaluate=False, **arguments)
    return load_file(out / "weights.safetensors")


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("balancing", balancings.names())
def test_a_repeated_step_is_one_that_never_failed(
    balancing: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first micro-batch of four rows fits, the second does not: then two rows at a time."""
    options = [f"balancing={balancing}"]
    expected = weights(path, 2, *options)
    failing = FailOnce(objective.loss_terms, failing_call=2)
    monkeypatch.setattr("plait.training.step.loss_terms", failing)
    assert_equal(weights(path, 4, *options), expected)
    assert failing.calls > 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_a_step_is_repeated_whatever_says_that_memory_ran_out(
    error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights(path, 2)
    failing = FailOnce(objective.loss_terms, failing_call=2, error=error)
    monkeypatch.setattr("plait.training.step.loss_terms", failing)
    assert_equal(weights(path, 4), expected)
    assert failing.calls > 2


def test_a_first_pass_that_does_not_fit_repeats_the_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights(path, 2, "balancing=famo")
    failing = FailOnce(first_pass.first_pass, failing_call=1)
    monkeypatch.setattr("plait.training.step.first_pass", failing)
    assert_equal(weights(path, 4, "balancing=famo"), expected)
    assert failing.calls > 1


def test_a_repeated_step_remembers_rows_of_a_comparison_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned: dict[str, Any] = {"align": ["photo", "text"]}
    options = ["training.mixup=0", "tasks.alignment.bank=16"]
    expected = weights(path, 2, *options, **aligned)
    monkeypatch.setattr("plait.training.step.loss_terms", FailOnce(objective.loss_terms, failing_call=2))
    assert_equal(weights(path, 4, *options, **aligned), expected)


def test_unlabelled_rows_that_do_not_fit_repeat_the_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights(path, 4, "training.unlabelled=1", "balancing=famo")
    failing = FailOnce(unlabelled.consistency, failing_call=1)
    monkeypatch.setattr("plait.training.step.consistency", failing)
    assert_equal(weights(path, 8, "training.unlabelled=1", "balancing=famo"), expected)
    assert failing.calls > 1


@dataclass
class CountUpdates(Callback):
    """Count the optimizer's steps, and those that training takes."""

    updates: int = 0
    steps: int = 0

    def before_step(self, training: Training, batch: Any) -> None:
        if not self.steps:
            training.step.optimizer.register_step_post_hook(self.count)
        self.steps += 1

    def count(self, *arguments: Any) -> None:
        self.updates += 1


def test_a_step_is_taken_once_if_the_losses_after_it_do_not_fit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAMO looks at the losses once more after the update, which must not be repeated."""
    options = ["balancing=famo", "training.mixup=0", "model.modality_dropout=0"]
    failing = FailOnce(objective.loss_terms, failing_call=2)
    monkeypatch.setattr("plait.training.step.loss_terms", failing)
    count = CountUpdates()
    weights(path, 8, *options, callbacks=[count])
    assert count.updates == count.steps > 1


def test_an_error_in_steps_of_one_row_is_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("plait.training.step.loss_terms", fail)
    with pytest.raises(TrainingError, match="even with one row at a time"):
        weights(path, 4)
