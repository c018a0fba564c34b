"""Measure how near predicted texts are to their references: error rates by jiwer, BLEU and chrF by sacrebleu.

All of them are computed from sums over rows. So the counts of each row are computed once, and metrics of any
sample of rows then cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

EDITS = ("substitute", "delete", "insert")


def edits(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Count the edits of each row, (rows, 5).

    The columns are wrong characters, characters of the reference, wrong words, words of the reference, and
    1 if both texts are the same.
    """
    import jiwer

    rows = np.zeros((len(references), 5))
    if not len(references):
        return rows
    rows[:, 0:2] = _count_edits(jiwer.process_characters(list(references), list(predictions)))
    rows[:, 2:4] = _count_edits(jiwer.process_words(list(references), list(predictions)))
    rows[:, 4] = _is_same(predictions, references)
    return rows


def _count_edits(compared: Any) -> np.ndarray:
    """Return, for each row of jiwer's output, the wrong units and those of the reference, (rows, 2)."""
    counts = []
    for steps, reference in zip(compared.alignments, compared.references, strict=True):
        wrong = 0
        for step in steps:
            if step.type in EDITS:
                reference_units = step.ref_end_idx - step.ref_start_idx
                predicted_units = step.hyp_end_idx - step.hyp_start_idx
                wrong += max(reference_units, predicted_units)
        counts.append((wrong, len(reference)))
    return np.array(counts)


def _is_same(predictions: Sequence[str], references: Sequence[str]) -> list[bool]:
    return [first == second for first, second in zip(predictions, references, strict=True)]


def error_rates(rows: np.ndarray) -> dict[str, float]:
    """Return the character and word error rates and the share of exact matches, from rows of `edits`.

    An error rate is the number of wrong units over the number of units in the references.
    """
    wrong, characters, wrong_words, words, same = rows.sum(0)
    return {
        "cer": float(wrong / max(characters, 1)),
        "wer": float(wrong_words / max(words, 1)),
        "exact_match": float(same / max(len(rows), 1)),
    }


def overlaps(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return what sacrebleu computes BLEU (10 numbers) and chrF (18) from, and 1 for an exact match.

    The shape is (rows, 29).
    """
    from sacrebleu.metrics import BLEU, CHRF

    if not len(references):
        return np.zeros((0, 29))
    statistics = []
    for metric in (BLEU(), CHRF()):
        counts = metric._extract_corpus_statistics(list(predictions), [list(references)])
        statistics.append(np.array(counts))
    same = np.array(_is_same(predictions, references))[:, None]
    return np.concatenate([*statistics, same], 1).astype(float)


def similarities(rows: np.ndarray) -> dict[str, float]:
    """Return chrF (Popovic 2015), BLEU (Papineni et al. 2002) and the share of exact matches, from 0 to 1.

    `rows` are those of `overlaps`.
    """
    from sacrebleu.metrics import BLEU, CHRF

    total = rows.sum(0).astype(int).tolist()
    bleu = BLEU()._compute_score_from_stats(total[:10])
    chrf = CHRF()._compute_score_from_stats(total[10:-1])
    return {
        "chrf": chrf.score / 100,
        "bleu": bleu.score / 100,
        "exact_match": total[-1] / max(len(rows), 1),
    }
