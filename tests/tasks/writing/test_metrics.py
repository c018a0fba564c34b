"""Sums over rows give what jiwer and sacrebleu give for all of them."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from plait.tasks.writing.metrics import edits, error_rates, overlaps, similarities

FOUND = ["a cat sits here now", "x y", "", "hello there", "the same text"]
WANTED = ["a cat sits here", "x z", "no", "hello there my friend", "the same text"]


def test_error_rates_are_jiwers() -> None:
    rates = error_rates(edits(FOUND, WANTED))
    assert rates == {
        "cer": pytest.approx(jiwer.cer(WANTED, FOUND)),
        "wer": pytest.approx(jiwer.wer(WANTED, FOUND)),
        "exact_match": 0.2,
    }
    some = np.array([3, 0, 0])
    found, wanted = ([texts[i] for i in some] for texts in (FOUND, WANTED))
    assert error_rates(edits(FOUND, WANTED)[some])["cer"] == pytest.approx(jiwer.cer(wanted, found))


def test_similarities_are_sacrebleus() -> None:
    rows = overlaps(FOUND, WANTED)
    assert similarities(rows) == {
        "chrf": pytest.approx(CHRF().corpus_score(FOUND, [WANTED]).score / 100),
        "bleu": pytest.approx(BLEU().corpus_score(FOUND, [WANTED]).score / 100),
        "exact_match": 0.2,
    }
    some = np.array([3, 0, 0])
    found, wanted = ([texts[i] for i in some] for texts in (FOUND, WANTED))
    assert similarities(rows[some])["chrf"] == pytest.approx(CHRF().corpus_score(found, [wanted]).score / 100)


def test_no_rows_and_empty_texts_are_measured() -> None:
    assert error_rates(edits([], [])) == {"cer": 0.0, "wer": 0.0, "exact_match": 0.0}
    assert similarities(overlaps([], []))["exact_match"] == 0.0
    assert error_rates(edits(["x"], [""]))["cer"] == 1.0
