"""Mixed vectors of linear maps and a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import plait
from plait.tasks.aligning.linear_map import ColumnVectors, mean_reciprocal_rank, reciprocal_ranks
from plait.tasks.aligning.mixture import USUAL_SHARE, Halves, Mixture
from support import tiny_models
from support.answers import assert_same_embeddings
from support.tables import make_rows, write_csv

ROWS = 60


def summaries() -> list[torch.Tensor]:
    """Return the vectors of three columns, of which the first two have causes in common."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(ROWS, 4, generator=generator)
    vectors = []
    for width in (6, 9):
        mixing = torch.randn(4, width, generator=generator)
        vectors.append(causes @ mixing + 0.3 * torch.randn(ROWS, width, generator=generator))
    return [*vectors, torch.randn(ROWS, 5, generator=generator)]


def learned(seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(ROWS, 7, generator=generator), dim=1) for _ in range(3)]


def mixture(pairs: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2)), fitted: int = 3) -> Mixture:
    """Return a mixture with maps between the first `fitted` columns."""
    mixed = Mixture(pairs, [6, 9, 5], 7)
    columns = {}
    for number, x in enumerate(summaries()[:fitted]):
        everywhere = torch.ones(ROWS, dtype=torch.bool)
        columns[number] = ColumnVectors(x, everywhere, [slice(0, x.shape[1])])
    ids = np.stack([np.arange(ROWS)] * 3, 1)
    mixed.fit(columns, ids, np.arange(ROWS))
    return mixed


def cosines(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first * second).sum(-1)


def test_a_cosine_is_the_weighted_sum_of_both() -> None:
    mixed = mixture()
    mixed.set_shares([0.2, 0.5, 0.9])
    vectors = mixed.join(summaries(), learned())
    for place, (a, b) in enumerate(mixed.pairs):
        linear = cosines(mixed.maps[place](summaries()[a], 0), mixed.maps[place](summaries()[b], 1))
        expected = mixed.pair_weights[place] * linear
        expected = expected + mixed.learned_weight * cosines(learned()[a], learned()[b])
        torch.testing.assert_close(cosines(vectors[a], vectors[b]), expected)
    share = mixed.pair_weights / (mixed.pair_weights + mixed.learned_weight)
    torch.testing.assert_close(share, torch.tensor([0.2, 0.5, 0.9]))


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0.5], [1.0, 0.0, 0.3], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_mixed_vectors_have_length_1(shares: list[float]) -> None:
    mixed = mixture()
    mixed.set_shares(shares)
    for vector in mixed.join(summaries(), learned()):
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(ROWS))


def test_halves_are_what_vectors_were_joined_of() -> None:
    mixed = mixture()
    mixed.set_shares([1.0, 0.0, 0.3])
    output = torch.stack(mixed.join(summaries(), learned()), 1)
    halves = mixed.halves(output)
    for place, (a, b) in enumerate(mixed.pairs):
        first, second = halves.linear[place]
        torch.testing.assert_close(first, mixed.maps[place](summaries()[a], 0), atol=1e-3, rtol=0)
        torch.testing.assert_close(second, mixed.maps[place](summaries()[b], 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(halves.learned_BKD, torch.stack(learned(), 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed.mixed(halves), output, atol=1e-3, rtol=0)


def test_a_pair_without_a_map_has_the_network_only() -> None:
    mixed = mixture(fitted=2)
    assert (mixed.place((0, 1)), mixed.place((0, 2))) == (0, None)
    vectors = mixed.join(summaries(), learned())
    for a, b in ((0, 2), (1, 2)):
        expected = mixed.learned_weight * cosines(learned()[a], learned()[b])
        torch.testing.assert_close(cosines(vectors[a], vectors[b]), expected)


def test_without_any_map_vectors_are_those_of_the_network() -> None:
    mixed = mixture(fitted=1)
    assert not mixed.is_fitted
    assert mixed.width == 7


@pytest.mark.parametrize(("linear_noise", "network_noise"), [(0.3, 3.0), (3.0, 0.3), (0.8, 0.8)])
def test_the_mixture_finds_what_the_better_half_finds(linear_noise: float, network_noise: float) -> None:
    mixed = mixture(((0, 1),), fitted=2)
    generator = torch.Generator().manual_seed(0)

    def vectors(width: int, noise: float) -> torch.Tensor:
        """Return vectors of three columns that are the same but for noise."""
        same = torch.randn(200, 1, width, generator=generator).expand(-1, 3, -1)
        return F.normalize(same + noise * torch.randn(200, 3, width, generator=generator), dim=2)

    ids = np.stack([np.arange(200)] * 2, 1)

    def score(first: torch.Tensor, second: torch.Tensor) -> float:
        return mean_reciprocal_rank(first, second, ids)

    linear, network = vectors(mixed.map_width, linear_noise), vectors(7, network_noise)
    output = mixed.mixed(Halves([(linear[:, 0], linear[:, 1])], network))
    mixed.calibrate(output, lambda first, second, a, b: reciprocal_ranks(first, second, ids))
    served = mixed.mixed(mixed.halves(output))
    halves = [score(linear[:, 0], linear[:, 1]), score(network[:, 0], network[:, 1])]
    assert score(served[:, 0], served[:, 1]) >= max(halves) - 1e-3
    assert max(halves) - min(halves) > 0.1 or linear_noise == network_noise


def test_without_validation_rows_the_share_is_the_usual_one() -> None:
    mixed = mixture(((0, 1),), fitted=2)
    mixed.calibrate(torch.zeros(0, 3, mixed.width), lambda first, second, a, b: np.zeros(0))
    assert float(mixed.shares[0]) == pytest.approx(USUAL_SHARE)


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
    assert model.network.model.task("alignment").mixture.is_fitted == (mode == "frozen")
    loaded = plait.load(tmp_path / "run", quiet=True)
    assert_same_embeddings(loaded.embed(path, column="photo"), model.embed(path, column="photo"))
    assert np.isfinite(model.record["history"][-1]["valid_alignment_mrr"])
