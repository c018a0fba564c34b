"""Each objective against its paper's equation, row by row.

Also on a table in which only all columns together say anything.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.batch import Tokens
from plait.tasks.aligning.losses import info_nce, multilinear, same, siglip, volume
from plait.tasks.alignment import Alignment, Config


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Return random vectors of length 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return F.normalize(x, dim=-1)


def all_but_self(rows: int) -> Tensor:
    """Return True where a candidate is another row."""
    return ~torch.eye(rows, dtype=torch.bool)


def test_info_nce_is_equation_4() -> None:
    logits = 5 * unit(6, 8) @ unit(6, 8, seed=1).T
    expected = []
    for i in range(6):
        total = sum(math.exp(logit) for logit in logits[i])
        expected.append(-math.log(math.exp(logits[i, i]) / total))
    assert torch.allclose(info_nce(logits, all_but_self(6)), torch.tensor(expected, dtype=torch.float64))


def test_only_negatives_count_in_info_nce() -> None:
    logits, negative = unit(4, 4), all_but_self(4)
    negative[0, 2] = False
    total = sum(math.exp(logits[0, j]) for j in (0, 1, 3))
    expected = -math.log(math.exp(logits[0, 0]) / total)
    assert info_nce(logits, negative)[0] == pytest.approx(expected)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    assert info_nce(logits, nothing).abs().max() == 0


def test_hard_negatives_weigh_as_in_robinson_et_al() -> None:
    logits, beta = 3 * unit(5, 8) @ unit(5, 8, seed=1).T, 0.7
    for i, loss in enumerate(info_nce(logits, all_but_self(5), beta)):
        negatives = [float(logits[i, j]) for j in range(5) if j != i]
        weights = [math.exp(beta * logit) for logit in negatives]
        mean_weight = sum(weights) / len(weights)
        reweighted = 0.0
        for weight, logit in zip(weights, negatives, strict=True):
            reweighted += weight / mean_weight * math.exp(logit)
        positive = math.exp(logits[i, i])
        assert float(loss) == pytest.approx(-math.log(positive / (positive + reweighted)))


def test_siglip_is_algorithm_1() -> None:
    logits = 4 * unit(5, 8) @ unit(5, 8, seed=1).T - 2
    labels = 2 * torch.eye(5, dtype=torch.float64) - 1
    expected = -F.logsigmoid(labels * logits).sum() / 5
    assert siglip(logits, all_but_self(5)).mean() == pytest.approx(float(expected))


@pytest.mark.parametrize("anchor", [0, 1, 2])
def test_volume_is_that_of_the_body_that_vectors_span(anchor: int) -> None:
    x = unit(4, 3, 7)
    present = torch.ones(4, 3, dtype=torch.bool)
    volumes = volume(x, present, x, present, anchor)
    for i in range(4):
        for j in range(4):
            vectors = x[j].clone()
            vectors[anchor] = x[i, anchor]
            expected = torch.linalg.svdvals(vectors).prod()  # the product of a body's semi-axes
            assert float(volumes[i, j]) == pytest.approx(float(expected), abs=1e-3)


def test_a_missing_column_leaves_the_volume_of_the_others() -> None:
    x, present = unit(3, 4, 7), torch.ones(3, 4, dtype=torch.bool)
    present[1, 2] = False
    volumes = volume(x, present, x, present, 0)
    present_vectors = x[1][[0, 1, 3]]
    expected = torch.linalg.svdvals(present_vectors).prod()
    assert float(volumes[1, 1]) == pytest.approx(float(expected), abs=1e-3)
    of_first_row = volume(x[:1], present[:1], x[:1], present[:1], 0)
    torch.testing.assert_close(volumes[0, 0], of_first_row[0, 0])


def test_multilinear_products_are_equation_4() -> None:
    x, present = unit(5, 3, 7), torch.ones(5, 3, dtype=torch.bool)
    present[2, 1] = False
    neutral = unit(3, 7, seed=9)
    orders = [torch.randperm(5, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    products = multilinear(x, present, neutral, 0, orders)
    for i in range(5):
        for j in range(5):
            row_of_second, row_of_third = i, i
            if i != j:
                row_of_second, row_of_third = int(orders[1][j]), int(orders[2][j])
            second = x[row_of_second, 1] if present[row_of_second, 1] else neutral[1]
            expected = (x[i, 0] * second * x[row_of_third, 2]).sum()
            assert float(products[i, j]) == pytest.approx(float(expected))


def test_rows_with_the_same_value_in_any_column_are_the_same() -> None:
    ids = torch.tensor([[0, 5, -1], [0, 6, -1], [1, 5, -1], [2, 7, -1]])
    assert same(ids, ids).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


class Bits(nn.Module):
    """A vector for each value of each of three bits, compared by the task."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(2, 16) for _ in range(3))
        self.task = Alignment(Config(inputs=("x", "y", "z"), width=16, dropout=0, **options))
        self.task.build_head(dict.fromkeys("xyz", 16))

    def forward(self, bits: Tensor) -> Tensor:
        tokens = {}
        for k, column in enumerate("xyz"):
            vectors = self.tables[k](bits[:, k])[:, None]
            tokens[column] = Tokens(vectors, torch.ones(len(bits), 1, dtype=torch.bool))
        output: Tensor = self.task(tokens)
        return output


def bits(rows: int, generator: torch.Generator) -> Tensor:
    xy = torch.randint(2, (rows, 2), generator=generator)
    return torch.cat([xy, (xy[:, :1] ^ xy[:, 1:])], 1)


def accuracy(objective: str, **options: Any) -> float:
    """Return how often z is identified from x and y, where z is x xor y, after training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Bits(objective=objective, **options)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)

    # All rows count as different, although two bits make only four kinds of rows.
    ids = torch.arange(48)[:, None].expand(48, 4)
    for _ in range(300):
        loss = model.task.loss(model(bits(48, generator)), ids, torch.ones(48, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    true_rows = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    false_rows = true_rows ^ torch.tensor([0, 0, 1])
    with torch.no_grad():
        true_similarity = model.task.similarity(model(true_rows))
        false_similarity = model.task.similarity(model(false_rows))
    return float((true_similarity > false_similarity).float().mean())


@pytest.mark.parametrize("objective", ["symile", "gram"])
def test_higher_order_objectives_learn_from_three_columns(objective: str) -> None:
    assert accuracy(objective) == 1.0


@pytest.mark.parametrize("objective", ["infonce", "siglip"])
def test_a_sum_over_pairs_cannot_learn_from_three_columns(objective: str) -> None:
    assert accuracy(objective) <= 0.75
