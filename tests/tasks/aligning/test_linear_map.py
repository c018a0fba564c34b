"""Linear maps between two columns, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from plait.tasks.aligning.linear_map import (
    ColumnVectors,
    Coordinates,
    PairMap,
    Principal,
    dimensions_of,
    fit_pair,
    mean_reciprocal_rank,
)


def columns(rows: int, noise: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors of two columns that have four causes in common, and ten numbers of noise each."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9)
    causes = rng.normal(size=(rows, 4))
    vectors = []
    for width in (6, 9):
        mixed = causes @ mixing.normal(size=(4, width)) + noise * rng.normal(size=(rows, width)) + 2
        vectors.append(np.concatenate([mixed, rng.normal(size=(rows, 10))], 1))
    x, z = (torch.from_numpy(of_column).float() for of_column in vectors)
    return x, z


def fitted(x: torch.Tensor, z: torch.Tensor, both: torch.Tensor | None = None) -> PairMap:
    everywhere = torch.ones(len(x), dtype=torch.bool)
    principal = []
    for vectors in (x, z):
        principal.append(Principal.of(ColumnVectors(vectors, everywhere, [slice(0, vectors.shape[1])])))
    pair = PairMap((x.shape[1], z.shape[1]), 16)
    ids = np.stack([np.arange(len(x))] * 2, 1)
    fit_pair(pair, (principal[0], principal[1]), everywhere if both is None else both, ids, np.arange(len(x)))
    return pair


def rank(pair: PairMap, x: torch.Tensor, z: torch.Tensor) -> float:
    return mean_reciprocal_rank(pair(x, 0), pair(z, 1), np.stack([np.arange(len(x))] * 2, 1))


def test_cells_of_new_rows_find_each_other() -> None:
    pair = fitted(*columns(200))
    x, z = columns(100, seed=1)
    assert rank(pair, x, z) > 0.8
    assert rank(pair, x, z.roll(1, 0)) < 0.2


def test_vectors_have_length_1_whatever_the_cell() -> None:
    pair = fitted(*columns(200))
    x, z = columns(50, seed=1)
    for side, vectors in ((0, x), (1, z)):
        for factor in (0.0, 1.0, 100.0):
            length = pair(vectors * factor, side).norm(dim=1)
            torch.testing.assert_close(length, torch.ones(50))


def test_a_number_is_found_by_how_near_it_is() -> None:
    """Cells whose one number is large are no better answers to a large number than equal ones."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.rand(300, 1, generator=generator)
    noise = 0.01 * torch.randn(300, 1, generator=generator)
    pair = fitted(lengths, lengths + noise)
    queries = torch.linspace(0.1, 0.9, 9)[:, None]
    assert rank(pair, queries, queries) == 1


def test_on_a_large_sphere_cosines_rank_as_likelihoods_do() -> None:
    correlation = torch.tensor([0.9, 0.5])
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(40, 2, generator=generator) for _ in range(2))
    scale = (correlation / (1 - correlation.square())).sqrt()
    maps = [Coordinates(torch.diag(scale), torch.zeros(2), 30 * x * scale) for x in (u, v)]
    pair = PairMap((2, 2), 2)
    pair.set((maps[0], maps[1]), correlation)
    cosine = pair(u, 0) @ pair(v, 1).T

    log_ratio = np.zeros((40, 40))
    for dimension, r in enumerate(correlation.tolist()):
        first = np.repeat(u[:, dimension].numpy(), 40)
        second = np.tile(v[:, dimension].numpy(), 40)
        joint = multivariate_normal([0, 0], [[1, r], [r, 1]]).logpdf(np.stack([first, second], 1))
        apart = multivariate_normal(0, 1).logpdf(first) + multivariate_normal(0, 1).logpdf(second)
        log_ratio += (joint - apart).reshape(40, 40)
    for of_query, expected in zip(cosine.numpy(), log_ratio, strict=True):
        assert np.corrcoef(of_query, expected)[0, 1] > 0.999


def test_few_rows_have_no_map() -> None:
    x, z = columns(60)
    both = torch.arange(60) < 15
    pair = fitted(x, z, both)
    assert not pair.is_fitted
    assert not pair(x, 0).any()
    assert fitted(x, z, torch.arange(60) < 16).is_fitted


def test_numbers_outside_the_blocks_are_not_read() -> None:
    x, _ = columns(100)
    everywhere = torch.ones(100, dtype=torch.bool)
    principal = Principal.of(ColumnVectors(x, everywhere, [slice(0, 6)]))
    assert not principal.direction_RD[:, 6:].any()
    assert principal.direction_RD[:, :6].any()


def test_blocks_weigh_the_same_whatever_their_width_and_unit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat(
        [1000 * torch.randn(400, 1, generator=generator), torch.randn(400, 7, generator=generator)], 1
    )
    everywhere = torch.ones(400, dtype=torch.bool)
    principal = Principal.of(ColumnVectors(x, everywhere, [slice(0, 1), slice(1, 8)]))
    variance = principal.x_NR.var(0, correction=0).sort(descending=True).values
    assert variance[0] == pytest.approx(1, abs=0.1)
    assert float(variance[1:].sum()) == pytest.approx(1, abs=0.1)


def test_a_constant_column_has_no_map() -> None:
    _, z = columns(60)
    constant = torch.ones(60, 3)
    pair = fitted(constant, z)
    assert not pair.is_fitted
    assert torch.isfinite(pair(constant, 0)).all()


@pytest.mark.parametrize(("pairs", "dimensions"), [(1, 192), (3, 192), (6, 128), (28, 27), (91, 16)])
def test_many_pairs_have_fewer_dimensions_each(pairs: int, dimensions: int) -> None:
    assert dimensions_of(pairs) == dimensions
