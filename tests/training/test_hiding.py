"""Modality dropout, and what it says of empty cells."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from plait.nn.batch import Batch
from plait.training.hiding import hide_cells

ROWS = 4000


def batch_with(shares: dict[str, float]) -> Batch:
    """Rows in which each column has a cell with this probability."""
    generator = torch.Generator().manual_seed(0)
    present = {column: torch.rand(ROWS, generator=generator) < share for column, share in shares.items()}
    in_table = {column: torch.ones(ROWS, dtype=torch.bool) for column in shares}
    return Batch({}, present, in_table, torch.arange(ROWS))


def test_hidden_cells_look_as_if_the_table_lacked_them() -> None:
    batch = batch_with({"a": 1.0, "b": 1.0, "c": 1.0})
    hidden = hide_cells(batch, 0.5, torch.Generator().manual_seed(1))
    assert hidden.complete is not None
    assert hidden.complete.present is batch.present
    for column in batch.present:
        assert torch.equal(hidden.in_table[column], hidden.present[column])
        assert 0.05 < 1 - float(hidden.present[column].float().mean()) < 0.95


def test_every_number_of_cells_is_drawn_equally_often() -> None:
    batch = batch_with({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})
    hidden = hide_cells(batch, 1.0, torch.Generator().manual_seed(1))
    sizes = torch.stack(list(hidden.present.values())).sum(0)
    shares = torch.bincount(sizes, minlength=5) / ROWS
    assert shares[[0, 4]].tolist() == [0, 0]
    assert torch.allclose(shares[1:4], torch.full((3,), 1 / 3), atol=0.05)


def test_empty_cells_are_hidden_as_often_as_present_ones() -> None:
    """Otherwise a missing token would say that the cell was not empty."""
    batch = batch_with({"a": 0.6, "b": 1.0, "c": 0.8})
    hidden = hide_cells(batch, 0.6, torch.Generator().manual_seed(1))
    for column in ("a", "c"):
        was_present = batch.present[column]
        hidden_share = 1 - float(hidden.present[column][was_present].float().mean())
        hidden_empty_share = 1 - float(hidden.in_table[column][~was_present].float().mean())
        assert hidden_share > 0.2
        assert abs(hidden_share - hidden_empty_share) < 0.05


def test_nothing_is_hidden_without_dropout_or_with_one_column() -> None:
    generator = torch.Generator().manual_seed(1)
    batch, single = batch_with({"a": 0.6, "b": 1.0}), batch_with({"a": 0.6})
    assert hide_cells(batch, 0.0, generator) is batch
    assert hide_cells(single, 0.9, generator) is single


def test_every_subset_is_drawn_as_often() -> None:
    rows = 6000
    present = {c: torch.ones(rows, dtype=torch.bool) for c in "abc"}
    present["a"][:100] = False
    present["b"][:50] = present["c"][:50] = False
    in_table = {c: torch.ones(rows, dtype=torch.bool) for c in "abc"}
    batch = Batch({}, present, in_table, torch.arange(rows))
    hidden = hide_cells(batch, 0.5, torch.Generator().manual_seed(0))
    before_CB = torch.stack(list(present.values()))
    after_CB = torch.stack(list(hidden.present.values()))
    assert not (after_CB & ~before_CB).any()
    assert after_CB[:, 50:].any(0).all()

    # The first hundred rows lack cells. Of the others, half keep all cells.
    subsets = Counter(tuple(row.tolist()) for row in after_CB[:, 100:].T)
    shares = {subset: count / subsets.total() for subset, count in subsets.items()}
    assert shares.pop((True, True, True)) == pytest.approx(0.5, abs=0.03)
    assert len(shares) == 6
    for share in shares.values():
        assert share == pytest.approx(0.5 / 6, abs=0.015)
