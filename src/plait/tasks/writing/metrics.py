"""How near a text is to the one that was expected: error rates by jiwer, BLEU and chrF by sacrebleu.

All of them are made of sums over rows. What is added up is computed once; a sample of rows then costs
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
    """What BLEU and chrF are made of: counts of n-grams, (B, 10) and (B, 6, 3)."""

    bleu_B: np.ndarray
    chrf_B: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        """Compare each answer with its label."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(force=True)  # a text that looks tokenized is no reason for a warning
        bleu_B, chrf_B = np.zeros((len(labels), 10), int), np.zeros((len(labels), CHARACTERS, 3), int)
        for row, (answer, label) in enumerate(zip(answers, labels, strict=True)):
            score = bleu.corpus_score([answer], [[label]])
            bleu_B[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
            chrf_B[row] = _character_matches(answer, label)
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
    """Return chrF (Popovic 2015), from 0 to 1.

    It is the F score, which weighs recall twice, of the mean precision and recall over each n of which both
    sides have n-grams.
    """
    counts = rows.chrf_B.sum(0)
    counts = counts[(counts[:, :2] > 0).all(1)]
    if not len(counts):
        return 0.0
    precision, recall = (counts[:, 2:] / counts[:, :2]).mean(0)
    weighted = BETA**2 * precision + recall
    return float((1 + BETA**2) * precision * recall / weighted) if weighted else 0.0


def bleu(rows: OverlapRows) -> float:
    """Return BLEU (Papineni et al. 2002), from 0 to 1, smoothed as sacrebleu's `corpus_score` does."""
    from sacrebleu.metrics import BLEU

    answer_length, label_length, *counts = rows.bleu_B.sum(0).tolist()
    score = BLEU.compute_bleu(counts[:4], counts[4:], answer_length, label_length, smooth_method="exp")
    return float(score.score / 100)


def _edits(compared: CharacterOutput | WordOutput) -> tuple[np.ndarray, np.ndarray]:
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


def _character_matches(answer: str, label: str) -> list[list[int]]:
    """Return for each n up to 6 the n-grams of characters in the answer, in the label, and in both."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    ngrams_of_answer = extract_all_char_ngrams(answer, CHARACTERS, False)
    ngrams_of_label = extract_all_char_ngrams(label, CHARACTERS, False)
    counts = []
    for of_answer, of_label in zip(ngrams_of_answer, ngrams_of_label, strict=True):
        # if the label has no n-gram to find, those of the answer are no mistakes
        count = of_answer.total() if of_label else 0
        counts.append([count, of_label.total(), (of_answer & of_label).total()])
    return counts
