"""A network is trained again on training and validation rows, and keeps what validation rows decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.errors import Interrupted
from plait.table.read import read
from plait.training import refit
from plait.training.loop import Training
from support import tiny_models

EPOCHS = "training.epochs=6"


def rows(count: int = 60, noise: float = 1.0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        x, z = rng.normal(size=2)
        made.append({"x": float(x), "z": float(z), "label": "yes" if x + noise * rng.normal() > 0 else "no"})
    return made


def fit(folder: Path, switch: str, **arguments: Any) -> plait.Model:
    overrides = [EPOCHS, f"training.refit={switch}"]
    return plait.fit(rows(), "label", out=folder, overrides=overrides, quiet=True, **arguments)


def weights(model: plait.Model) -> dict[str, torch.Tensor]:
    return model.network.model.state_dict()


def test_weights_are_new_and_calibration_is_not(tmp_path: Path) -> None:
    before, after = fit(tmp_path / "before", "off"), fit(tmp_path / "after", "on")
    assert "refit" not in before.record
    assert after.record["refit"] == 60
    assert before.record["evaluation"]["validation"] == after.record["evaluation"]["validation"]
    changed = set()
    for name, tensor in weights(before).items():
        if not torch.equal(tensor, weights(after)[name]):
            changed.add(name)
    assert any(name.endswith("head.weight") for name in changed)
    assert not any("temperature" in name or "late_fusion" in name for name in changed)
    assert not (tmp_path / "after" / refit.FOLDER).exists()


def test_it_trains_for_as_many_epochs_as_were_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs, sizes = [], []
    train = refit.train

    def counted(training: Training, resume: bool) -> Any:
        epochs.append(training.options.epochs)
        sizes.append((len(training.train_data), len(training.valid_data)))
        return train(training, resume)

    monkeypatch.setattr(refit, "train", counted)
    model = fit(tmp_path / "run", "on")
    assert epochs == [model.record["best_epoch"]]
    assert sizes == [(60, 0)]


def test_one_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tmp_path / "whole", "on")
    train = refit.train

    def stopped(training: Training, resume: bool) -> Any:
        training.stop = True
        return train(training, resume)

    monkeypatch.setattr(refit, "train", stopped)
    with pytest.raises(Interrupted, match="stopped while training the network on all rows"):
        fit(tmp_path / "run", "on")
    assert (tmp_path / "run" / refit.FOLDER).is_dir()

    resumed_from = []

    def resumed(training: Training, resume: bool) -> Any:
        resumed_from.append(resume)
        return train(training, resume)

    monkeypatch.setattr(refit, "train", resumed)
    model = fit(tmp_path / "run", "on")
    assert resumed_from == [True]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(model)[name]), name


def planned(tmp_path: Path, **columns: Any) -> Plan:
    table = [{**row, "text": f"a thing number {i} of many"} for i, row in enumerate(rows())]
    recipe = recipe_from(None, columns={"text": {"modality": "text", **columns}})
    return Plan.make(read(table), recipe, "label")


def test_by_itself_it_refits_few_rows_with_frozen_encoders(tmp_path: Path) -> None:
    frozen = {"name": "pretrained", "model": str(tiny_models.bert(tmp_path / "bert")), "mode": "frozen"}
    assert planned(tmp_path, encoder=frozen).training.refit
    assert not planned(tmp_path).training.refit
    plain = Plan.make(read(rows()), recipe_from(None), "label")
    assert not plain.training.refit


def test_by_itself_it_stops_where_no_encoder_is_trained(tmp_path: Path) -> None:
    plain = Plan.make(read(rows()), recipe_from(None, overrides=["training.epochs=40"]), "label")
    assert plain.training.patience == 10
    short = Plan.make(read(rows()), recipe_from(None, overrides=["training.epochs=6"]), "label")
    assert short.training.patience == 5
    assert planned(tmp_path).training.patience == 0
    never = Plan.make(read(rows()), recipe_from(None, overrides=["training.patience=0"]), "label")
    assert never.training.patience == 0
