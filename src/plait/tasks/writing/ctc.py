"""Decode CTC: from the probabilities of each step to a text. Each step writes one unit or nothing.

See Graves et al. 2006, "Connectionist temporal classification".
B rows, L steps, V ids, of which `NOTHING`, 0, is the blank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plait.tasks.writing.spelling import NOTHING, NGrams

# The beam search follows no id that is less likely than this.
MIN_LOG_P = math.log(1e-4)


def greedy(log_p_BLV: Tensor, length_B: Tensor) -> list[list[int]]:
    """Return the text of the likeliest path: repeated ids count once, and blanks are left out.

    This is best path decoding (ib., sec. 3.2). `length_B` is the number of valid steps.
    """
    paths = log_p_BLV.argmax(-1).tolist()
    lengths = length_B.tolist()
    texts = []
    for path, length in zip(paths, lengths, strict=True):
        text = []
        previous = NOTHING
        for unit in path[: int(length)]:
            if unit not in (NOTHING, previous):
                text.append(unit)
            previous = unit
        texts.append(text)
    return texts


@dataclass
class _Prefix:
    """Log-probabilities of all paths that write a prefix and end in a blank, or in its last unit.

    `words` is what the language model and the bonus for the length add.
    """

    blank: float = -math.inf
    unit: float = -math.inf
    words: float = 0.0

    @property
    def paths(self) -> float:
        """Return the log-probability of all paths that write the prefix."""
        return float(np.logaddexp(self.blank, self.unit))

    @property
    def score(self) -> float:
        """Return what prefixes are ranked by."""
        return self.paths + self.words


_Beams = dict[tuple[int, ...], _Prefix]


@dataclass(frozen=True)
class _WordModel:
    """What a unit adds to a prefix's score besides its paths: the language model's part, and a bonus."""

    ngrams: NGrams | None
    weight: float
    bonus: float

    def words_after(self, old: float, prefix: tuple[int, ...], units: list[int]) -> list[float]:
        """Return the `words` of a prefix, `old` so far, after each of these units is added to it."""
        if self.ngrams is None:
            return [old + self.bonus] * len(units)
        p_V = self.ngrams.probabilities(prefix)
        words = []
        for unit in units:
            log_p = math.log(p_V[unit])
            words.append(old + self.bonus + self.weight * log_p)
        return words


def search(
    log_p_LV: np.ndarray, beam: int, ngrams: NGrams | None = None, weight: float = 0.5, bonus: float = 0.0
) -> list[int]:
    """Return the likeliest text rather than the likeliest path, by a prefix beam search.

    A text's score is log p(text | audio) + `weight` log p(text) + `bonus` for each unit, where p(text) is
    the language model's (Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition
    using bi-directional recurrent DNNs", algorithm 1).
    """
    word_model = _WordModel(ngrams, weight, bonus)
    beams: _Beams = {(): _Prefix(blank=0.0)}
    for log_p_V in log_p_LV:
        units = _likely_units(log_p_V, beam)
        extended = _extended(beams, log_p_V, units, word_model)
        ranked = sorted(extended.items(), key=_score, reverse=True)
        beams = dict(ranked[:beam])

    # A text may stop where training texts stop. In the middle of a phrase this is less likely.
    if ngrams is not None:
        for prefix, state in beams.items():
            p_end = ngrams.probabilities(prefix)[NOTHING]
            state.words += weight * math.log(p_end)
    best_prefix, _ = max(beams.items(), key=_score)
    return list(best_prefix)


def _score(entry: tuple[tuple[int, ...], _Prefix]) -> float:
    """Return what an entry of `_Beams` is ranked by."""
    _, state = entry
    return state.score


def _likely_units(log_p_V: np.ndarray, beam: int) -> list[int]:
    """Return the units that one step of the search follows: about `beam` of the likeliest."""
    threshold = MIN_LOG_P
    if beam < len(log_p_V) - 1:
        # One more than `beam`, because the blank may be among the likeliest.
        log_p_of_last = np.sort(log_p_V)[-beam - 1]
        threshold = max(threshold, float(log_p_of_last))
    likely = np.flatnonzero(log_p_V >= threshold)
    return [int(unit) for unit in likely if unit != NOTHING]


def _extended(beams: _Beams, log_p_V: np.ndarray, units: list[int], word_model: _WordModel) -> _Beams:
    """Return all prefixes after one more step: each as it was, and each with one of these units added."""
    extended: _Beams = {}
    for prefix, old in beams.items():
        # The step writes a blank, or the last unit once more: the prefix stays.
        same = extended.setdefault(prefix, _Prefix(words=old.words))
        log_p_blank = old.paths + log_p_V[NOTHING]
        same.blank = float(np.logaddexp(same.blank, log_p_blank))
        if prefix:
            log_p_repeated = old.unit + log_p_V[prefix[-1]]
            same.unit = float(np.logaddexp(same.unit, log_p_repeated))

        words_after = word_model.words_after(old.words, prefix, units)
        for unit, words in zip(units, words_after, strict=True):
            longer = (*prefix, unit)
            new = extended.setdefault(longer, _Prefix(words=words))

            # Only a blank separates a unit from the same unit before it.
            is_repeated = bool(prefix) and prefix[-1] == unit
            before = old.blank if is_repeated else old.paths
            log_p_longer = before + log_p_V[unit]
            new.unit = float(np.logaddexp(new.unit, log_p_longer))
    return extended


def padded(texts: list[list[int]], absent: Tensor, mark: int) -> Tensor:
    """Return ids of several texts as one tensor, (B, L), with `NOTHING` behind each.

    A row that is absent has `mark` as its first id.
    """
    # One unit at least, so that there is a place for the mark.
    longest = max(map(len, texts), default=0)
    units = max(longest, 1)
    ids_BL = torch.full((len(texts), units), NOTHING, dtype=torch.long)
    for row, ids in enumerate(texts):
        ids_BL[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)

    absent_B = absent.cpu()
    ids_BL[absent_B] = NOTHING
    ids_BL[absent_B, 0] = mark
    return ids_BL
