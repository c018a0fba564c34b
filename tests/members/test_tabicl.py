"""TabICL as a member: a row's answer is its own, and checkpoints are found, compared and missed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.errors import ArtifactError, RecipeError
from plait.members.base import Lesson, Member
from plait.runs import files
from support.members import SEEN, fit_member, lesson, make, member_config, tabicl_checkpoint

COLUMNS = ("a", "v", "shop", "text")
ROWS = 60


@pytest.fixture
def of(tmp_path: Path) -> Lesson:
    return lesson(*make({"kind": "classification", "price": "regression"}), tmp_path)


def prices() -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return pa.table({"x": x, "price": np.exp(2 * x + 0.1 * rng.normal(size=ROWS))})


def test_a_row_is_answered_alike_alone_and_among_others(of: Lesson) -> None:
    """Rows of the table lack cells of `a`: TabICL would leave the column out if it is asked for one."""
    member = fit_member("tabicl", of)
    (together,) = member.outputs(of.held_out, [COLUMNS])
    is_missing = ~next(block for block in of.held_out.blocks() if block.column == "a").present
    row = int(np.flatnonzero(is_missing)[0])
    (alone,) = member.outputs(of.held_out.take(np.array([row])), [COLUMNS])
    for target, output in together.items():
        torch.testing.assert_close(alone[target], output[row : row + 1], rtol=1e-4, atol=1e-4)


def test_a_class_that_the_context_lacks_is_answered_least(of: Lesson) -> None:
    labels, _ = of.train.target("kind")
    of.train.prepared.batch.labelled["kind"][np.flatnonzero(labels.numpy() == 1)] = False
    (outputs,) = fit_member("tabicl", of).outputs(of.held_out, [COLUMNS])
    assert torch.equal(outputs["kind"][:, 1], outputs["kind"].min(1).values)


def test_it_reads_at_most_so_many_rows(of: Lesson) -> None:
    config = member_config("tabicl").model_copy(update={"rows": 20})
    (fit,) = type(fit_member("tabicl", of)).fit(config, [of], lambda: None)
    assert [len(context.rows) for context in fit.served.contexts["price"]] == [20]
    assert SEEN > 20


def test_an_ensemble_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    checkpoint = tabicl_checkpoint(0)
    overrides = [f"ensemble.members={{tabicl: {{name: tabicl, estimators: 2, regressor: {checkpoint}}}}}"]
    overrides += ["training.epochs=1", "ensemble.folds=2", "tasks.price.transform=log"]
    out = tmp_path / "run"
    model = plait.fit(prices(), "price", overrides=overrides, out=out, quality="good", quiet=True)
    answers = model.predict(prices())["price"]
    assert plait.load(out).predict(prices())["price"].to_pylist() == pytest.approx(answers.to_pylist())
    assert min(answers.to_pylist()) > 0


def test_a_missing_checkpoint_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    overrides = ["ensemble.members={tabicl: tabicl}"]
    with pytest.raises(RecipeError, match=r"member 'tabicl': the checkpoint .* hf download jingang/TabICL"):
        plait.fit(prices(), "price", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_checkpoint_of_the_other_kind_is_missed_at_once(tmp_path: Path) -> None:
    """A class needs the checkpoint for classes, though the one for numbers is there."""
    overrides = [f"ensemble.members={{tabicl: {{name: tabicl, regressor: {tabicl_checkpoint(0)}}}}}"]
    rows = prices().append_column("kind", pa.array(["a", "b"] * (ROWS // 2)))
    with pytest.raises(RecipeError, match=r"member 'tabicl': the checkpoint tabicl-classifier-\S+ is not"):
        plait.fit(rows, "kind", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("broken", ["kind/0/y", "kind/0/baseline"])
def test_a_context_that_cannot_be_is_refused(of: Lesson, tmp_path: Path, broken: str) -> None:
    member: Member = fit_member("tabicl", of)
    member.save(tmp_path)
    path = tmp_path / "tabicl.safetensors"
    tensors, metadata = files.read_tensors(path)
    name = broken.replace("kind", str(list(of.tasks).index("kind")))
    tensors[name] = tensors[name] + 7 if name.endswith("y") else tensors[name].reshape(1, -1)
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(ArtifactError, match=r"tabicl\.safetensors"):
        type(member).load(member_config("tabicl"), tmp_path, None)


def changed(path: str, folder: Path) -> str:
    """Copy a checkpoint under another name, with other bytes at its end."""
    copied = folder / "other.ckpt"
    shutil.copy(path, copied)
    with copied.open("ab") as file:
        file.write(b"\0")
    return str(copied)


def test_another_checkpoint_does_not_answer(of: Lesson, tmp_path: Path) -> None:
    member: Member = fit_member("tabicl", of)
    member.save(tmp_path)
    other = {"regressor": changed(tabicl_checkpoint(0), tmp_path)}
    restored = type(member).load(member_config("tabicl").model_copy(update=other), tmp_path, None)
    with pytest.raises(ArtifactError, match=r"other\.ckpt' is not the checkpoint"):
        restored.outputs(of.held_out, [COLUMNS])


def test_a_file_without_weights_is_refused(of: Lesson, tmp_path: Path) -> None:
    path = tmp_path / "text.ckpt"
    path.write_text("no weights")
    config = member_config("tabicl").model_copy(update={"regressor": str(path)})
    (fit,) = type(fit_member("tabicl", of)).fit(config, [of], lambda: None)
    with pytest.raises(ArtifactError, match=r"text\.ckpt' holds no checkpoint of TabICL"):
        fit.served.outputs(of.held_out, [COLUMNS])
