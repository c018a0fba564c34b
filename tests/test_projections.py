"""Where an alignment's projections begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

import plait
import tiny_models
from conftest import make_rows, write_csv
from plait.projections import SLOWER, STRENGTHS, Projection, linear_maps
from plait.recipe_parts import TrainingRecipe
from plait.schedule import optimizer_for


def vectors(rows: int = 60) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(rows, 4))
    known = {c: shared @ rng.normal(size=(4, width)) + 0.3 * rng.normal(size=(rows, width)) + 2 for c, width in (("a", 6), ("b", 9))}
    have = {"a": np.arange(rows) > 4, "b": np.arange(rows) < rows - 6}
    return known, have


def test_each_column_has_a_part_that_the_others_are_mapped_to_by_ridge_regression() -> None:
    known, have = vectors()
    maps = linear_maps(known, have, 8)
    made = {c: known[c] @ maps[c][0].T + maps[c][1] for c in known}
    both = have["a"] & have["b"]
    for number, (to, other) in enumerate((("a", "b"), ("b", "a"))):
        part = slice(4 * number, 4 * number + 4)
        own = PCA(4, svd_solver="randomized", random_state=0).fit(known[to][have[to]])
        expected = RidgeCV(STRENGTHS).fit(known[other][both], own.transform(known[to][both])).predict(known[other])
        for found, wanted, rows in ((made[other][:, part], expected, both), (made[to][:, part], own.transform(known[to]), have[to])):
            scale = np.sqrt((wanted[rows] ** 2).sum(1).mean())
            np.testing.assert_allclose(found, wanted / scale, atol=1e-5)


def test_columns_that_hardly_meet_have_no_map() -> None:
    known, have = vectors()
    have["b"] = np.arange(60) < 8
    maps = linear_maps(known, have, 8)
    assert not maps["b"][0][:4].any()
    assert maps["b"][0][4:].any()


@pytest.mark.parametrize("hidden", [0, 5])
def test_training_begins_at_the_map_and_is_slower(hidden: int) -> None:
    torch.manual_seed(0)
    made = Projection(6, hidden, 4, 0.0)
    weight, bias = np.arange(24, dtype=np.float32).reshape(4, 6), np.ones(4, dtype=np.float32)
    rates = [group["scale"] for group in optimizer_for(made, TrainingRecipe()).param_groups]
    made.begin(weight, bias)
    x = torch.randn(3, 6)
    torch.testing.assert_close(made(x), x @ torch.from_numpy(weight).T + 1)
    assert set(rates) == {1.0}
    assert {group["scale"] for group in optimizer_for(made, TrainingRecipe()).param_groups} == {SLOWER}
    made(x).sum().backward()
    assert all(p.grad is not None for p in made.parameters())


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_pretrained_towers_share_a_space(mode: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(make_rows(tmp_path, 48))])
    towers = {"image": tiny_models.vit(tmp_path / "vit"), "text": tiny_models.bert(tmp_path / "bert")}
    encoders = [f"encoders.{m}={{name: pretrained, model: {folder}, mode: {mode}}}" for m, folder in towers.items()]
    model = plait.fit(path, align=["photo", "text"], out=tmp_path / "run", overrides=[*encoders, "training.epochs=2"], quiet=True)
    task = model._network.model.task("alignment")
    assert {head.share for head in task.heads.values()} == {SLOWER if mode == "frozen" else 1.0}
    found = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_array_equal(found.embed(path, column="photo"), model.embed(path, column="photo"))
    assert np.isfinite(model.record["history"][-1]["valid_alignment_mrr"])
