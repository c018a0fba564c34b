"""The decoder and its search, against all texts scored one by one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from plait.tasks.writing.decoder import TextDecoder, only, search

V = 4  # ids, NOTHING among them


def model(seed: int) -> TextDecoder:
    torch.manual_seed(seed)
    made = TextDecoder(V, 8, 2, 1, 0.0).eval()
    with torch.no_grad():
        made.embedding.weight.mul_(3)
        made.bias.copy_(torch.randn(V))
    return made


def memory(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 8, generator=generator), torch.tensor(
        [[True, True, True], [True, False, False]]
    )[:rows]


def steps(made: TextDecoder, x: Tensor, mask: Tensor) -> object:
    return lambda ids, rows: made(ids, x[rows], mask[rows])[:, -1].log_softmax(-1)


def scored(made: TextDecoder, x: Tensor, mask: Tensor, text: tuple[int, ...]) -> float:
    ids = torch.tensor([text], dtype=torch.long).view(1, -1)
    log_p = made(ids, x, mask)[0].log_softmax(-1)
    return float(sum(log_p[i, unit] for i, unit in enumerate((*text, 0))))


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_text(seed: int, penalty: float) -> None:
    made, (x, mask) = model(seed), memory(2, seed)
    found = search(steps(made, x, mask), 2, 3, beam=100, penalty=penalty)
    for row in range(2):
        every = [text for length in range(4) for text in itertools.product(range(1, V), repeat=length)]
        whole = {
            t: scored(made, x[row : row + 1], mask[row : row + 1], t) / ((5 + len(t)) / 6) ** penalty
            for t in every
        }
        assert tuple(found[row]) == max(whole, key=whole.__getitem__)


@torch.no_grad()
def test_only_what_is_allowed_is_written_and_nothing_twice() -> None:
    for seed in range(10):
        made, (x, mask) = model(seed), memory(2, seed)
        texts = [[1, 2], [1, 3, 3], [2]]
        assert all(text in texts for text in search(steps(made, x, mask), 2, 5, beam=2, allowed=only(texts)))
        for text in search(steps(made, x, mask), 2, 12, beam=2, no_repeat=2, penalty=5.0):
            pairs = list(itertools.pairwise(text))
            assert len(pairs) == len(set(pairs))


@torch.no_grad()
def test_a_step_sees_what_was_before_it_and_what_is_remembered() -> None:
    made, (x, mask) = model(0), memory(2)
    one, other = (
        made(torch.tensor([[1, 2, 3]]), x[:1], mask[:1]),
        made(torch.tensor([[1, 2, 1]]), x[:1], mask[:1]),
    )
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3], other[:, 3])
    hidden = x.clone()
    hidden[1, 1:] += 5
    torch.testing.assert_close(
        made(torch.tensor([[1]]), x[1:], mask[1:]), made(torch.tensor([[1]]), hidden[1:], mask[1:])
    )


@torch.no_grad()
def test_longest_is_the_end() -> None:
    made, (x, mask) = model(0), memory(2)
    made.bias[0] = -50.0
    assert [len(text) for text in search(steps(made, x, mask), 2, 4, beam=2, penalty=9.0)] == [4, 4]
    assert math.isfinite(scored(made, x[:1], mask[:1], (1, 2)))
