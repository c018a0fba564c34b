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
    """Three columns of numbers and two of categories, one encoder each and together, and some cells."""
    torch.manual_seed(0)
    config = Tabular.options()
    encoders = {c: Tabular.build(config, Layout("vector", (size,))) for c, size in SIZES.items()}
    encoders |= {
        c: Tabular.build(config, Layout("index", (), height)) for c, height in {"few": 3, "many": 40}.items()
    }
    for encoder in encoders.values():
        for p in encoder.parameters():
            nn.init.normal_(p)
    values = {c: Values(torch.randn(ROWS, size)) for c, size in SIZES.items()}
    values |= {
        "few": Values(torch.tensor([0, 1, 2, 0, 1, 2])),
        "many": Values(torch.tensor([39, 0, 5, 20, 38, 1])),
    }
    return (
        encoders,
        TableColumns({c: encoders[c] for c in ("few", "wide", "narrow", "many", "middle")}, "learned"),
        values,
    )


def everywhere(value: bool = True) -> dict[str, Tensor]:
    return {c: torch.full((ROWS,), value) for c in (*SIZES, "few", "many")}


def test_all_at_once_are_what_each_is_alone() -> None:
    encoders, cells, values = build()
    found = cells(values, everywhere(), everywhere())
    assert set(found) == set(encoders)
    for c, encoder in encoders.items():
        torch.testing.assert_close(found[c].x_BLD, encoder(values[c]).x_BLD)
        assert bool(found[c].mask_BL.all())


def test_all_at_once_learn_what_each_would_learn() -> None:
    encoders, cells, values = build()
    weight = torch.randn(ROWS, 1, cells.width)
    sum((t.x_BLD * weight).sum() for t in cells(values, everywhere(), everywhere()).values()).backward()
    sum((e(values[c]).x_BLD * weight).sum() for c, e in encoders.items()).backward()
    narrow, first = cells.numbers.index("narrow"), encoders["narrow"].net[1]
    torch.testing.assert_close(cells.first_MEH.grad[narrow, :1], first.weight.grad.T)
    assert not bool(cells.first_MEH.grad[narrow, 1:].any()), (
        "entries that a column does not have learn nothing"
    )
    torch.testing.assert_close(
        cells.embedding.weight.grad, torch.cat([encoders[c].net.weight.grad for c in ("few", "many")])
    )


def test_a_column_of_another_width_is_encoded_alone() -> None:
    encoders, _, _ = build()
    encoders["wide"] = Tabular.build(Tabular.options(width=64), Layout("vector", (17,)))
    encoders["middle"] = Tabular.build(Tabular.options(periodic=4), Layout("vector", (5,)))
    table: Any = SimpleNamespace(inputs=dict.fromkeys(encoders, SimpleNamespace(tabular=True)), several=())
    cells = together(table, encoders, "learned")
    assert cells is not None
    assert set(cells.columns) == {"narrow", "few", "many"}
