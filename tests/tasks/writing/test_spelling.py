"""Texts as ids and back, and what is likely to come next."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plait.tasks.writing.spelling import NOTHING, UNKNOWN, NGrams, Spelling, plain

TEXTS = [
    "a red cat moves left, fast",
    "a blue dog moves left",
    "Ein Köter läuft – schnell!",
    "it's 5 o’clock",
] * 3


@pytest.mark.parametrize("units", ["characters", "subwords"])
def test_ids_of_a_text_give_the_text_again(units: str) -> None:
    spelling = Spelling.fit(TEXTS, units, "written", 60)  # type: ignore[arg-type]
    again = Spelling.from_state(json.loads(json.dumps(spelling.state())))
    for text in TEXTS:
        ids = spelling.encode(text)
        assert min(ids) > NOTHING
        assert spelling.decode([*ids, NOTHING, NOTHING]) == text
        assert again.encode(text) == ids
        assert again.decode(ids) == text
    assert len(spelling) in spelling.encode("zebra"), "what was never seen has the last id"
    assert UNKNOWN in spelling.decode(spelling.encode("zebra"))
    assert spelling.encode("") == []


def test_a_text_has_fewer_subwords_than_letters() -> None:
    letters = Spelling.fit(TEXTS, "characters", "written", 500)
    subwords = Spelling.fit(TEXTS, "subwords", "written", 60)
    assert len(subwords) <= 61
    assert len(subwords.encode(TEXTS[0])) < len(letters.encode(TEXTS[0]))


def test_the_forms_of_a_text() -> None:
    assert plain("  It’s  5 o'clock – ÄRGER!\n", "spoken") == "it's 5 o'clock ärger"
    assert plain("Ｈｅｌｌｏ", "spoken") == "hello"
    assert plain("  e\u0301 \n b ", "written") == "é b"


def test_ngrams_are_witten_and_bells() -> None:
    """p(i | h) = (c(h i) + N(h) p(i | h')) / (c(h) + N(h)), by hand, from two texts."""
    ngrams = NGrams.fit([[1, 2, 3], [1, 2, 2]], 2, 5)
    # after nothing: 1, 2, 3, end, 1, 2, 2, end: 8 in all, 4 different
    unigrams = (np.array([2, 2, 3, 1, 0]) + 4 / 5) / (8 + 4)
    np.testing.assert_allclose(ngrams.probabilities(())[1], (2 + 1 * unigrams[1]) / (2 + 1))
    # after 2: 3, 2, end
    expected = (np.array([1, 0, 1, 1, 0]) + 3 * unigrams) / (3 + 3)
    np.testing.assert_allclose(ngrams.probabilities((1, 2)), expected)
    np.testing.assert_allclose(
        ngrams.probabilities((4,)), unigrams, err_msg="what was never seen says nothing of what follows"
    )
    for before in ((), (1,), (1, 2), (4, 4, 4)):
        assert ngrams.probabilities(before).sum() == pytest.approx(1)
        again = NGrams.from_state(json.loads(json.dumps(ngrams.state())))
        np.testing.assert_array_equal(again.probabilities(before), ngrams.probabilities(before))
