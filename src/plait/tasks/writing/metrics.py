"""How near a text is to the one that was wanted: error rates by jiwer, BLEU and chrF by sacrebleu. All
of them are made of sums over rows, which are worked out once; a sample of rows then costs next to
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EDITS = ("substitute", "delete", "insert")
CHARACTERS, BETA = 6, 2  # of chrF: the longest n-grams, and how much more recall weighs than precision


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
    """Return for each row the counts of BLEU (10 numbers) and chrF (18), and 1 if it is the same."""
    from sacrebleu.metrics import BLEU

    if not len(wanted):
        return np.zeros((0, 29))
    bleu = BLEU(force=True)  # a text that looks tokenized is no reason for a warning
    rows = []
    for answer, truth in zip(found, wanted, strict=True):
        score = bleu.corpus_score([answer], [[truth]])
        words = [score.sys_len, score.ref_len, *score.counts, *score.totals]
        rows.append([*words, *_character_matches(answer, truth), answer == truth])
    return np.array(rows, dtype=float)


def _character_matches(answer: str, truth: str) -> list[int]:
    """Return for each n up to 6 the number of n-grams of characters in both texts, and how many match."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    ngrams = [extract_all_char_ngrams(text, CHARACTERS, False) for text in (answer, truth)]
    numbers = []
    for of_answer, of_truth in zip(*ngrams, strict=True):
        # without any n-gram to find, those of the answer are no mistakes
        count = of_answer.total() if of_truth else 0
        numbers += [count, of_truth.total(), (of_answer & of_truth).total()]
    return numbers


def similarities(rows: np.ndarray) -> dict[str, float]:
    """Return chrF and BLEU (Papineni et al. 2002), from 0 to 1, and the share of rows that are the same; of
    rows of `overlaps`.
    """
    from sacrebleu.metrics import BLEU

    total = rows.sum(0).astype(int).tolist()
    answer_length, truth_length = total[:2]
    bleu = BLEU.compute_bleu(total[2:6], total[6:10], answer_length, truth_length)
    chrf = _f_score(np.array(total[10:-1]).reshape(CHARACTERS, 3))
    return {"chrf": chrf, "bleu": bleu.score / 100, "exact_match": total[-1] / max(len(rows), 1)}


def _f_score(counts_N3: np.ndarray) -> float:
    """Return chrF from the numbers of n-grams by n: the F score, which weighs recall twice, of the mean
    precision and recall over each n of which both sides have n-grams (Popovic 2015).
    """
    counts_N3 = counts_N3[(counts_N3[:, :2] > 0).all(1)]
    if not len(counts_N3):
        return 0.0
    precision, recall = (counts_N3[:, 2:] / counts_N3[:, :2]).mean(0)
    weighed = BETA**2 * precision + recall
    return float((1 + BETA**2) * precision * recall / weighed) if weighed else 0.0
