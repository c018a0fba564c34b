"""What training adds to the loss of whole rows, term by term."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from plait.model.fused import TABLE
from plait.nn.layers import module_key
from plait.training.objective import FUSED, losses
from support.models import build


def test_a_column_that_is_missing_everywhere_has_no_part_in_the_answer() -> None:
    model, batch = build()
    hidden = replace(batch, present={"one": batch.present["one"], "two": torch.zeros(8, dtype=torch.bool)})
    other = replace(
        hidden,
        values={
            "one": hidden.values["one"],
            "two": replace(hidden.values["two"], x=hidden.values["two"].x + 5),
        },
    )
    assert torch.equal(model(hidden)["label"], model(other)["label"])
    assert not torch.equal(model(hidden)["label"], model(batch)["label"])


def test_a_row_with_one_cell_or_none_is_answered_by_that_cell_and_by_what_the_empty_ones_say() -> None:
    model, batch = build()
    batch = replace(
        batch,
        present={
            "one": torch.tensor([1, 1, 1, 0, 1, 0, 1, 1]).bool(),
            "two": torch.tensor([1, 0, 0, 1, 1, 0, 0, 1]).bool(),
        },
    )
    encoded = model.encode(batch)
    part = model.fused_for("label")
    assert not part.knows_empty(), "nothing is known before training"
    no_one, no_two, nothing = torch.nn.init.normal_(part.empty.weight).detach()
    fused, (one, two) = part.fusion(encoded, batch.present), (part.alone(c, encoded) for c in ("one", "two"))
    found = model.fuse(encoded, batch.present)["label"]
    expected = torch.stack(
        [
            fused[0],
            one[1] + no_two,
            one[2] + no_two,
            two[3] + no_one,
            fused[4],
            no_one + no_two + nothing,
            one[6] + no_two,
            fused[7],
        ]
    )
    torch.testing.assert_close(found, expected)
    given = model.fuse(
        model.hide(encoded, batch.only({"one"}).present), batch.only({"one"}).present, columns=["one"]
    )["label"]
    torch.testing.assert_close(given[1], one[1], msg="a column that is not there at all says nothing")
    torch.testing.assert_close(given[3], no_one + nothing)


def test_a_row_without_inputs_gets_the_shares_of_the_training_rows_where_none_of_these_taught_more() -> None:
    model, batch = build()
    none = torch.arange(8) == 2
    encoded, hidden = model.encode(batch), {c: present & ~none for c, present in batch.present.items()}
    taught = model.predict_hidden(encoded, hidden)["label"]
    model.task("label").guesses.fill_(True)
    found = model.predict_hidden(encoded, hidden)["label"]
    assert not torch.equal(taught[2], found[2])
    torch.testing.assert_close(found[2].softmax(0), torch.tensor([3 / 8, 3 / 8, 2 / 8]))
    torch.testing.assert_close(found[~none], model.predict_hidden(encoded, batch.present)["label"][~none])


def test_all_plain_cells_of_a_row_are_one_part_beside_its_media() -> None:
    model, batch = build(("number", "vector", "number"))
    part = model.fused_for("label")
    assert part.parts == {"two": ["two"], TABLE: ["one", "three"]}
    encoded, present = (
        model.encode(batch),
        {**batch.present, "three": torch.tensor([1, 1, 1, 0, 1, 1, 1, 1]).bool()},
    )
    table = part.solo[module_key(TABLE)](
        torch.cat([encoded["one"].pooled_BD(), encoded["three"].pooled_BD()], 1)
    )
    torch.testing.assert_close(part.alone(TABLE, encoded), table)
    no_two, no_table, _ = torch.nn.init.normal_(part.empty.weight).detach()
    found = model.fuse(encoded, present)["label"]
    fused, two = part.fusion(encoded, present), part.alone("two", encoded)
    torch.testing.assert_close(found[[2, 6]], table[[2, 6]] + no_two, msg="rows that have the table alone")
    torch.testing.assert_close(found[3], two[3] + no_table)
    torch.testing.assert_close(
        found[[0, 1, 4, 5, 7]], fused[[0, 1, 4, 5, 7]], msg="a table with a hole is a table"
    )
    votes: Any = model.votes_for("label")
    votes.share.fill_(0.4)
    hidden = {**present, "three": torch.zeros(8, dtype=torch.bool)}
    shown = model.hide(encoded, hidden)
    said = model.own(shown)["label"]
    before = model.task("label")(model.fuse(shown, hidden, columns=["one", "two"])["label"], shown)
    expected = votes.mixed(model.task("label"), before, said, part.there(hidden))
    torch.testing.assert_close(
        model.predict_hidden(encoded, hidden, ["one", "two"], model.own(encoded))["label"], expected
    )


def test_a_table_of_plain_cells_has_nothing_that_learns_by_itself() -> None:
    model, batch = build(("number", "number"))
    assert not model.fused_for("label").solo
    assert set(losses(model, batch)["label"]) == {FUSED}
    assert model.votes_for("label") is None
