"""Reading texts off steps, against all paths counted one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plait.tasks.writing import ctc
from plait.tasks.writing.spelling import NGrams
from support.paths import texts_of


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_likeliest_text(seed: int) -> None:
    log_p = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        .mul(2)
        .log_softmax(-1)
        .double()
        .numpy()
    )
    whole = texts_of(log_p)
    assert sum(whole.values()) == pytest.approx(1)
    assert tuple(ctc.search(log_p, 60)) == max(whole, key=whole.__getitem__)


@pytest.mark.parametrize("seed", range(8))
def test_a_language_model_and_the_length_have_their_say(seed: int) -> None:
    log_p = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1).double().numpy()
    ngrams = NGrams.fit([[1, 2, 1], [1, 2, 3]], 3, 4)

    def score(text: tuple[int, ...], p: float) -> float:
        words = sum(math.log(ngrams.probabilities(text[:i])[unit]) for i, unit in enumerate((*text, 0)))
        return math.log(p) + 0.7 * words + 0.4 * len(text)

    whole = {text: score(text, p) for text, p in texts_of(log_p).items() if p > 0}
    assert tuple(ctc.search(log_p, 200, ngrams, 0.7, 0.4)) == max(whole, key=whole.__getitem__)


def test_the_beam_is_not_the_path() -> None:
    """Two paths that write the same are together likelier than the best single one."""
    p = np.array([[0.6, 0.4], [0.6, 0.4]])  # blank, unit: nothing is 0.36 and the unit 0.64
    assert ctc.greedy(torch.from_numpy(np.log(p))[None], torch.tensor([2])) == [[]]
    assert ctc.search(np.log(p), 4) == [1]


def test_repeats_are_one_unless_a_blank_parts_them_and_padding_is_not_read() -> None:
    path = torch.tensor([1, 1, 0, 1, 2, 2, 3])
    log_p = F.one_hot(path, 4).float().log().clamp(min=-30)[None]
    assert ctc.greedy(log_p, torch.tensor([6])) == [[1, 1, 2]]
    assert ctc.search(log_p[0, :6].numpy(), 4) == [1, 1, 2]
