"""Sums over rows give what jiwer and sacrebleu give for all of them."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from plait.tasks.writing.metrics import edits, error_rates, overlaps, similarities

PREDICTIONS = ["a cat sits here now", "x y", "", "hello there", "the same text"]
REFERENCES = ["a cat sits here", "x z", "no", "hello there my friend", "the same text"]

SAMPLE = np.array([3, 0, 0])  # rows of a bootstrap sample


def sampled(texts: list[str]) -> list[str]:
    return [texts[row] for row in SAMPLE]


def test_error_rates_are_jiwers() -> None:
    rates = error_rates(edits(PREDICTIONS, REFERENCES))
    assert rates == {
        "cer": pytest.approx(jiwer.cer(REFERENCES, PREDICTIONS)),
        "wer": pytest.approx(jiwer.wer(REFERENCES, PREDICTIONS)),
        "exact_match": 0.2,
    }

    predictions, references = sampled(PREDICTIONS), sampled(REFERENCES)
    rates = error_rates(edits(PREDICTIONS, REFERENCES)[SAMPLE])
    assert rates["cer"] == pytest.approx(jiwer.cer(references, predictions))


def test_similarities_are_sacrebleus() -> None:
    rows = overlaps(PREDICTIONS, REFERENCES)
    assert similarities(rows) == {
        "chrf": pytest.approx(CHRF().corpus_score(PREDICTIONS, [REFERENCES]).score / 100),
        "bleu": pytest.approx(BLEU().corpus_score(PREDICTIONS, [REFERENCES]).score / 100),
        "exact_match": 0.2,
    }

    predictions, references = sampled(PREDICTIONS), sampled(REFERENCES)
    chrf = CHRF().corpus_score(predictions, [references]).score
    assert similarities(rows[SAMPLE])["chrf"] == pytest.approx(chrf / 100)


def test_no_rows_and_empty_texts_are_measured() -> None:
    assert error_rates(edits([], [])) == {"cer": 0.0, "wer": 0.0, "exact_match": 0.0}
    assert similarities(overlaps([], []))["exact_match"] == 0.0
    assert error_rates(edits(["x"], [""]))["cer"] == 1.0
