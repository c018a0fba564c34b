"""A network that the machine has no memory for is refused before any of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.errors import RecipeError
from plait.model.memory import check_memory, has_large_options, machine_memory
from plait.model.network import MultimodalModel
from plait.table.table import Table


def fitted(*overrides: str) -> tuple[Plan, Preprocessing]:
    cells = {
        "photo": ["a.png"] * 8,
        "text": ["a b", "c d"] * 4,
        "price": [float(i) for i in range(8)],
        "label": ["x", "y"] * 4,
    }
    table = Table(pa.table(cells), Path(), "t")
    columns = {"photo": "image", "text": "text", "price": "number"}
    plan = Plan.make(table, recipe_from(None, columns=columns, overrides=overrides), "label")
    return plan, Preprocessing.fit(table, plan, plan.split.train)


@cache
def default() -> tuple[Plan, Preprocessing]:
    return fitted()


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("encoders.text={name: transformer, width: 65536}", "the encoder 'transformer' of column 'text'"),
        ("encoders.image={name: cnn, channels: [65536, 65536]}", "the encoder 'cnn' of column 'photo'"),
        ("encoders.image={name: resnet, width: 65536}", "the encoder 'resnet' of column 'photo'"),
        ("fusion={name: low_rank, width: 65536, rank: 65536}", "the fusion 'low_rank'"),
        ("tasks.text={name: generation, column: text, width: 65536}", "the generation of 'text'"),
    ],
)
def test_a_network_that_is_too_large_is_refused_by_its_part(override: str, part: str) -> None:
    plan, preprocessing = fitted(override)
    with pytest.raises(RecipeError, match=f"takes .* GB of memory, and this machine has .*: {part} takes"):
        MultimodalModel.build(plan, preprocessing)


def test_what_is_needed_is_four_times_the_weights() -> None:
    plan, preprocessing = fitted("encoders.text={name: bag, width: 3000}")
    model = MultimodalModel.build(plan, preprocessing)
    needed = 4 * sum(parameter.nbytes for parameter in model.parameters())
    needed += sum(buffer.nbytes for buffer in model.buffers())

    def build() -> dict[str, nn.Module]:
        return MultimodalModel.build(plan, preprocessing, training=False).parts(plan)

    check_memory(plan, build, needed)
    with pytest.raises(RecipeError, match="the encoder 'bag' of column 'text'"):
        check_memory(plan, build, needed - 1)


def test_the_estimate_takes_no_random_numbers() -> None:
    plan, preprocessing = fitted("encoders.text={name: bag, width: 3000}")
    torch.manual_seed(0)
    check_memory(plan, lambda: MultimodalModel.build(plan, preprocessing, training=False).parts(plan))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert drawn == torch.rand(1)


@pytest.mark.parametrize("ask", [Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.nonzero])
def test_a_part_that_needs_numbers_is_not_estimated(ask: Callable[[Tensor], object]) -> None:
    plan, _ = fitted("encoders.text={name: bag, width: 3000}")

    def build() -> dict[str, nn.Module]:
        ask(torch.ones(1))
        return {"part": nn.Linear(1000, 1000)}

    check_memory(plan, build, available=1)


def test_another_error_of_a_part_is_raised() -> None:
    plan, _ = fitted("encoders.text={name: bag, width: 3000}")

    def build() -> dict[str, nn.Module]:
        raise KeyError("an option that is not there")

    with pytest.raises(KeyError):
        check_memory(plan, build, available=1)


def test_networks_of_the_usual_size_are_not_estimated() -> None:
    plan, _ = default()
    assert not has_large_options(plan)
    check_memory(plan, lambda: pytest.fail("it was built twice"), available=1)
    memory = machine_memory()
    assert memory is None or memory > 1e8
