"""Sums over rows give what jiwer and sacrebleu give for all of them."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from plait.tasks.writing.metrics import EditedRows, OverlapRows, bleu, cer, chrf, exact_match, wer

ANSWERS = ["a cat sits here now", "x y", "", "hello there", "the same text"]
LABELS = ["a cat sits here", "x z", "no", "hello there my friend", "the same text"]
SAMPLE = np.array([3, 0, 0])


def of_sample(texts: list[str]) -> list[str]:
    return [texts[row] for row in SAMPLE]


def test_error_rates_are_jiwers() -> None:
    rows = EditedRows.of(ANSWERS, LABELS)
    assert cer(rows) == pytest.approx(jiwer.cer(LABELS, ANSWERS))
    assert wer(rows) == pytest.approx(jiwer.wer(LABELS, ANSWERS))
    assert exact_match(rows) == 0.2
    assert cer(rows.take(SAMPLE)) == pytest.approx(jiwer.cer(of_sample(LABELS), of_sample(ANSWERS)))


def test_similarities_are_sacrebleus() -> None:
    rows = OverlapRows.of(ANSWERS, LABELS)
    assert chrf(rows) == pytest.approx(CHRF().corpus_score(ANSWERS, [LABELS]).score / 100)
    assert bleu(rows) == pytest.approx(BLEU().corpus_score(ANSWERS, [LABELS]).score / 100)
    assert exact_match(rows) == 0.2
    of_all = CHRF().corpus_score(of_sample(ANSWERS), [of_sample(LABELS)])
    assert chrf(rows.take(SAMPLE)) == pytest.approx(of_all.score / 100)


def test_bleu_without_long_matches_is_smoothed() -> None:
    answers, labels = ["a red cat sleeps", "x"], ["the red dog sleeps", "y"]
    expected = BLEU().corpus_score(answers, [labels]).score / 100
    assert bleu(OverlapRows.of(answers, labels)) == pytest.approx(expected)
    assert expected > 0


def test_no_rows_and_empty_texts_are_measured() -> None:
    rows = EditedRows.of([], [])
    assert (cer(rows), wer(rows), exact_match(rows)) == (0.0, 0.0, 0.0)
    assert exact_match(OverlapRows.of([], [])) == 0.0
    assert cer(EditedRows.of(["x"], [""])) == 1.0
