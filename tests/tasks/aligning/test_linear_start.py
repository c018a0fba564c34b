"""Where an alignment's projections begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from torch.nn import functional as F

import plait
from plait.nn.batch import Tokens
from plait.recipe.sections import TrainingRecipe
from plait.tasks.aligning.linear_start import SLOWER, STRENGTHS, Projection, linear_maps
from plait.tasks.alignment import Alignment, Config
from plait.tasks.base import Outputs
from plait.training.schedule import optimizer_for
from support import tiny_models
from support.tables import make_rows, write_csv


def vectors(rows: int = 60) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(rows, 4))
    known = {
        c: shared @ rng.normal(size=(4, width)) + 0.3 * rng.normal(size=(rows, width)) + 2
        for c, width in (("a", 6), ("b", 9))
    }
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
        expected = (
            RidgeCV(STRENGTHS).fit(known[other][both], own.transform(known[to][both])).predict(known[other])
        )
        for found, wanted, rows in (
            (made[other][:, part], expected, both),
            (made[to][:, part], own.transform(known[to]), have[to]),
        ):
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
    assert all((p.grad is not None) == p.requires_grad for p in made.parameters())


def test_a_map_of_a_part_leaves_the_rest_as_it_is_and_is_no_slower() -> None:
    made = Projection(6, 0, 4, 0.0)
    before = made.linear.weight.detach().clone()
    made.begin(np.ones((4, 2), dtype=np.float32), np.full(4, 3, dtype=np.float32), start=4)
    assert made.rate == 1.0
    assert torch.equal(made.linear.weight[:, :4], before[:, :4])
    x = torch.randn(3, 6)
    torch.testing.assert_close(made.first(x), x[:, 4:].sum(1, keepdim=True).expand(-1, 4) + 3)


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_pretrained_towers_share_a_space(mode: str, tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv",
        [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(make_rows(tmp_path, 48))],
    )
    towers = {"image": tiny_models.vit(tmp_path / "vit"), "text": tiny_models.bert(tmp_path / "bert")}
    encoders = [
        f"encoders.{m}={{name: pretrained, model: {folder}, mode: {mode}}}" for m, folder in towers.items()
    ]
    model = plait.fit(
        path,
        align=["photo", "text"],
        out=tmp_path / "run",
        overrides=[*encoders, "training.epochs=2"],
        quiet=True,
    )
    task = model.network.model.task("alignment")
    assert {head.rate for head in task.heads.values()} == {SLOWER if mode == "frozen" else 1.0}
    found = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_array_equal(found.embed(path, column="photo"), model.embed(path, column="photo"))
    assert np.isfinite(model.record["history"][-1]["valid_alignment_mrr"])


def test_a_trained_cosine_is_the_weighted_mean_of_the_maps_and_of_what_was_learned() -> None:
    torch.manual_seed(0)
    made = Alignment(Config(inputs=("a", "b", "c"), width=4, hidden=0, dropout=0))
    made.build_head({"a": 6, "b": 9, "c": 5})
    known, have = vectors()
    tokens = {
        c: Tokens(torch.from_numpy(x).float()[:, None], torch.from_numpy(have[c])[:, None])
        for c, x in known.items()
    }
    tokens["c"] = Tokens(torch.randn(60, 1, 5), torch.ones(60, 1, dtype=torch.bool))
    learned = made(tokens)
    halves = (slice(0, 25), slice(25, 60))
    made.begin(
        {c: [Tokens(tokens[c].x_BLD[h], tokens[c].mask_BL[h]) for h in halves] for c in "ab"},
        {"a": 0, "b": 0},
    )
    fixed = made(tokens)
    for head, before in zip(made.heads.values(), learned.unbind(1), strict=True):
        assert head.linear.weight.requires_grad
        assert not head.first.weight.requires_grad
        assert before.shape == (60, 4)
    with torch.no_grad():
        for head in (made.heads["of_a"], made.heads["of_b"]):
            head.linear.weight.copy_(torch.randn_like(head.linear.weight))
    trained = made(tokens)
    made.eval().share.fill_(0.25)
    found = made(tokens)
    assert found.shape == (60, 3, made.width)
    cosines = [(x[:, 0] * x[:, 1]).sum(-1) for x in (found, fixed, trained)]
    torch.testing.assert_close(cosines[0], 0.25 * cosines[1] + 0.75 * cosines[2])
    torch.testing.assert_close(found[10:50].norm(dim=-1), torch.ones(40, 3))
    assert not found[0, 0].any(), "a missing cell has no vector"


def test_validation_rows_choose_the_share() -> None:
    made = Alignment(Config(inputs=("a", "b"), width=8))
    made.share.fill_(0.5)
    good, bad = (F.normalize(torch.randn(40, 8), dim=-1) for _ in range(2))
    ids = torch.arange(40)[:, None].expand(40, 3)
    for fixed, learned, share in ((good, bad, 0.9), (bad, good, 0.0)):
        other = F.normalize(torch.randn(40, 8), dim=-1)
        pair = [
            torch.cat([f, g], -1) * 0.5**0.5
            for f, g in ((fixed, learned), (good, other) if fixed is good else (other, good))
        ]
        made.share.fill_(0.5)
        made.calibrate(Outputs(torch.stack(pair, 1)), ids)
        assert float(made.share) == pytest.approx(share)
