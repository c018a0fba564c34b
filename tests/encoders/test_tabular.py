"""Many plain columns encoded at once, against each by itself; and what stands in for cells that are not
there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from plait.encoders.tabular import Tabular
from plait.model.table_columns import Cells, together
from plait.nn.batch import Layout, Values

SIZES = {"wide": 17, "narrow": 1, "middle": 5}
ROWS = 6


def build(missing: str = "learned") -> tuple[dict[str, Tabular], Cells, dict[str, Values]]:
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
        Cells({c: encoders[c] for c in ("few", "wide", "narrow", "many", "middle")}, missing),
        values,
    )


def everywhere(value: bool = True) -> dict[str, Tensor]:
    return {c: torch.full((ROWS,), value) for c in (*SIZES, "few", "many")}


def test_together_they_are_what_each_is_by_itself() -> None:
    encoders, cells, values = build()
    found = cells(values, everywhere(), everywhere())
    assert set(found) == set(encoders)
    for c, encoder in encoders.items():
        torch.testing.assert_close(found[c].x_BLD, encoder(values[c]).x_BLD)
        assert bool(found[c].mask_BL.all())


def test_they_learn_what_each_would_learn() -> None:
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


def test_an_empty_cell_is_told_where_training_rows_taught_what_it_says_and_a_hidden_one_is_not() -> None:
    _, cells, values = build()
    cells.eval()
    empty = torch.tensor([True, False, True, False, False, False])
    present, given = everywhere(), everywhere()
    present["wide"], given["wide"] = ~empty & (torch.arange(ROWS) != 3), ~empty
    whole = cells(values, everywhere(), everywhere())["wide"].x_BLD[:, 0]
    missing, said = (
        t.view(-1, cells.width)[cells.columns.index("wide")] for t in (cells.missing, cells.empty)
    )

    def expected(of_empty: Tensor) -> Tensor:
        return torch.stack([of_empty, whole[1], of_empty, missing, whole[4], whole[5]])

    untaught = cells(values, present, given)["wide"]
    torch.testing.assert_close(untaught.x_BLD[:, 0], expected(missing))
    assert untaught.mask_BL[:, 0].tolist() == present["wide"].tolist()
    assert not cells.knows_empty(cells.columns)
    cells.teach(given)
    assert cells.knows_empty(["wide", "few"])
    assert not cells.knows_empty(["few"])
    taught = cells(values, present, given)
    torch.testing.assert_close(taught["wide"].x_BLD[:, 0], expected(missing + said))
    later = {**present, "wide": present["wide"] & (torch.arange(ROWS) != 1)}
    torch.testing.assert_close(cells.hide(taught, later)["wide"].x_BLD[1, 0], missing)
    torch.testing.assert_close(
        cells.hide(taught, later)["wide"].x_BLD[0, 0], missing + said, msg="is empty still"
    )
    gone = cells.hide(taught, present, columns=["few"])["wide"]
    torch.testing.assert_close(
        gone.x_BLD[:, 0], missing.expand(ROWS, -1), msg="a column that is not there says nothing"
    )
    assert not bool(gone.mask_BL.any())


def test_in_training_empty_cells_are_hidden_as_often_as_others() -> None:
    _, cells, _ = build()
    cells.teach(everywhere(False))
    empty = torch.rand(4000, len(cells.columns)) < 0.5
    hidden = ~empty & (torch.rand(empty.shape) < 0.3)
    told = cells._told(~empty & ~hidden, ~empty)
    assert not bool(told[~empty].any())
    assert abs(float(told[empty].float().mean()) - 0.7) < 0.03
    assert bool(cells.eval()._told(~empty & ~hidden, ~empty)[empty].all())


def test_zeros_may_stand_in_for_all_of_them() -> None:
    _, cells, values = build("zero")
    cells.eval().teach(everywhere(False))
    found = cells(values, everywhere(False), everywhere(False))
    assert not any(bool(t.x_BLD.any()) for t in found.values())
    assert not {"missing", "empty"} & {name for name, _ in cells.named_parameters()}


def test_one_column_of_another_width_does_not_keep_the_others_apart() -> None:
    encoders, _, _ = build()
    encoders["wide"] = Tabular.build(Tabular.options(width=64), Layout("vector", (17,)))
    encoders["middle"] = Tabular.build(Tabular.options(periodic=4), Layout("vector", (5,)))
    table: Any = SimpleNamespace(inputs=dict.fromkeys(encoders, SimpleNamespace(tabular=True)), several=())
    cells = together(table, encoders, "learned")
    assert cells is not None
    assert set(cells.columns) == {"narrow", "few", "many"}
