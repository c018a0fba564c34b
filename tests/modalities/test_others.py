"""What is particular to texts, numbers, categories, dates and vectors."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plait.modalities.base import modalities
from plait.modalities.number import piecewise_linear
from plait.modalities.text import Config, Text, hashed_ngrams
from plait.table.table import Source

SOURCE = Source("c", Path())


def fit(name: str, cells: list[Any], **options: Any) -> Any:
    return modalities.find(name).fit(modalities.configure(name, options), pa.chunked_array([pa.array(cells)]))


def load(modality: Any, cells: list[Any]) -> Any:
    return modality.load(pa.chunked_array([pa.array(cells)]), SOURCE)


TEXTS = [
    "我在北京看见一只猫。",
    "مرحبا بالعالم",
    "👩‍👩‍👧 is a family, 🍎 an apple",
    "Straße naïve coöperate",
    "שלום",
    "ひらがなとカタカナ",
    "हिन्दी",
    "a\tb\nc",
]


def test_any_script_survives_the_round_trip() -> None:
    modality = fit("text", ["plain english only, nothing else"] * 5, lowercase=False, max_tokens=200)
    for text in [*TEXTS, "MiXed CaSe"]:
        values = load(modality, [text]).values
        assert modality.decode(values.x[0, : values.length_B[0]].tolist()) == text


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("outlier", [5.0, 1e60, 1.7e308])
def test_a_number_itself_is_one_that_can_be_squared(outlier: float) -> None:
    cells = [*np.linspace(0, 1, 50).tolist(), outlier, None]
    modality = fit("number", cells)
    raw = modality.raw(load(modality, cells).values)
    assert raw.square().sum().isfinite()
    steps = raw[:40].diff(dim=0)  # the last bin reaches to the outlier
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-3, atol=0)


def test_names_of_special_tokens_are_text_like_any_other() -> None:
    modality = fit("text", ["one two three"] * 3)
    for text_modality in (modality, Text.from_state(modality.config, modality.state())):
        values = load(text_modality, ["a <pad> and <unk>"]).values
        assert values.x.min() > 1
        assert text_modality.decode(values.x[0].tolist()) == "a <pad> and <unk>"


@given(st.text(min_size=1, max_size=40))
@example("<unk>")
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_text_is_its_normal_form(text: str) -> None:
    import unicodedata

    modality = _PLAIN
    values = load(modality, [text]).values
    if values.length_B[0]:
        decoded = modality.decode(values.x[0, : values.length_B[0]].tolist())
        assert decoded.strip() == unicodedata.normalize("NFC", text).strip()


_PLAIN = fit("text", ["one two three"] * 3, lowercase=False, max_tokens=400)


def test_composed_and_decomposed_letters_are_the_same() -> None:
    for split in ("subword", "word", "character", "ngrams"):
        modality = fit("text", ["caf\u00e9 au lait"] * 3, split=split)
        assert torch.equal(load(modality, ["caf\u00e9"]).values.x, load(modality, ["cafe\u0301"]).values.x)


def test_the_tokenizer_sees_training_rows_only() -> None:
    modality = fit("text", ["known words only"] * 5, split="word")
    assert load(modality, ["known secret words"]).values.x[0].tolist()[1] == 1  # the unknown token


def test_ngrams_of_a_word_do_not_depend_on_its_neighbours() -> None:
    config = Config(split="ngrams", vocabulary=1_000_000)
    word, text = hashed_ngrams(["frog", "a green frog sat"], config)
    assert set(word) <= set(text)
    assert len(word) == 1 + 5 + 4 + 3 + 2  # the word; 2 to 5 characters of " frog "
    with_an_empty_text = hashed_ngrams(["frog", "", "a green frog sat"], config)
    assert np.array_equal(with_an_empty_text[0], word)
    assert len(with_an_empty_text[1]) == 0
    assert np.array_equal(with_an_empty_text[2], text)


def test_numbers_are_scaled_robustly_and_bounded() -> None:
    x = [float(i) for i in range(101)]
    modality = fit("number", [*x, 1e12], embedding="none")
    values = load(modality, [50.5, 50.5 + modality.spread, 1e15, -1e15]).values.x[:, 0]
    assert values[0] == 0
    assert values[1] == pytest.approx(1 / (1 + 1 / 9) ** 0.5)
    assert values[2] == pytest.approx(3)
    assert values[3] == pytest.approx(-3)


def test_piecewise_linear_encoding_is_equation_1_of_gorishniy() -> None:
    edges = np.array([0.0, 1.0, 3.0, 7.0])
    encoded = piecewise_linear(np.array([-1.0, 0.5, 1.0, 2.0, 5.0, 9.0]), edges)
    assert encoded.tolist() == [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0.5, 0], [1, 1, 0.5], [1, 1, 1]]


def test_unseen_categories_have_an_index_of_their_own() -> None:
    modality = fit("category", ["a", "b", "a"])
    loaded = load(modality, ["b", "new", None])
    assert loaded.values.x.tolist() == [2, 0, 0]
    assert loaded.present.tolist() == [True, True, False]


@pytest.mark.parametrize("cells", [[1e306, -1e308, 0.0, 1.7e308], [1e-310, 2e-310, 3e-310, 1e300]])
def test_numbers_of_any_size_have_finite_features(cells: list[float]) -> None:
    modality = fit("number", cells * 10)
    values = load(modality, cells).values
    assert torch.isfinite(values.x).all()
    assert torch.isfinite(modality.raw(values)).all()


def test_an_outlier_beyond_float32_leaves_a_straight_line() -> None:
    cells = [float(i) for i in range(100)]
    modality = fit("number", [*cells, 1e60])
    line = modality.raw(load(modality, [10.0, 20.0, 30.0, 1e60]).values)[:, 0].tolist()
    assert line[1] - line[0] == pytest.approx(line[2] - line[1], rel=1e-3)
    assert line[2] < line[3] < 1e18


def test_a_huge_number_is_far_out_not_at_the_middle() -> None:
    modality = fit("number", [float(i) for i in range(101)], embedding="none")
    assert load(modality, [1e200, -1e300]).values.x[:, 0].tolist() == pytest.approx([3, -3])


def test_a_category_has_no_spaces_at_its_ends() -> None:
    modality = fit("category", ["red", "blue ", "red"])
    assert load(modality, [" red", "blue"]).values.x.tolist() == [1, 2]


def days(*cells: str) -> list[datetime.datetime]:
    return [datetime.datetime.fromisoformat(cell) for cell in cells]


def test_dates_know_the_day_of_the_week() -> None:
    modality = fit("datetime", days("2023-12-31", "2024-01-01"))
    monday, next_monday = load(modality, days("2024-01-01", "2024-01-08")).values.x
    assert torch.allclose(monday[5:7], next_monday[5:7], atol=1e-6)


def test_cycles_can_be_left_out() -> None:
    modality = fit("datetime", days("2024-01-01", "2024-02-01"), cycles=False)
    assert load(modality, days("2024-01-15")).values.x.shape == (1, 1)


def test_a_date_for_never_does_not_stretch_the_span() -> None:
    cells = days(*["2024-01-01", "2024-07-01", "2025-01-01"] * 20, "9999-12-31")
    modality = fit("datetime", cells)
    x = load(modality, cells).values.x[:, 0]
    assert x[:3].tolist() == pytest.approx([-1, 0, 1], abs=0.01)
    assert x[-1] == 3


def test_vectors_are_scaled_as_asked() -> None:
    cells = [[3.0, 4.0], [6.0, 8.0]]
    assert load(fit("vector", cells, scaling="unit"), cells).values.x[1].tolist() == pytest.approx([0.6, 0.8])
    assert load(fit("vector", cells, scaling="none"), cells).values.x.tolist() == cells
    assert load(fit("vector", cells), cells).values.x.tolist() == [[-1, -1], [1, 1]]


def test_vectors_of_another_length_are_named() -> None:
    modality = fit("vector", [[1.0, 2.0], [3.0, 5.0]])
    loaded = load(modality, [[1.0, 2.0], [1.0], [float("nan"), 1.0]])
    assert loaded.present.tolist() == [True, False, False]
    assert [p.reason for p in loaded.problems] == [
        "expected 2 finite numbers, got 1",
        "expected 2 finite numbers, got one that is not finite",
    ]


def test_the_time_of_a_day_is_a_turn_of_the_circle() -> None:
    cells = [datetime.datetime(2024, 1, 1, 12), None, datetime.datetime(2025, 1, 1)]
    x = load(fit("datetime", cells), cells).values.x
    assert x[0, 0] == -1
    assert x[2, 0] == 1
    noon = x[0, 7:9]
    assert torch.allclose(noon, torch.tensor([0.0, -1.0]), atol=1e-6)
