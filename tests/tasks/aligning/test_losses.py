"""Each objective against its paper's equation, written out row by row; and a table of which only all
columns together tell anything.
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
    return F.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def others(rows: int) -> Tensor:
    return ~torch.eye(rows, dtype=torch.bool)


def test_info_nce_is_equation_4() -> None:
    logits = 5 * unit(6, 8) @ unit(6, 8, seed=1).T
    expected = [
        -math.log(math.exp(logits[i, i]) / sum(math.exp(logits[i, j]) for j in range(6))) for i in range(6)
    ]
    assert torch.allclose(info_nce(logits, others(6)), torch.tensor(expected, dtype=torch.float64))


def test_what_is_no_negative_has_no_part_in_info_nce() -> None:
    logits, other = unit(4, 4), others(4)
    other[0, 2] = False
    expected = -math.log(math.exp(logits[0, 0]) / sum(math.exp(logits[0, j]) for j in (0, 1, 3)))
    assert info_nce(logits, other)[0] == pytest.approx(expected)
    assert info_nce(logits, torch.zeros(4, 4, dtype=torch.bool)).abs().max() == 0


def test_hard_negatives_weigh_as_in_robinson_et_al() -> None:
    logits, beta = 3 * unit(5, 8) @ unit(5, 8, seed=1).T, 0.7
    for i, loss in enumerate(info_nce(logits, others(5), beta)):
        negatives = [float(logits[i, j]) for j in range(5) if j != i]
        weights = [math.exp(beta * s) for s in negatives]
        reweighted = sum(w * math.exp(s) for w, s in zip(weights, negatives, strict=True)) / (
            sum(weights) / len(weights)
        )
        assert float(loss) == pytest.approx(
            -math.log(math.exp(logits[i, i]) / (math.exp(logits[i, i]) + reweighted))
        )


def test_siglip_is_algorithm_1() -> None:
    logits = 4 * unit(5, 8) @ unit(5, 8, seed=1).T - 2
    labels = 2 * torch.eye(5, dtype=torch.float64) - 1
    expected = -F.logsigmoid(labels * logits).sum() / 5
    assert siglip(logits, others(5)).mean() == pytest.approx(float(expected))


@pytest.mark.parametrize("anchor", [0, 1, 2])
def test_volume_is_that_of_the_body_the_vectors_span(anchor: int) -> None:
    x = unit(4, 3, 7)
    have = torch.ones(4, 3, dtype=torch.bool)
    found = volume(x, have, x, have, anchor)
    for i in range(4):
        for j in range(4):
            vectors = x[j].clone()
            vectors[anchor] = x[i, anchor]
            expected = torch.linalg.svdvals(vectors).prod()  # the product of a body's semi-axes
            assert float(found[i, j]) == pytest.approx(float(expected), abs=1e-3)


def test_a_missing_column_leaves_the_volume_of_the_others() -> None:
    x, have = unit(3, 4, 7), torch.ones(3, 4, dtype=torch.bool)
    have[1, 2] = False
    found = volume(x, have, x, have, 0)
    kept = x[1][[0, 1, 3]]
    assert float(found[1, 1]) == pytest.approx(float(torch.linalg.svdvals(kept).prod()), abs=1e-3)
    assert torch.equal(found[0, 0], volume(x[:1], have[:1], x[:1], have[:1], 0)[0, 0])


def test_multilinear_products_are_equation_4() -> None:
    x, have = unit(5, 3, 7), torch.ones(5, 3, dtype=torch.bool)
    have[2, 1] = False
    neutral = unit(3, 7, seed=9)
    orders = [torch.randperm(5, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    found = multilinear(x, have, neutral, 0, orders)
    for i in range(5):
        for j in range(5):
            at = (i, i) if i == j else (int(orders[1][j]), int(orders[2][j]))
            second = x[at[0], 1] if have[at[0], 1] else neutral[1]
            assert float(found[i, j]) == pytest.approx(float((x[i, 0] * second * x[at[1], 2]).sum()))


def test_rows_with_the_same_value_in_any_column_are_the_same() -> None:
    ids = torch.tensor([[0, 5, -1], [0, 6, -1], [1, 5, -1], [2, 7, -1]])
    assert same(ids, ids).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


class Bits(nn.Module):
    """A vector for each value of each of three bits, aligned by the task as it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(2, 16) for _ in range(3))
        self.task = Alignment(Config(inputs=("x", "y", "z"), width=16, dropout=0, **options))
        self.task.build_head(dict.fromkeys("xyz", 16))

    def forward(self, bits: Tensor) -> Tensor:
        tokens = {
            c: Tokens(self.tables[k](bits[:, k])[:, None], torch.ones(len(bits), 1, dtype=torch.bool))
            for k, c in enumerate("xyz")
        }
        found: Tensor = self.task(tokens)
        return found


def bits(rows: int, generator: torch.Generator) -> Tensor:
    xy = torch.randint(2, (rows, 2), generator=generator)
    return torch.cat([xy, (xy[:, :1] ^ xy[:, 1:])], 1)


def learned(objective: str, **options: Any) -> float:
    """How often z is found from x and y when z is x xor y, after training with this objective."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Bits(objective=objective, **options)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(300):
        seen = bits(48, generator)
        # which rows are alike is what these objectives do not know: two bits make but eight rows
        ids = torch.arange(48)[:, None].expand(48, 4)
        loss = model.task.loss(model(seen), ids, torch.ones(48, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    every = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    with torch.no_grad():
        right, wrong = model(every), model(every ^ torch.tensor([0, 0, 1]))
        return float((model.task.similarity(right) > model.task.similarity(wrong)).float().mean())


def test_only_objectives_of_higher_order_learn_what_only_all_three_tell() -> None:
    assert learned("symile") == 1.0
    assert learned("gram") == 1.0
    for objective in ("infonce", "siglip"):
        found = learned(objective)
        assert found <= 0.75, (
            "a sum over pairs of columns cannot tell all four right rows from the four wrong ones"
        )
