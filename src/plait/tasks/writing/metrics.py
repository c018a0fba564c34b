"""Measure how near a text is to its label: error rates by jiwer, BLEU and chrF by sacrebleu.

All metrics are made of sums over rows. What is added up is computed once. A sample of rows then costs
next to nothing. B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plait.tasks.base_metrics import ScoredRows

if TYPE_CHECKING:
    from jiwer import CharacterOutput, WordOutput

# The kinds of jiwer's chunks that are mistakes. The other kind is "equal".
EDITS = ("substitute", "delete", "insert")

# Of chrF: the longest n-grams, and how much more recall weighs than precision.
CHARACTERS, BETA = 6, 2


@dataclass(frozen=True)
class TextRows(ScoredRows):
    """Rows whose answers are texts: `is_same_B` where the answer is the label."""

    is_same_B: np.ndarray


@dataclass(frozen=True)
class EditedRows(TextRows):
    """The edits that turn each row's label into its answer, and the label's length. Error rates need both."""

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
    """Counts of n-grams, of which BLEU and chrF are made.

    `bleu_B` (B, 10) has both lengths, the matches of n = 1 to 4, and the n-grams of the answer. `chrf_B`
    (B, 6, 3) has the rows of `_character_matches`.
    """

    bleu_B: np.ndarray
    chrf_B: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        """Compare each answer with its label."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(force=True)  # a text that looks tokenized is no reason for a warning
        rows = len(labels)
        bleu_B = np.zeros((rows, 10), int)
        chrf_B = np.zeros((rows, CHARACTERS, 3), int)
        for row, (answer, label) in enumerate(zip(answers, labels, strict=True)):
            score = bleu.corpus_score([answer], [[label]])
            bleu_B[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
            chrf_B[row] = _character_matches(answer, label)
        return cls(_same(answers, labels), bleu_B, chrf_B)


def exact_match(rows: TextRows) -> float:
    """Return the share of rows whose answer is the label."""
    count = max(len(rows.is_same_B), 1)
    return float(rows.is_same_B.sum() / count)


def cer(rows: EditedRows) -> float:
    """Return the character error rate: edits over the number of characters of all labels."""
    characters = max(rows.characters_B.sum(), 1)
    return float(rows.character_edits_B.sum() / characters)


def wer(rows: EditedRows) -> float:
    """Return the word error rate: edits over the number of words of all labels."""
    words = max(rows.words_B.sum(), 1)
    return float(rows.word_edits_B.sum() / words)


def chrf(rows: OverlapRows) -> float:
    """Return chrF (Popovic 2015), from 0 to 1.

    Precision and recall are means over each n of which both sides have n-grams. chrF is their F score, which
    weighs recall twice.
    """
    counts = rows.chrf_B.sum(0)
    both_have = (counts[:, :2] > 0).all(1)
    counts = counts[both_have]
    if not len(counts):
        return 0.0

    # The n-grams that both have, over those of the answer (precision) and of the label (recall).
    shares = counts[:, 2:] / counts[:, :2]
    precision, recall = shares.mean(0)
    weighted = BETA**2 * precision + recall
    if not weighted:
        return 0.0
    return float((1 + BETA**2) * precision * recall / weighted)


def bleu(rows: OverlapRows) -> float:
    """Return BLEU (Papineni et al. 2002), from 0 to 1, smoothed as sacrebleu's `corpus_score` does."""
    from sacrebleu.metrics import BLEU

    answer_length, label_length, *counts = rows.bleu_B.sum(0).tolist()
    score = BLEU.compute_bleu(counts[:4], counts[4:], answer_length, label_length, smooth_method="exp")
    return float(score.score / 100)


def _edits(compared: CharacterOutput | WordOutput) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of edits and the length of the label of each row, as jiwer compared them."""
    rows = len(compared.references)
    edits_B = np.zeros(rows)
    length_B = np.zeros(rows)
    for row in range(rows):
        length_B[row] = len(compared.references[row])
        for chunk in compared.alignments[row]:
            if chunk.type not in EDITS:
                continue

            # A substitution has as many units on both sides. The other edits have units on one side.
            deleted = chunk.ref_end_idx - chunk.ref_start_idx
            inserted = chunk.hyp_end_idx - chunk.hyp_start_idx
            edits_B[row] += max(deleted, inserted)
    return edits_B, length_B


def _same(answers: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return True where an answer is its label, (B,)."""
    pairs = zip(answers, labels, strict=True)
    return np.array([answer == label for answer, label in pairs], dtype=bool)


def _character_matches(answer: str, label: str) -> list[list[int]]:
    """Count n-grams of characters: for each n up to 6, those of the answer, of the label, and of both."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    ngrams_of_answer = extract_all_char_ngrams(answer, CHARACTERS, False)
    ngrams_of_label = extract_all_char_ngrams(label, CHARACTERS, False)
    counts = []
    for of_answer, of_label in zip(ngrams_of_answer, ngrams_of_label, strict=True):
        # A label that is too short for n-grams makes those of the answer no mistakes.
        count = of_answer.total() if of_label else 0
        in_both = of_answer & of_label
        counts.append([count, of_label.total(), in_both.total()])
    return counts
