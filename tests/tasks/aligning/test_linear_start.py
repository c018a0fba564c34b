"""Projections of an alignment start at linear maps."""

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
from support.answers import assert_same_embeddings
from support.tables import make_rows, write_csv


def vectors(rows: int = 60) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return vectors of two columns with common causes, and which rows have each column."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(rows, 4))
    column_vectors = {}
    for column, width in (("a", 6), ("b", 9)):
        mixed = causes @ rng.normal(size=(4, width))
        column_vectors[column] = mixed + 0.3 * rng.normal(size=(rows, width)) + 2
    present = {"a": np.arange(rows) > 4, "b": np.arange(rows) < rows - 6}
    return column_vectors, present


def assert_scaled(mapped: np.ndarray, expected: np.ndarray, rows: np.ndarray) -> None:
    """Check that the map gives the expected vectors, divided by their root mean square length in `rows`."""
    length = np.sqrt((expected[rows] ** 2).sum(1).mean())
    np.testing.assert_allclose(mapped, expected / length, atol=1e-5)


def test_each_column_has_dimensions_that_others_are_mapped_to() -> None:
    column_vectors, present = vectors()
    maps = linear_maps(column_vectors, present, 8)
    mapped = {}
    for column, x in column_vectors.items():
        weight, bias = maps[column]
        mapped[column] = x @ weight.T + bias
    both = present["a"] & present["b"]
    for number, (target, source) in enumerate((("a", "b"), ("b", "a"))):
        dimensions = slice(4 * number, 4 * number + 4)
        pca = PCA(4, svd_solver="randomized", random_state=0)
        pca.fit(column_vectors[target][present[target]])
        components = pca.transform(column_vectors[target])
        ridge = RidgeCV(STRENGTHS).fit(column_vectors[source][both], components[both])
        predicted = ridge.predict(column_vectors[source])
        assert_scaled(mapped[source][:, dimensions], predicted, both)
        assert_scaled(mapped[target][:, dimensions], components, present[target])


def test_columns_that_share_few_rows_have_no_map() -> None:
    column_vectors, present = vectors()
    present["b"] = np.arange(60) < 8
    maps = linear_maps(column_vectors, present, 8)
    assert not maps["b"][0][:4].any()
    assert maps["b"][0][4:].any()


def rates_of(projection: Projection) -> set[float]:
    """Return the shares of the learning rate that parameters are trained with."""
    optimizer = optimizer_for(projection, TrainingRecipe())
    return {group["scale"] for group in optimizer.param_groups}


@pytest.mark.parametrize("hidden", [0, 5])
def test_training_starts_at_the_map_and_is_slower(hidden: int) -> None:
    torch.manual_seed(0)
    projection = Projection(6, hidden, 4, 0.0)
    weight, bias = np.arange(24, dtype=np.float32).reshape(4, 6), np.ones(4, dtype=np.float32)
    assert rates_of(projection) == {1.0}
    projection.begin(weight, bias)
    x = torch.randn(3, 6)
    torch.testing.assert_close(projection(x), x @ torch.from_numpy(weight).T + 1)
    assert rates_of(projection) == {SLOWER}
    projection(x).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in projection.parameters())


def test_a_map_of_some_entries_leaves_the_other_entries() -> None:
    projection = Projection(6, 0, 4, 0.0)
    before = projection.linear.weight.detach().clone()
    projection.begin(np.ones((4, 2), dtype=np.float32), np.full(4, 3, dtype=np.float32), start=4)
    assert projection.rate == 1.0
    assert torch.equal(projection.linear.weight[:, :4], before[:, :4])
    x = torch.randn(3, 6)
    torch.testing.assert_close(projection.first(x), x[:, 4:].sum(1, keepdim=True).expand(-1, 4) + 3)


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_pretrained_towers_share_a_space(mode: str, tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 48)
    for number, row in enumerate(rows):
        row["text"] = f"{row['text']} {number}"
    path = write_csv(tmp_path / "t.csv", rows)
    towers = {"image": tiny_models.vit(tmp_path / "vit"), "text": tiny_models.bert(tmp_path / "bert")}
    encoders = []
    for modality, folder in towers.items():
        encoders.append(f"encoders.{modality}={{name: pretrained, model: {folder}, mode: {mode}}}")
    columns, overrides = ["photo", "text"], [*encoders, "training.epochs=2"]
    model = plait.fit(path, align=columns, out=tmp_path / "run", overrides=overrides, quiet=True)
    task = model.network.model.task("alignment")
    assert {head.rate for head in task.heads.values()} == {SLOWER if mode == "frozen" else 1.0}
    loaded = plait.load(tmp_path / "run", quiet=True)
    assert_same_embeddings(loaded.embed(path, column="photo"), model.embed(path, column="photo"))
    assert np.isfinite(model.record["history"][-1]["valid_alignment_mrr"])


