"""From what a network says of each step to a text, where each step writes one unit or nothing (Graves
et al. 2006, connectionist temporal classification). V ids, of which `NOTHING`, 0, is the blank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plait.tasks.writing.spelling import NOTHING, NGrams

LEAST = math.log(1e-4)  # of a step's ids those that are less likely are not followed by a beam search


def greedy(log_p_BLV: Tensor, length_B: Tensor) -> list[list[int]]:
    """The likeliest id of each step; of repeated ones one is kept, and no blanks (ib., sec. 3.2, best
    path decoding).
    """
    found = []
    for ids, length in zip(log_p_BLV.argmax(-1).tolist(), length_B.tolist(), strict=True):
        path = ids[: int(length)]
        found.append(
            [i for i, before in zip(path, [NOTHING, *path], strict=False) if i not in (NOTHING, before)]
        )
    return found


@dataclass
class _Prefix:
    """The probabilities, as logarithms, of all paths that write a prefix and end in a blank, or in its
    last unit; `words` is what a language model and the length add.
    """

    blank: float = -math.inf
    unit: float = -math.inf
    words: float = 0.0

    @property
    def score(self) -> float:
        return float(np.logaddexp(self.blank, self.unit)) + self.words


def search(
    log_p_LV: np.ndarray, beam: int, ngrams: NGrams | None = None, weight: float = 0.5, bonus: float = 0.0
) -> list[int]:
    """The likeliest text rather than the likeliest path, by a prefix beam search (Hannun et al. 2014,
    "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs",
    algorithm 1): log p(text | sound) + `weight` log p(text), by a language model, + `bonus` for each
    unit.
    """
    beams: dict[tuple[int, ...], _Prefix] = {(): _Prefix(blank=0.0)}
    for step in log_p_LV:
        followed: dict[tuple[int, ...], _Prefix] = {}
        likely = [
            int(i)
            for i in np.flatnonzero(
                step >= max(LEAST, float(np.sort(step)[-beam - 1]) if beam < len(step) - 1 else LEAST)
            )
        ]
        for prefix, old in beams.items():
            whole = float(np.logaddexp(old.blank, old.unit))
            same = followed.setdefault(prefix, _Prefix(words=old.words))
            same.blank = float(np.logaddexp(same.blank, whole + step[NOTHING]))
            if prefix:
                same.unit = float(np.logaddexp(same.unit, old.unit + step[prefix[-1]]))
            after = None if ngrams is None else ngrams.probabilities(prefix)
            for i in (i for i in likely if i != NOTHING):
                longer = (*prefix, i)
                new = followed.get(longer)
                if new is None:
                    new = followed[longer] = _Prefix(
                        words=old.words + bonus + (0.0 if after is None else weight * math.log(after[i]))
                    )
                new.unit = float(
                    np.logaddexp(new.unit, (old.blank if prefix and prefix[-1] == i else whole) + step[i])
                )
        beams = dict(sorted(followed.items(), key=lambda one: -one[1].score)[:beam])
    if ngrams is not None:
        for prefix, one in beams.items():
            one.words += weight * math.log(ngrams.probabilities(prefix)[NOTHING])
    return list(max(beams.items(), key=lambda one: one[1].score)[0])


def padded(texts: list[list[int]], absent: Tensor, mark: int) -> Tensor:
    """Ids of several texts as one tensor, (B, L), with `NOTHING` behind each; `mark` alone where a row
    is absent.
    """
    found = torch.full((len(texts), max(max(map(len, texts), default=0), 1)), NOTHING, dtype=torch.long)
    for row, ids in enumerate(texts):
        found[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    found[absent.cpu()] = NOTHING
    found[absent.cpu(), 0] = mark
    return found
