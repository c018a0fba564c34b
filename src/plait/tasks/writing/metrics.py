"""How near a text is to the one that was wanted: error rates by jiwer, BLEU and chrF by sacrebleu. All
of them are made of sums over rows, which are worked out once; a sample of rows then costs next to
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EDITS = ("substitute", "delete", "insert")


def edits(found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """For each row the wrong characters, the wanted ones, the wrong words, the wanted ones, and 1 if it
    is the same: (rows, 5).
    """
    import jiwer

    rows = np.zeros((len(wanted), 5))
    if not len(wanted):
        return rows
    for column, compared in (
        (0, jiwer.process_characters(list(wanted), list(found))),
        (2, jiwer.process_words(list(wanted), list(found))),
    ):
        for row, (steps, reference) in enumerate(zip(compared.alignments, compared.references, strict=True)):
            wrong = sum(
                max(s.ref_end_idx - s.ref_start_idx, s.hyp_end_idx - s.hyp_start_idx)
                for s in steps
                if s.type in EDITS
            )
            rows[row, column : column + 2] = wrong, len(reference)
    rows[:, 4] = [a == b for a, b in zip(found, wanted, strict=True)]
    return rows


def error_rates(rows: np.ndarray) -> dict[str, float]:
    """Character and word error rate, wrong ones over wanted ones, and the share of rows that are the
    same; of rows of `edits`.
    """
    wrong, wanted, wrong_words, words, same = rows.sum(0)
    return {
        "cer": float(wrong / max(wanted, 1)),
        "wer": float(wrong_words / max(words, 1)),
        "exact_match": float(same / max(len(rows), 1)),
    }


def overlaps(found: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """For each row what sacrebleu's BLEU (10 numbers) and chrF are worked out from, and 1 if it is the
    same.
    """
    from sacrebleu.metrics import BLEU, CHRF

    if not len(wanted):
        return np.zeros((0, 29))
    rows = [
        np.array(metric._extract_corpus_statistics(list(found), [list(wanted)]))
        for metric in (BLEU(), CHRF())
    ]
    same = np.array([[a == b] for a, b in zip(found, wanted, strict=True)])
    return np.concatenate([*rows, same], 1).astype(float)


def similarities(rows: np.ndarray) -> dict[str, float]:
    """chrF (Popovic 2015) and BLEU (Papineni et al. 2002), from 0 to 1, and the share of rows that are
    the same; of rows of `overlaps`.
    """
    from sacrebleu.metrics import BLEU, CHRF

    total = rows.sum(0).astype(int).tolist()
    bleu, chrf = BLEU()._compute_score_from_stats(total[:10]), CHRF()._compute_score_from_stats(total[10:-1])
    return {"chrf": chrf.score / 100, "bleu": bleu.score / 100, "exact_match": total[-1] / max(len(rows), 1)}
