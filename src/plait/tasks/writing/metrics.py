"""How near a text is to the one that was expected: error rates by jiwer, BLEU and chrF by sacrebleu.

All of them are made of sums over rows. What is added up is computed once; a sample of rows then costs
next to nothing. B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
            character_edits_B, characters_B = _edits(compared.alignments), _lengths(compared.references)
            compared = jiwer.process_words(list(labels), list(answers))
            word_edits_B, words_B = _edits(compared.alignments), _lengths(compared.references)
        return cls(_same(answers, labels), character_edits_B, characters_B, word_edits_B, words_B)


@dataclass(frozen=True)
class OverlapRows(TextRows):
    """What BLEU and chrF are made of.

    `words_B` has each answer's and label's number of words, and for n up to 4 how many n-grams of words
    match and how many the answer has: (B, 10). `characters_B` has for n up to 6 the number of n-grams of
    characters of the answer and of the label, and how many match: (B, 18).
    """

    words_B: np.ndarray
    characters_B: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> OverlapRows:
        """Compare each answer with its label."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(force=True)  # a text that looks tokenized is no reason for a warning
        words_B, characters_B = np.zeros((len(labels), 10)), np.zeros((len(labels), 3 * CHARACTERS))
        for row, (answer, label) in enumerate(zip(answers, labels, strict=True)):
            score = bleu.corpus_score([answer], [[label]])
            words_B[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
            characters_B[row] = _character_matches(answer, label)
        return cls(_same(answers, labels), words_B, characters_B)


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
    """Return chrF, from 0 to 1 (Popovic 2015).

    It is the F score, which weighs recall twice, of the mean precision and recall over each n of which
    both sides have n-grams of characters.
    """
    counts_N3 = rows.characters_B.sum(0).reshape(CHARACTERS, 3)
    counts_N3 = counts_N3[(counts_N3[:, :2] > 0).all(1)]
    if not len(counts_N3):
        return 0.0
    precision, recall = (counts_N3[:, 2:] / counts_N3[:, :2]).mean(0)
    weighed = BETA**2 * precision + recall
    return float((1 + BETA**2) * precision * recall / weighed) if weighed else 0.0


def bleu(rows: OverlapRows) -> float:
    """Return BLEU, from 0 to 1 (Papineni et al. 2002), smoothed as sacrebleu does by itself."""
    from sacrebleu.metrics import BLEU

    answer_length, label_length, *matches = rows.words_B.sum(0).astype(int).tolist()
    score = BLEU.compute_bleu(matches[:4], matches[4:], answer_length, label_length, smooth_method="exp")
    return float(score.score / 100)


def _character_matches(answer: str, label: str) -> list[int]:
    """Return for each n up to 6 the number of n-grams of characters in both texts, and how many match."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    ngrams = [extract_all_char_ngrams(text, CHARACTERS, False) for text in (answer, label)]
    numbers = []
    for of_answer, of_label in zip(*ngrams, strict=True):
        # without any n-gram to find, those of the answer are no mistakes
        count = of_answer.total() if of_label else 0
        numbers += [count, of_label.total(), (of_answer & of_label).total()]
    return numbers


class Chunk(Protocol):
    """A stretch of a label and the stretch of its answer, as jiwer aligns them."""

    type: str
    ref_start_idx: int
    ref_end_idx: int
    hyp_start_idx: int
    hyp_end_idx: int


def _edits(alignments: Sequence[Sequence[Chunk]]) -> np.ndarray:
    """Return how many edits turn each label into its answer."""
    edits_B = np.zeros(len(alignments))
    for row, chunks in enumerate(alignments):
        for chunk in chunks:
            if chunk.type in EDITS:
                deleted = chunk.ref_end_idx - chunk.ref_start_idx
                inserted = chunk.hyp_end_idx - chunk.hyp_start_idx
                edits_B[row] += max(deleted, inserted)
    return edits_B


def _lengths(texts: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([len(text) for text in texts], dtype=float)


def _same(answers: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    return np.array([answer == label for answer, label in zip(answers, labels, strict=True)], dtype=bool)
