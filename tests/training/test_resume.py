"""A stopped training loses nothing, goes on by itself, and stays apart from the rest of the process."""

from __future__ import annotations

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
from plait.errors import ArtifactError, Interrupted, PlaitError, RecipeError
from plait.nn.batch import Batch
from plait.runs import files
from plait.runs.folder import CHECKPOINT
from plait.training.checkpoint import Progress
from plait.training.loop import Callback, Training
from support.damage import flips
from support.tables import FAST
from support.training import StopAtStep, same


@dataclass
class Random(Callback):
    """Draw random numbers in the middle of a training, as a careless callback does."""

    def before_step(self, training: Training, batch: Batch) -> None:
        np.random.seed(training.plan.seed)
        random.seed(0)


def states() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def test_a_fit_leaves_the_callers_random_numbers_alone(tmp_path: Path, table: Path) -> None:
    before = states()
    plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True, callbacks=[Random()])
    with pytest.raises(Interrupted):
        plait.fit(
            table, "label", out=tmp_path / "stop", overrides=FAST, quiet=True, callbacks=[StopAtStep(1)]
        )
    assert states() == before


def test_fits_in_two_threads_do_not_disturb_each_other(tmp_path: Path, table: Path) -> None:
    for seed in (1, 2):
        plait.fit(table, "label", out=tmp_path / f"alone{seed}", overrides=FAST, quiet=True, seed=seed)

    def fit(seed: int) -> None:
        plait.fit(table, "label", out=tmp_path / f"thread{seed}", overrides=FAST, quiet=True, seed=seed)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fit, (1, 2)))
    for seed in (1, 2):
        assert same(tmp_path / f"alone{seed}", tmp_path / f"thread{seed}")


class StopAfterTheLastEpoch(Callback):
    """Stop while the last epoch is scored, as Ctrl-C may."""

    def after_epoch(self, training: Training, progress: Progress) -> None:
        training.stop = progress.epoch == training.plan.training.epochs


