"""Scores of alignments, beside chance and beside the halves that embeddings are made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plait.evaluation import alignment
from plait.nn.batch import Tokens
from plait.tasks.alignment import Alignment, Config

ROWS = 80


@pytest.fixture(scope="module")
def aligned() -> Alignment:
    """Return an alignment of two columns with causes in common, whose network is not trained."""
    torch.manual_seed(0)
    task = Alignment(Config(inputs=("a", "b"), width=8))
    task.build_head({"a": 6, "b": 6})
    batches = {column: [tokens] for column, tokens in cells(0).items()}
    task.begin(batches, {"a": [slice(0, 6)], "b": [slice(0, 6)]}, ids())
    return task.eval()


def cells(seed: int) -> dict[str, Tokens]:
    """Return one token for each row. The last ten rows lack `b`."""
    mixing = torch.randn(2, 6, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(ROWS, 2, generator=generator)
    tokens = {}
    for column, rows in (("a", ROWS), ("b", ROWS - 10)):
        x = causes @ mixing + 0.3 * torch.randn(ROWS, 6, generator=generator)
        tokens[column] = Tokens(x[:, None], torch.arange(ROWS)[:, None] < rows)
    return tokens


def ids() -> torch.Tensor:
    of_cells = torch.arange(ROWS)[:, None].expand(ROWS, 2).clone()
    of_cells[-10:, 1] = -1
    return torch.cat([of_cells, torch.full((ROWS, 1), -1)], 1)


def test_each_direction_has_the_scores_of_both_halves(aligned: Alignment) -> None:
    with torch.no_grad():
        output = aligned(cells(1))
    scored = alignment.evaluate(aligned, output.numpy(), ids().numpy())
    forth, back = scored.directions
    assert (forth.query, forth.gallery, forth.queries, forth.size) == ("a", "b", 70, 70)
    assert (back.query, back.gallery, back.queries, back.size) == ("b", "a", 70, 80)
    for direction in scored.directions:
        assert set(direction.baselines) == {"linear map", "network"}
        linear, network = (direction.baselines[half]["mrr"] for half in ("linear map", "network"))
        assert linear > 2 * network
        assert linear > 3 * direction.chance["mrr"]


def test_a_half_with_all_of_the_weight_is_what_is_served(aligned: Alignment) -> None:
    aligned.mixture.set_shares([1.0])
    with torch.no_grad():
        output = aligned(cells(1))
    aligned.mixture.set_shares([0.5])
    for direction in alignment.evaluate(aligned, output.numpy(), ids().numpy()).directions:
        served = {name: value for name, (value, _, _) in direction.metrics.items()}
        assert served == pytest.approx(direction.baselines["linear map"], abs=1e-3)


def scores_of(task: Alignment, output: torch.Tensor) -> Any:
    """Return the scores as a run's record holds them."""
    return asdict(alignment.evaluate(task, output.numpy(), ids().numpy()))


def test_a_space_that_finds_nothing_is_warned_of(aligned: Alignment) -> None:
    generator = torch.Generator().manual_seed(3)
    noise = F.normalize(torch.randn(ROWS, 2, aligned.width, generator=generator), dim=2)
    noise[-10:, 1] = 0
    warning = alignment.verdict("pairs", scores_of(aligned, noise))
    assert warning is not None
    assert warning.startswith("pairs: no better than chance")
    assert "a -> b (mean reciprocal rank" in warning


def test_a_space_that_finds_cells_is_not_warned_of(aligned: Alignment) -> None:
    aligned.mixture.set_shares([1.0])
    with torch.no_grad():
        output = aligned(cells(1))
    aligned.mixture.set_shares([0.5])
    assert alignment.verdict("pairs", scores_of(aligned, output)) is None


def test_an_untrained_network_without_maps_has_no_halves() -> None:
    torch.manual_seed(0)
    task = Alignment(Config(inputs=("a", "b"), width=8))
    task.build_head({"a": 6, "b": 6})
    with torch.no_grad():
        output = task.eval()(cells(1))
    scored = alignment.evaluate(task, output.numpy(), ids().numpy())
    assert all(direction.baselines == {} for direction in scored.directions)
    assert np.isfinite(scored.directions[0].metrics["mrr"]).all()
