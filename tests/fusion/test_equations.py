"""Each fusion against the equation of its paper, written out by hand, and what each can represent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from plait.fusion.base import fusions
from plait.nn.batch import Tokens
from plait.nn.layers import Attention, module_key

WIDTHS = {"a": 3, "b": 4, "c": 2}


def build(name: str, widths: dict[str, int] = WIDTHS, **options: Any) -> Any:
    torch.manual_seed(0)
    return fusions.find(name).build(fusions.configure(name, options), widths).eval()


def inputs(rows: int = 5) -> tuple[dict[str, Tokens], dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    tokens, present = {}, {}
    for column, width in WIDTHS.items():
        x = torch.randn(rows, 1, width, generator=g)
        tokens[column] = Tokens(x, torch.ones(rows, 1, dtype=torch.bool))
        present[column] = torch.ones(rows, dtype=torch.bool)
    return tokens, present


def test_concat_is_a_perceptron_of_the_concatenation() -> None:
    module, (tokens, present) = build("concat", hidden=(8, 5)), inputs()
    x = torch.cat([t.x_BLD[:, 0] for t in tokens.values()], 1)
    first, second = module.mlp[0], module.mlp[2]
    expected = ((x @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    assert torch.allclose(module(tokens, present), expected, atol=1e-6)


def test_logit_sum_adds_the_logits_of_each_column() -> None:
    module, (tokens, present) = build("logit_sum"), inputs()
    head = torch.nn.Linear(module.width, 3, bias=False)
    absent = {column: torch.zeros_like(present_B) for column, present_B in present.items()}
    total = torch.zeros(5, 3)
    for column in WIDTHS:
        total += head(module(tokens, {**absent, column: present[column]}))
    assert torch.allclose(head(module(tokens, present)), total, atol=1e-5)


def test_gated_is_equation_of_arevalo_2017() -> None:
    module, (tokens, present) = build("gated", width=6), inputs()
    x = {column: column_tokens.x_BLD[:, 0] for column, column_tokens in tokens.items()}
    concatenated = torch.cat(list(x.values()), 1)
    total = torch.zeros(5, 6)
    for m, column in enumerate(WIDTHS):
        rows = slice(m * 6, m * 6 + 6)
        z = torch.sigmoid(concatenated @ module.gates.weight[rows].T + module.gates.bias[rows])
        values = module.values[module_key(column)]
        h = torch.tanh(x[column] @ values.weight.T + values.bias)
        total += z * h
    assert torch.allclose(module(tokens, present), module.mlp(total), atol=1e-6)


def test_low_rank_is_the_full_tensor_product_of_liu_2018() -> None:
    module, (tokens, present) = build("low_rank", width=4, rank=3), inputs()
    z, w = [], []
    for column, column_tokens in tokens.items():
        x = module.norms[module_key(column)](column_tokens.x_BLD[:, 0])
        z.append(torch.cat([x, torch.ones(5, 1)], 1))
        w.append(module.factors[module_key(column)])

    # eq. 6: the sum of rank-one tensors
    full_weight = torch.einsum("irk,jrk,lrk,r->ijlk", *w, module.rank_weights)
    full_tensor = torch.einsum("bi,bj,bl->bijl", *z)  # eq. 2: the outer product of all columns
    expected = torch.einsum("bijl,ijlk->bk", full_tensor, full_weight) + module.bias  # eq. 3
    assert torch.allclose(module.product_BD(tokens, present), expected, atol=1e-4)


def test_low_rank_without_a_column_is_the_product_of_the_others() -> None:
    module, (tokens, present) = build("low_rank", width=4, rank=3), inputs()
    present["b"] = torch.zeros(5, dtype=torch.bool)
    changed = {**tokens, "b": Tokens(torch.randn(5, 1, 4), tokens["b"].mask_BL)}
    assert torch.equal(module.product_BD(tokens, present), module.product_BD(changed, present))


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    module = Attention(8, heads=2)
    x, onto, mask = torch.randn(3, 4, 8), torch.randn(3, 6, 8), torch.ones(3, 6, dtype=torch.bool)
    mask[0, 3:] = False
    queries = module.query(x)
    keys, values = module.key_value(onto).chunk(2, -1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        scores = queries[..., h] @ keys[..., h].transpose(1, 2) / 4**0.5
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        heads.append(weights @ values[..., h])
    assert torch.allclose(module(x, onto, mask), module.out(torch.cat(heads, -1)), atol=1e-6)


def parity_accuracy(name: str, seed: int = 0) -> float:
    """Train on all eight rows of y = a xor b xor c, one bit a column, and return the accuracy on them.

    This shows whether the fusion can represent the parity.
    """
    bits = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(16, 1)
    label = (bits.sum(1) % 2).float()
    x = torch.stack([bits.float(), 1 - bits.float()], -1) * 2 - 1
    everywhere = torch.ones(len(bits), 1, dtype=torch.bool)
    tokens = {column: Tokens(x[:, k, None], everywhere) for k, column in enumerate("abc")}
    present = dict.fromkeys("abc", everywhere[:, 0])
    torch.manual_seed(seed)
    options = {"layers": 2, "dropout": 0.0} if name == "cross_attention" else {}
    module = fusions.find(name).build(fusions.configure(name, options), dict.fromkeys("abc", 2))
    head = torch.nn.Linear(module.width, 1)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], 3e-3)
    for _ in range(400):
        logits = head(module(tokens, present))[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = head(module.eval()(tokens, present))[:, 0]
    return float(((logits > 0) == (label > 0.5)).float().mean())


@pytest.mark.parametrize("name", fusions.names())
def test_parity_of_order_three(name: str) -> None:
    """An additive fusion is right on at most 3/4 of the eight rows. Every other one represents parity.

    No sum of three functions has the signs of a parity.
    """
    accuracy = parity_accuracy(name)
    if name == "logit_sum":
        assert accuracy <= 0.75
    else:
        assert accuracy == 1.0