def test_a_stop_after_the_last_epoch_comes_before_the_members(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_members(*arguments: Any) -> None:
        raise AssertionError("members were trained")

    out = tmp_path / "run"
    options = [*FAST, "ensemble.members={line: linear}"]
    with monkeypatch.context() as patch:
        patch.setattr("plait.ensemble.fit.fit", fit_members)
        with pytest.raises(Interrupted, match=f"saved after epoch 3; go on with: .*plait fit --resume {out}"):
            plait.fit(
                table, "label", out=out, overrides=options, callbacks=[StopAfterTheLastEpoch()], quiet=True
            )
    plait.fit(table, "label", out=out, overrides=options, quiet=True)
    plait.fit(table, "label", out=tmp_path / "at_once", overrides=options, quiet=True)
    assert same(out, tmp_path / "at_once")


def test_the_same_call_goes_on_with_a_stopped_training(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"in the middle of epoch 2; go on with"):
        plait.fit(table, "label", out=out, overrides=FAST, callbacks=[StopAtStep(3)], quiet=True)
    plait.fit(table, "label", out=out, overrides=FAST)
    assert f"going on with the training in '{out}', which was stopped in epoch 2" in capsys.readouterr().err
    plait.fit(table, "label", out=tmp_path / "at_once", overrides=FAST, quiet=True)
    assert same(out, tmp_path / "at_once")


def test_images_that_were_replaced_are_noticed(
    tmp_path: Path, rows: list[dict[str, Any]], table: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        plait.fit(table, "label", out=out, overrides=FAST, callbacks=[StopAtStep(1)], quiet=True)
    first, second = (table.parent / rows[number]["photo"] for number in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(RecipeError, match="files of column 'photo' have changed"):
        plait.fit(table, "label", out=out, overrides=FAST, quiet=True)


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    progress = Progress()
    assert progress.record({"valid_loss": math.nan}, (math.nan, -1.0))
    assert progress.record({"valid_loss": 0.5}, (0.2, -0.5))
    assert not progress.record({"valid_loss": math.nan}, (math.nan, math.nan))
    assert not progress.record({"valid_loss": math.inf}, (math.inf, 0.0))
    assert progress.best_epoch == 2


STRANGE: list[dict[str, Any]] = [
    {"epoch": -1},
    {"epoch": 100},
    {"epoch": 10**30},
    {"epoch": "1"},
    {"epoch": 3},
    {"step": 10**6},
    {"step": -1},
    {"step": 0},
    {"loss_sum": math.nan},
    {"best_rank": [math.inf]},
    {"best_epoch": 99},
    {"best_epoch": 0},
    {"history": []},
    {"history": [{}]},
    {"history": [{"a": 1.0}]},
    {"history": [5]},
    {"micro_batch": -1},
    {"unknown": 1},
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """A table, and the folder of a training on it that was stopped in its second epoch."""
    rng = np.random.default_rng(0)
    rows = [{"x": float(x), "z": float(x) ** 2, "label": "ab"[int(x > 0)]} for x in rng.normal(size=80)]
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        plait.fit(
            rows, "label", out=out, overrides=["training.epochs=3"], callbacks=[StopAtStep(3)], quiet=True
        )
    return rows, out


def resumed(stopped: tuple[list[dict[str, Any]], Path]) -> None:
    rows, out = stopped
    plait.fit(
        rows, "label", out=out, overrides=["training.epochs=3"], resume=True, quiet=True, evaluate=False
    )


def refused(
    stopped: tuple[list[dict[str, Any]], Path], tensors: dict[str, Any], metadata: dict[str, str]
) -> str:
    """Put a stranger's checkpoint in the place of a training's own. Return what a resume says."""
    path = stopped[1] / CHECKPOINT
    own = path.read_bytes()
    files.write_tensors(path, tensors, metadata)
    try:
        with pytest.raises(ArtifactError) as error:
            resumed(stopped)
    finally:
        path.write_bytes(own)
    return str(error.value)


@pytest.mark.parametrize("entries", STRANGE)
def test_a_strangers_progress_is_checked(entries: dict[str, Any], stopped: Any) -> None:
    tensors, metadata = files.read_tensors(stopped[1] / CHECKPOINT)
    progress = {**json.loads(metadata["progress"]), **entries}
    assert "checkpoint.safetensors': " in refused(
        stopped, tensors, {**metadata, "progress": json.dumps(progress)}
    )


def names(tensors: dict[str, Any], prefix: str) -> list[str]:
    return [name for name in tensors if name.startswith(prefix)]


def without(tensors: dict[str, Any], *gone: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name not in gone}


def test_a_strangers_tensors_are_checked(stopped: Any) -> None:
    tensors, metadata = files.read_tensors(stopped[1] / CHECKPOINT)
    moments, weights = names(tensors, "optimizer/"), names(tensors, "model/")
    floats = [name for name in weights if tensors[name].is_floating_point()]
    strange = {
        "some of its parameters lack tensors": without(tensors, moments[0]),
        "its tensors are missing": without(tensors, *moments),
        "no parameter for '999/exp_avg'": {**tensors, "optimizer/999/exp_avg": torch.zeros(3)},
        "no parameter for 'x/exp_avg'": {**tensors, "optimizer/x/exp_avg": torch.zeros(3)},
        "no parameter for '0'": {**tensors, "optimizer/0": torch.zeros(3)},
        "has the shape": {**tensors, moments[0]: torch.zeros(7)},
        "'generator' is missing": without(tensors, *names(tensors, "state/")),
        "RNG": {**tensors, "state/global": torch.zeros(3)},
        "lacks the tensor": without(tensors, weights[0]),
        "expected float32": {**tensors, floats[0]: torch.zeros(1, 2, 3)},
        "not finite": {**tensors, floats[0]: tensors[floats[0]] * math.nan},
    }
    for reason, changed in strange.items():
        assert reason in refused(stopped, changed, metadata)
    assert "another recipe or table" in refused(stopped, tensors, {**metadata, "plan": "0" * 32})
    assert "'progress' is missing" in refused(stopped, tensors, without(metadata, "progress"))


def test_any_flipped_byte_of_a_checkpoint_is_an_error(stopped: Any) -> None:
    path = stopped[1] / CHECKPOINT
    for _ in flips(path):
        with pytest.raises(ArtifactError, match="is damaged"):
            files.read_tensors(path)
    for _ in flips(path, count=3):
        with pytest.raises(ArtifactError, match="is damaged"):
            resumed(stopped)
    for damage in (b"", path.read_bytes()[:100]):
        own = path.read_bytes()
        path.write_bytes(damage)
        with pytest.raises(ArtifactError, match="is damaged"):
            resumed(stopped)
        path.write_bytes(own)


def test_what_is_in_the_way_of_a_resume_is_named(stopped: Any) -> None:
    """Folders in the place of files are errors of plait's own."""
    _, out = stopped
    for name in ("log.csv", "problems.csv"):
        own = (out / name).read_bytes() if (out / name).exists() else None
        (out / name).unlink(missing_ok=True)
        (out / name).mkdir()
        with pytest.raises(PlaitError, match="a folder of this name is in the way"):
            resumed(stopped)
        (out / name).rmdir()
        if own is not None:
            (out / name).write_bytes(own)


def test_a_shrunk_micro_batch_is_kept(stopped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, out = stopped
    tensors, metadata = files.read_tensors(out / CHECKPOINT)
    own = (out / CHECKPOINT).read_bytes()
    progress = {**json.loads(metadata["progress"]), "micro_batch": 4}
    files.write_tensors(out / CHECKPOINT, tensors, {**metadata, "progress": json.dumps(progress)})
    sizes: list[int] = []

    class Record(Callback):
        def before_step(self, training: Training, batch: Batch) -> None:
            sizes.append(training.step.micro_batch)
            training.stop = True

    with pytest.raises(Interrupted):
        plait.fit(rows, "label", out=out, overrides=["training.epochs=3"], callbacks=[Record()], quiet=True)
    assert sizes == [4]
    (out / CHECKPOINT).write_bytes(own)


def test_states_of_gpus_are_saved_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: its generator is made up."""
    restored: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([3]), torch.tensor([4])])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, number: restored.update({number: int(state)})
    )
    progress, generator = Progress(), torch.Generator()
    progress.mark(1, 0.0, generator)
    assert progress.states.keys() == {"generator", "global", "gpu0", "gpu1"}
    progress.begin_epoch(generator, seed=0)
    assert restored == {0: 3, 1: 4}
