"""The decoder and its search, against all texts scored one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from plait.tasks.writing.decoder import SearchOptions, TextDecoder, continuations, search

V = 4  # ids, NOTHING among them


def random_decoder(seed: int) -> TextDecoder:
    torch.manual_seed(seed)
    decoder = TextDecoder(V, 8, 2, 1, 0.0).eval()
    with torch.no_grad():
        decoder.embedding.weight.mul_(3)
        decoder.bias.copy_(torch.randn(V))
    return decoder


def random_memory(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return memory (rows, 3, 8) and its mask. The second row has one token."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return torch.randn(rows, 3, 8, generator=generator), mask[:rows]


def step_of(decoder: TextDecoder, x: Tensor, mask: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def log_p_next(ids: Tensor, rows: Tensor) -> Tensor:
        return decoder(ids, x[rows], mask[rows])[:, -1].log_softmax(-1)

    return log_p_next


def log_probability(decoder: TextDecoder, x: Tensor, mask: Tensor, text: tuple[int, ...]) -> float:
    """Return the log-probability of a text and of its end."""
    ids = torch.tensor([text], dtype=torch.long).view(1, -1)
    log_p = decoder(ids, x, mask)[0].log_softmax(-1)
    return float(sum(log_p[step, unit] for step, unit in enumerate((*text, 0))))


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_text(seed: int, penalty: float) -> None:
    decoder = random_decoder(seed)
    x, mask = random_memory(2, seed)
    texts = search(step_of(decoder, x, mask), 2, SearchOptions(3, beam=100, penalty=penalty))

    all_texts: list[tuple[int, ...]] = []
    for length in range(4):
        all_texts += itertools.product(range(1, V), repeat=length)
    for row in range(2):
        scores = {}
        for text in all_texts:
            log_p = log_probability(decoder, x[row : row + 1], mask[row : row + 1], text)
            scores[text] = log_p / ((5 + len(text)) / 6) ** penalty
        assert tuple(texts[row]) == max(scores, key=scores.__getitem__)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(10))
def test_only_allowed_texts_are_written(seed: int) -> None:
    decoder = random_decoder(seed)
    x, mask = random_memory(2, seed)
    allowed = [[1, 2], [1, 3, 3], [2]]
    options = SearchOptions(5, beam=2, allowed=continuations(allowed))
    for text in search(step_of(decoder, x, mask), 2, options):
        assert text in allowed


@torch.no_grad()
@pytest.mark.parametrize("seed", range(10))
def test_no_sequence_is_written_twice(seed: int) -> None:
    decoder = random_decoder(seed)
    x, mask = random_memory(2, seed)
    options = SearchOptions(12, beam=2, no_repeat=2, penalty=5.0)
    for text in search(step_of(decoder, x, mask), 2, options):
        pairs = list(itertools.pairwise(text))
        assert len(pairs) == len(set(pairs))


@torch.no_grad()
def test_a_step_sees_earlier_ids_and_the_memory_under_the_mask() -> None:
    decoder = random_decoder(0)
    x, mask = random_memory(2)
    first = decoder(torch.tensor([[1, 2, 3]]), x[:1], mask[:1])
    second = decoder(torch.tensor([[1, 2, 1]]), x[:1], mask[:1])
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])

    changed = x.clone()
    changed[1, 1:] += 5
    ids = torch.tensor([[1]])
    torch.testing.assert_close(decoder(ids, x[1:], mask[1:]), decoder(ids, changed[1:], mask[1:]))


@torch.no_grad()
def test_a_text_ends_at_the_longest_length() -> None:
    decoder = random_decoder(0)
    x, mask = random_memory(2)
    decoder.bias[0] = -50.0
    texts = search(step_of(decoder, x, mask), 2, SearchOptions(4, beam=2, penalty=9.0))
    assert [len(text) for text in texts] == [4, 4]
    assert math.isfinite(log_probability(decoder, x[:1], mask[:1], (1, 2)))
