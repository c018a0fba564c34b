"""The network: what each row is answered from, and what `forward` is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from plait.model.fused import TABLE
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Masks
from plait.nn.layers import module_key
from plait.tasks.base import MAIN
from plait.tasks.base_prediction import Prediction
from plait.training.objective import losses
from support.export import assert_exported_alike
from support.models import build

NOWHERE = torch.zeros(8, dtype=torch.bool)


def with_present(batch: Batch, **present: Tensor) -> Batch:
    """Return the same rows with other cells present. The others are empty."""
    return replace(batch, present=batch.present | present)


def assert_same(logits: Tensor, expected: Tensor) -> None:
    """Late fusion gives logarithms of probabilities: the same answers have the same probabilities."""
    torch.testing.assert_close(logits.softmax(-1), expected.softmax(-1))


def prediction(model: MultimodalModel) -> Prediction:
    task = model.task("label")
    assert isinstance(task, Prediction)
    return task


def test_an_absent_column_has_no_part_in_the_answer() -> None:
    model, batch = build()
    hidden = with_present(batch, two=NOWHERE)
    shifted = replace(hidden.values["two"], x=hidden.values["two"].x + 5)
    with_other_cells = replace(hidden, values={**hidden.values, "two": shifted})
    assert torch.equal(model(hidden)["label"], model(with_other_cells)["label"])
    assert not torch.equal(model(hidden)["label"], model(batch)["label"])


def test_rows_are_answered_by_fusion_by_one_block_or_by_baseline() -> None:
    model, batch = build()
    has_one = torch.tensor([1, 1, 0, 0, 1, 1, 1, 1]).bool()
    has_two = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1]).bool()
    batch = with_present(batch, one=has_one, two=has_two)
    encoded = model.encode(batch)
    fuser, head = model.fuser("label"), prediction(model)
    tokens = encoded.tokens
    fused = head(fuser.fusion(tokens, batch.present))
    by_one = head(fuser.unimodal[module_key("one")](tokens["one"].pooled_BD()))
    by_two = head(fuser.unimodal[module_key("two")](tokens["two"].pooled_BD()))

    answers = model(batch)["label"]
    assert_same(answers[[0, 4, 5, 6, 7]], fused[[0, 4, 5, 6, 7]])
    assert_same(answers[1], by_one[1])
    assert_same(answers[2], by_two[2])
    torch.testing.assert_close(answers[3].softmax(0), torch.tensor([3 / 8, 3 / 8, 2 / 8]))


def test_a_row_without_cells_is_answered_by_rows_like_it() -> None:
    """Baseline 3/8, 3/8, 2/8. Both rows that lack "two" are of class b; ten rows count besides."""
    model, batch = build()
    lacks_two = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0]).bool()
    labels = batch.targets["label"]
    overall_logits = prediction(model).baseline(labels)
    prediction(model).fit_empty_blocks(overall_logits, labels, torch.stack([NOWHERE, lacks_two], 1))
    nothing = with_present(batch, one=NOWHERE, two=NOWHERE)
    overall = torch.tensor([3 / 8, 3 / 8, 2 / 8])
    expected = (torch.tensor([0.0, 2.0, 0.0]) + 10 * overall) / 12
    torch.testing.assert_close(model(nothing)["label"].softmax(1)[0], expected)

    not_in_table = replace(nothing, in_table={**nothing.in_table, "two": NOWHERE})
    torch.testing.assert_close(model(not_in_table)["label"].softmax(1)[0], overall)


def test_a_subset_is_a_table_that_lacks_the_other_columns() -> None:
    model, batch = build()
    subset = model.keep(model.encode(batch), ["one"])
    answers = model.answer(model.fuse(subset), subset)["label"]
    present = {**batch.present, "two": NOWHERE}
    in_table = {**batch.in_table, "two": NOWHERE}
    without_two = replace(batch, present=present, in_table=in_table)
    torch.testing.assert_close(answers, model(without_two)["label"])


def test_all_plain_columns_are_one_block_beside_a_vector() -> None:
    model, batch = build(("number", "vector", "number"))
    fuser = model.fuser("label")
    assert fuser.blocks == {"two": ["two"], TABLE: ["one", "three"]}

    # Rows 2 and 6 lack "two": the block of plain columns answers. Row 3 lacks "one" and still has the block.
    batch = with_present(batch, three=torch.tensor([1, 1, 1, 1, 1, 1, 1, 1]).bool())
    encoded = model.encode(batch)
    pooled = torch.cat([encoded.tokens[column].pooled_BD() for column in ("one", "three")], 1)
    by_table = prediction(model)(fuser.unimodal[module_key(TABLE)](pooled))
    in_order = {column: encoded.tokens[column] for column in model.columns}
    fused = prediction(model)(fuser.fusion(in_order, batch.present))
    answers = model(batch)["label"]
    assert_same(answers[[2, 6]], by_table[[2, 6]])
    assert_same(answers[[0, 1, 3, 4, 5, 7]], fused[[0, 1, 3, 4, 5, 7]])


def test_a_table_of_plain_columns_has_no_unimodal_heads() -> None:
    model, batch = build(("number", "number"))
    assert not model.fuser("label").unimodal_blocks
    assert set(losses(model, batch)["label"]) == {MAIN}
    assert prediction(model).late_fusion is None


def test_late_fusion_answers_once_it_is_calibrated() -> None:
    model, batch = build()
    encoded = model.encode(batch)
    before = model(batch)["label"]
    late_fusion = prediction(model).late_fusion
    assert late_fusion is not None
    late_fusion.mixture_weight.fill_(0.4)

    outputs = prediction(model).outputs(model.fuse(encoded)["label"], encoded)
    assert outputs is not None
    answers = model(batch)["label"]
    torch.testing.assert_close(answers, late_fusion(prediction(model), outputs))
    has_both = batch.present["one"] & batch.present["two"]
    assert torch.equal(answers[~has_both], before[~has_both])
    assert not torch.allclose(answers[has_both], before[has_both])


def test_hiding_after_encoding_is_hiding_before_it() -> None:
    model, batch = build(("number", "vector", "number"))
    hidden = torch.tensor([1, 0, 0, 0, 1, 0, 0, 1]).bool()
    masks = Masks(
        {**batch.present, "one": batch.present["one"] & ~hidden},
        {**batch.in_table, "one": batch.in_table["one"] & ~hidden},
    )
    before = model.encode(replace(batch, present=masks.present, in_table=masks.in_table))
    after = model.hide(model.encode(batch), masks)
    for column in model.columns:
        torch.testing.assert_close(after.tokens[column].x_BLD, before.tokens[column].x_BLD)
        assert torch.equal(after.tokens[column].mask_BL, before.tokens[column].mask_BL)


@pytest.mark.parametrize("kinds", [("number", "vector"), ("number", "vector", "number")])
def test_forward_can_be_exported_in_strict_mode(kinds: tuple[str, ...]) -> None:
    model, batch = build(kinds)
    late_fusion = prediction(model).late_fusion
    assert late_fusion is not None
    late_fusion.mixture_weight.fill_(0.4)
    assert_exported_alike(model, batch)


def test_absent_cells_are_left_out_without_changing_answers() -> None:
    model, batch = build()
    packed = model.packed(batch)
    assert len(packed.values["two"]) == int(batch.present["two"].sum()) < len(batch)
    torch.testing.assert_close(model(packed)["label"], model(batch)["label"])
