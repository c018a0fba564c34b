"""CTC decoding, against all paths counted one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from plait.tasks.writing import ctc
from plait.tasks.writing.spelling import NGrams
from support.paths import texts_of


def random_log_p(steps: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Return log-probabilities of `steps` steps and 4 ids."""
    logits = torch.randn(steps, 4, generator=torch.Generator().manual_seed(seed)).mul(scale)
    return logits.log_softmax(-1).double().numpy()


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_likeliest_text(seed: int) -> None:
    log_p = random_log_p(5, seed, scale=2)
    probabilities = texts_of(log_p)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert tuple(ctc.search(log_p, 60)) == max(probabilities, key=probabilities.__getitem__)


@pytest.mark.parametrize("seed", range(8))
def test_a_language_model_and_the_length_change_the_score(seed: int) -> None:
    log_p = random_log_p(4, seed)
    ngrams = NGrams.fit([[1, 2, 1], [1, 2, 3]], 3, 4)

    scores = {}
    for text, p in texts_of(log_p).items():
        if p > 0:
            words = 0.0
            for end, unit in enumerate((*text, 0)):
                words += math.log(ngrams.probabilities(text[:end])[unit])
            scores[text] = math.log(p) + 0.7 * words + 0.4 * len(text)
    assert tuple(ctc.search(log_p, 200, ngrams, 0.7, 0.4)) == max(scores, key=scores.__getitem__)


def test_the_likeliest_text_may_not_be_the_likeliest_path() -> None:
    """Two paths that write the same are together likelier than the best single one."""
    p = np.array([[0.6, 0.4], [0.6, 0.4]])  # blank, unit: nothing is 0.36 and the unit 0.64
    assert ctc.greedy(torch.from_numpy(np.log(p))[None], torch.tensor([2])) == [[]]
    assert ctc.search(np.log(p), 4) == [1]


def test_repeats_count_once_unless_a_blank_separates_them() -> None:
    path = torch.tensor([1, 1, 0, 1, 2, 2, 3])
    log_p = F.one_hot(path, 4).float().log().clamp(min=-30)[None]
    assert ctc.greedy(log_p, torch.tensor([6])) == [[1, 1, 2]]
    assert ctc.search(log_p[0, :6].numpy(), 4) == [1, 1, 2]
