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
def test_what_is_spelled_is_read_again(units: str) -> None:
    made = Spelling.fit(TEXTS, units, "written", 60)  # type: ignore[arg-type]
    again = Spelling.from_state(json.loads(json.dumps(made.state())))
    for text in TEXTS:
        ids = made.encode(text)
        assert min(ids) > NOTHING
        assert made.decode([*ids, NOTHING, NOTHING]) == text
        assert again.encode(text) == ids
        assert again.decode(ids) == text
    assert len(made) in made.encode("zebra"), "what was never seen has the last id"
    assert UNKNOWN in made.decode(made.encode("zebra"))
    assert made.encode("") == []


def test_pieces_of_words_are_fewer_than_letters_and_as_many_as_allowed() -> None:
    letters, pieces = (
        Spelling.fit(TEXTS, "characters", "written", 500),
        Spelling.fit(TEXTS, "subwords", "written", 60),
    )
    assert len(pieces) <= 61
    assert len(pieces.encode(TEXTS[0])) < len(letters.encode(TEXTS[0]))


def test_what_can_be_heard_of_a_text() -> None:
    assert plain("  It’s  5 o'clock – ÄRGER!\n", "spoken") == "it's 5 o'clock ärger"
    assert plain("Ｈｅｌｌｏ", "spoken") == "hello"
    assert plain("  e\u0301 \n b ", "written") == "é b"


def test_ngrams_are_witten_and_bells() -> None:
    """p(i | h) = (c(h i) + N(h) p(i | h')) / (c(h) + N(h)), by hand, from two texts."""
    made = NGrams.fit([[1, 2, 3], [1, 2, 2]], 2, 5)
    # after nothing: 1, 2, 3, end, 1, 2, 2, end: 8 in all, 4 different
    one = (np.array([2, 2, 3, 1, 0]) + 4 / 5) / (8 + 4)
    np.testing.assert_allclose(made.probabilities(())[1], (2 + 1 * one[1]) / (2 + 1))
    # after 2: 3, 2, end
    expected = (np.array([1, 0, 1, 1, 0]) + 3 * one) / (3 + 3)
    np.testing.assert_allclose(made.probabilities((1, 2)), expected)
    np.testing.assert_allclose(
        made.probabilities((4,)), one, err_msg="what was never seen says nothing of what follows"
    )
    for before in ((), (1,), (1, 2), (4, 4, 4)):
        assert made.probabilities(before).sum() == pytest.approx(1)
        again = NGrams.from_state(json.loads(json.dumps(made.state())))
        np.testing.assert_array_equal(again.probabilities(before), made.probabilities(before))
