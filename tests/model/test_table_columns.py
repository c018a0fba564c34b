"""Many plain columns encoded at once, against each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from plait.encoders.tabular import Tabular
from plait.model.table_columns import TableColumns, together
from plait.nn.batch import Layout, Values

SIZES = {"wide": 17, "narrow": 1, "middle": 5}
ROWS = 6


def build() -> tuple[dict[str, Tabular], TableColumns, dict[str, Values]]:
    """Return an encoder for each of five columns, the same encoders as one, and some cells.

    Three columns have numbers, two have categories.
    """
    torch.manual_seed(0)
    config = Tabular.options()
    encoders = {}
    for column, size in SIZES.items():
        encoders[column] = Tabular.build(config, Layout("vector", (size,)))
    for column, height in {"few": 3, "many": 40}.items():
        encoders[column] = Tabular.build(config, Layout("index", (), height))
    for encoder in encoders.values():
        for parameter in encoder.parameters():
            nn.init.normal_(parameter)

    values = {column: Values(torch.randn(ROWS, size)) for column, size in SIZES.items()}
    values["few"] = Values(torch.tensor([0, 1, 2, 0, 1, 2]))
    values["many"] = Values(torch.tensor([39, 0, 5, 20, 38, 1]))
    mixed_order = ("few", "wide", "narrow", "many", "middle")
    table_columns = TableColumns({column: encoders[column] for column in mixed_order}, "learned")
    return encoders, table_columns, values


def everywhere() -> dict[str, Tensor]:
    return {column: torch.ones(ROWS, dtype=torch.bool) for column in (*SIZES, "few", "many")}


def test_stacked_columns_have_the_tokens_of_their_encoders() -> None:
    encoders, table_columns, values = build()
    tokens = table_columns(values, everywhere(), everywhere())
    assert set(tokens) == set(encoders)
    for column, encoder in encoders.items():
        torch.testing.assert_close(tokens[column].x_BLD, encoder(values[column]).x_BLD)
        assert bool(tokens[column].mask_BL.all())


def test_stacked_columns_have_the_gradients_of_their_encoders() -> None:
    encoders, table_columns, values = build()
    weight = torch.randn(ROWS, 1, table_columns.width)
    tokens = table_columns(values, everywhere(), everywhere())
    sum((of_column.x_BLD * weight).sum() for of_column in tokens.values()).backward()
    sum((encoder(values[column]).x_BLD * weight).sum() for column, encoder in encoders.items()).backward()

    gradient_EH = table_columns.first_MEH.grad[table_columns.numbers.index("narrow")]
    torch.testing.assert_close(gradient_EH[:1], encoders["narrow"].net[1].weight.grad.T)
    assert not bool(gradient_EH[1:].any()), "entries that a column does not have learn nothing"
    expected = torch.cat([encoders[column].net.weight.grad for column in ("few", "many")])
    torch.testing.assert_close(table_columns.embedding.weight.grad, expected)


def test_a_column_of_another_width_is_not_stacked() -> None:
    encoders, _, _ = build()
    encoders["wide"] = Tabular.build(Tabular.options(width=64), Layout("vector", (17,)))
    encoders["middle"] = Tabular.build(Tabular.options(periodic=4), Layout("vector", (5,)))
    table: Any = SimpleNamespace(inputs=dict.fromkeys(encoders, SimpleNamespace(plain=True)), several=())
    table_columns = together(table, encoders, "learned")
    assert table_columns is not None
    assert set(table_columns.columns) == {"narrow", "few", "many"}
