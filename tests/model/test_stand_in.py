"""The token that stands in for an absent cell."""

from __future__ import annotations

import torch
from torch import Tensor

from plait.model.stand_in import StandIn

# Rows: a cell that is present, an empty cell, a hidden cell (or a table without the column).
PRESENT = torch.tensor([[True, True], [False, False], [False, False]])
IN_TABLE = torch.tensor([[True, True], [True, True], [False, False]])


def build(has_empty: list[bool]) -> tuple[StandIn, Tensor, Tensor]:
    """The tokens of two columns of width 3; the missing tokens and the empty tokens."""
    torch.manual_seed(0)
    stand_in = StandIn(2, 3, "learned")
    stand_in.has_empty_M.copy_(torch.tensor(has_empty))
    return stand_in, stand_in.missing.view(2, 3), stand_in.empty.view(2, 3)


def test_a_present_cell_keeps_its_token() -> None:
    stand_in, _, _ = build([True, True])
    x = torch.randn(3, 2, 3)
    assert torch.equal(stand_in(x, PRESENT, IN_TABLE)[0], x[0])


def test_the_empty_token_is_added_where_training_had_empty_cells() -> None:
    stand_in, missing, empty = build([True, False])
    token = stand_in(torch.randn(3, 2, 3), PRESENT, IN_TABLE)[1]
    assert torch.equal(token[0], missing[0] + empty[0])
    assert torch.equal(token[1], missing[1])


def test_a_hidden_cell_gets_the_missing_token_only() -> None:
    stand_in, missing, _ = build([True, True])
    assert torch.equal(stand_in(torch.randn(3, 2, 3), PRESENT, IN_TABLE)[2], missing)


def test_one_column_fills_all_tokens_of_a_row() -> None:
    stand_in = StandIn(1, 3, "learned")
    x = torch.randn(2, 5, 3)
    token = stand_in(x, torch.tensor([[True], [False]]), torch.tensor([[True], [False]]))
    assert torch.equal(token[0], x[0])
    assert torch.equal(token[1], stand_in.missing.expand(5, 3))


def test_learned_tokens_are_trained_and_take_no_weight_decay() -> None:
    parameters = dict(build([True, True])[0].named_parameters())
    assert set(parameters) == {"missing", "empty"}
    assert all(parameter.ndim == 1 for parameter in parameters.values())


def test_fixed_and_zero_tokens_are_not_trained() -> None:
    fixed, zero = StandIn(2, 3, "fixed"), StandIn(2, 3, "zero")
    assert {name for name, _ in fixed.named_parameters()} == {"empty"}
    assert not list(zero.parameters())
    assert fixed.missing.any()
    assert not zero.missing.any()


def test_empty_tokens_are_trained_only_where_cells_are_empty() -> None:
    stand_in = StandIn(2, 3, "learned")
    stand_in.mark_empty([False, False])
    assert not stand_in.empty.requires_grad
    stand_in.mark_empty([False, True])
    assert stand_in.empty.requires_grad
    assert stand_in.has_empty_M.tolist() == [False, True]
