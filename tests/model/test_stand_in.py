"""Which token stands in for an absent cell."""

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
    stand_in = StandIn(2, 3, "learned", plain=True)
    stand_in.has_empty_M.copy_(torch.tensor(has_empty))
    return stand_in, stand_in.missing.view(2, 3), stand_in.empty.view(2, 3)


def test_a_present_cell_keeps_its_token() -> None:
    stand_in, _, _ = build([True, True])
    x = torch.randn(3, 2, 3)
    assert torch.equal(stand_in(x, PRESENT, IN_TABLE)[0], x[0])


def test_an_empty_cell_is_told_only_where_training_had_some() -> None:
    stand_in, missing, empty = build([True, False])
    token = stand_in(torch.randn(3, 2, 3), PRESENT, IN_TABLE)[1]
    assert torch.equal(token[0], missing[0] + empty[0])
    assert torch.equal(token[1], missing[1])


def test_a_hidden_cell_says_nothing() -> None:
    stand_in, missing, _ = build([True, True])
    assert torch.equal(stand_in(torch.randn(3, 2, 3), PRESENT, IN_TABLE)[2], missing)


def test_one_column_fills_all_tokens_of_a_row() -> None:
    stand_in = StandIn(1, 3, "learned", plain=False)
    x = torch.randn(2, 5, 3)
    token = stand_in(x, torch.tensor([[True], [False]]), torch.tensor([[True], [False]]))
    assert torch.equal(token[0], x[0])
    assert torch.equal(token[1], stand_in.missing.expand(5, 3))


def test_learned_tokens_are_trained_and_take_no_weight_decay() -> None:
    parameters = dict(build([True, True])[0].named_parameters())
    assert set(parameters) == {"missing", "empty"}
    assert all(parameter.ndim == 1 for parameter in parameters.values())


def test_fixed_and_zero_tokens_are_not_trained() -> None:
    for start in ("fixed", "zero"):
        stand_in = StandIn(2, 3, start, plain=True)
        assert not list(stand_in.parameters())
        assert bool(stand_in.missing.any()) == (start == "fixed")


def test_plain_columns_tell_something_by_empty_cells() -> None:
    stand_in, _, _ = build([True, False])
    assert stand_in.tells(PRESENT, IN_TABLE).tolist() == [[True, True], [True, False], [False, False]]


def test_media_columns_tell_something_by_cells_alone() -> None:
    stand_in = StandIn(1, 3, "learned", plain=False)
    assert torch.equal(stand_in.tells(PRESENT[:, :1], IN_TABLE[:, :1]), PRESENT[:, :1])
    assert {name for name, _ in stand_in.named_parameters()} == {"missing"}