def alignment_of_three(tokens: dict[str, Tokens]) -> Alignment:
    torch.manual_seed(0)
    task = Alignment(Config(inputs=("a", "b", "c"), width=4, hidden=0, dropout=0))
    task.build_head({column: column_tokens.x_BLD.shape[2] for column, column_tokens in tokens.items()})
    return task


def test_a_cosine_is_the_weighted_mean_of_fixed_and_learned() -> None:
    column_vectors, present = vectors()
    tokens = {}
    for column, x in column_vectors.items():
        mask = torch.from_numpy(present[column])[:, None]
        tokens[column] = Tokens(torch.from_numpy(x).float()[:, None], mask)
    tokens["c"] = Tokens(torch.randn(60, 1, 5), torch.ones(60, 1, dtype=torch.bool))
    task = alignment_of_three(tokens)
    learned = task(tokens)
    batches: dict[str, list[Tokens]] = {"a": [], "b": []}
    for column, column_batches in batches.items():
        for rows in (slice(0, 25), slice(25, 60)):
            column_batches.append(Tokens(tokens[column].x_BLD[rows], tokens[column].mask_BL[rows]))
    task.begin(batches, {"a": 0, "b": 0})
    fixed = task(tokens)
    for head, before in zip(task.heads.values(), learned.unbind(1), strict=True):
        assert head.linear.weight.requires_grad
        assert not head.first.weight.requires_grad
        assert before.shape == (60, 4)

    with torch.no_grad():
        for head in (task.heads["of_a"], task.heads["of_b"]):
            head.linear.weight.copy_(torch.randn_like(head.linear.weight))
    trained = task(tokens)
    task.eval().set_share(0.25)
    mixed = task(tokens)
    assert mixed.shape == (60, 3, task.width)
    cosines = [(x[:, 0] * x[:, 1]).sum(-1) for x in (mixed, fixed, trained)]
    torch.testing.assert_close(cosines[0], 0.25 * cosines[1] + 0.75 * cosines[2])
    torch.testing.assert_close(mixed[10:50].norm(dim=-1), torch.ones(40, 3))
    assert not mixed[0, 0].any(), "a missing cell has no vector"


@pytest.mark.parametrize(("good_half", "share"), [("fixed", 0.9), ("learned", 0.0)])
def test_validation_rows_choose_the_share(good_half: str, share: float) -> None:
    """In the good half, both columns have the same vectors; in the other half they are random."""
    torch.manual_seed(0)
    task = Alignment(Config(inputs=("a", "b"), width=8))
    task.set_share(0.5)
    good = F.normalize(torch.randn(40, 8), dim=-1)
    vectors_of_columns = []
    for _ in task.columns:
        bad = F.normalize(torch.randn(40, 8), dim=-1)
        halves = [good, bad] if good_half == "fixed" else [bad, good]
        vectors_of_columns.append(torch.cat(halves, -1) * 0.5**0.5)
    ids = torch.arange(40)[:, None].expand(40, 3)
    task.calibrate(Outputs(torch.stack(vectors_of_columns, 1)), ids)
    assert float(task.share) == pytest.approx(share)


@pytest.mark.parametrize("space", [2, 3])
def test_a_space_of_one_dimension_for_each_column_has_maps(space: int) -> None:
    column_vectors, present = vectors()
    maps = linear_maps(column_vectors, present, space)
    assert {column: weight.shape for column, (weight, _) in maps.items()} == {
        "a": (space, 6),
        "b": (space, 9),
    }
    assert all(np.abs(weight[:2]).sum(1).all() for weight, _ in maps.values())
