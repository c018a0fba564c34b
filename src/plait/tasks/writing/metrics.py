"""How near a text is to the one that was expected: error rates by jiwer, BLEU and chrF by sacrebleu.

All of them are made of sums over rows. What is added up is computed once; a sample of rows then costs
next to nothing. B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plait.tasks.base_metrics import ScoredRows

EDITS = ("substitute", "delete", "insert")
CHARACTERS, BETA = 6, 2  # of chrF: the longest n-grams, and how much more recall weighs than precision


@dataclass(frozen=True)
class TextRows(ScoredRows):
    """Rows whose answers are texts: `is_same_B` where the answer is the label."""

    is_same_B: np.ndarray


@dataclass(frozen=True)
class EditedRows(TextRows):
    """What error rates are made of: edits that turn the label into the answer, and the label's length."""

    character_edits_B: np.ndarray
    characters_B: np.ndarray
    word_edits_B: np.ndarray
    words_B: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> EditedRows:
        """Compare each answer with its label."""
        import jiwer

        character_edits_B = characters_B = word_edits_B = words_B = np.zeros(0)
        if len(labels):
            compared = jiwer.process_characters(list(labels), list(answers))
            character_edits_B, characters_B = _edits(compared)
            compared = jiwer.process_words(list(labels), list(answers))
            word_edits_B, words_B = _edits(compared)
        return cls(_same(answers, labels), character_edits_B, characters_B, word_edits_B, words_B)


@dataclass(frozen=True)
class OverlapRows(TextRows):
    """What sacrebleu computes BLEU and chrF from: (B, 10) and (B, 18)."""

    bleu_B: np.ndarray
    chrf_B: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        """Compare each answer with its label."""
        from sacrebleu.metrics import BLEU, CHRF

        bleu_B, chrf_B = np.zeros((0, 10)), np.zeros((0, 18))
        if len(labels):
            bleu_B = np.array(BLEU()._extract_corpus_statistics(list(answers), [list(labels)]))
            chrf_B = np.array(CHRF()._extract_corpus_statistics(list(answers), [list(labels)]))
        return cls(_same(answers, labels), bleu_B, chrf_B)


def exact_match(rows: TextRows) -> float:
    """Return the share of rows whose answer is the label."""
    return float(rows.is_same_B.sum() / max(len(rows.is_same_B), 1))


def cer(rows: EditedRows) -> float:
    """Return the character error rate: edits by the number of characters of all labels."""
    return float(rows.character_edits_B.sum() / max(rows.characters_B.sum(), 1))


def wer(rows: EditedRows) -> float:
    """Return the word error rate: edits by the number of words of all labels."""
    return float(rows.word_edits_B.sum() / max(rows.words_B.sum(), 1))


def chrf(rows: OverlapRows) -> float:
    """Return chrF (Popovic 2015), from 0 to 1."""
    from sacrebleu.metrics import CHRF

    return float(CHRF()._compute_score_from_stats(_total(rows.chrf_B)).score / 100)


def bleu(rows: OverlapRows) -> float:
    """Return BLEU (Papineni et al. 2002), from 0 to 1."""
    from sacrebleu.metrics import BLEU

    return float(BLEU()._compute_score_from_stats(_total(rows.bleu_B)).score / 100)


def _edits(compared: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of edits and the length of the label of each row, as jiwer compared them."""
    edits_B, length_B = np.zeros(len(compared.references)), np.zeros(len(compared.references))
    for row, (chunks, label) in enumerate(zip(compared.alignments, compared.references, strict=True)):
        for chunk in chunks:
            if chunk.type in EDITS:
                deleted = chunk.ref_end_idx - chunk.ref_start_idx
                inserted = chunk.hyp_end_idx - chunk.hyp_start_idx
                edits_B[row] += max(deleted, inserted)
        length_B[row] = len(label)
    return edits_B, length_B


def _same(answers: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    return np.array([answer == label for answer, label in zip(answers, labels, strict=True)], dtype=bool)


def _total(statistics_B: np.ndarray) -> list[int]:
    total: list[int] = statistics_B.sum(0).astype(int).tolist()
    return total
