"""Statistics of cells, which are not trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

import plait
from plait.encoders import bag, crnn
from plait.model.column import ColumnEncoder
from plait.nn.batch import Layout, Values
from plait.nn.summaries import Statistics
from support import tiny_models
from support.answers import assert_same_embeddings
from support.tables import make_rows, write_csv


def texts(rows: int = 40) -> Values:
    generator = torch.Generator().manual_seed(0)
    length_B = torch.randint(3, 9, (rows,), generator=generator)
    ids = torch.randint(1, 30, (rows, 8), generator=generator)
    return Values(ids * (torch.arange(8) < length_B[:, None]), length_B)


def test_texts_have_the_main_directions_of_their_tfidf() -> None:
    values = texts()
    statistics = Statistics(Layout("bag", (8,), 30))
    statistics.fit([values.take(torch.arange(25)), values.take(torch.arange(25, 40))])
    words = []
    for row, length in zip(values.x.tolist(), values.length_B.tolist(), strict=True):
        words.append(" ".join(f"w{i}" for i in row[:length]))
    expected = TfidfVectorizer(sublinear_tf=True).fit_transform(words).toarray()
    scale = statistics.scale.where(statistics.scale > 0, 1)
    directions = (statistics(values) / scale + statistics.mean).numpy()

    # All directions of 29 words but one: the products of two texts are nearly those of their TF-IDF.
    np.testing.assert_allclose(directions @ directions.T, expected @ expected.T, atol=0.02)
    torch.testing.assert_close(statistics(values).mean(0), torch.zeros(statistics.width), atol=1e-5, rtol=0)
    torch.testing.assert_close(statistics(values).square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(statistics(values.take(torch.tensor([7, 7]))), statistics(values)[[7, 7]])


def test_a_text_of_unknown_words_or_none_has_no_direction() -> None:
    statistics = Statistics(Layout("tokens", (4,), 90))
    statistics.fit([texts()])
    numbers = statistics(Values(torch.tensor([[80, 81, 0], [0, 0, 0]]), torch.tensor([2, 0])))
    torch.testing.assert_close(numbers, (-statistics.mean * statistics.scale).expand(2, -1))


DRAWN = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=DRAWN)


@pytest.mark.parametrize(
    ("layout", "cells"),
    [
        (Layout("spectrogram", (20, 6)), Values(drawn(9, 20, 6), torch.arange(12, 21))),
        (Layout("wave", (3000,)), Values(drawn(9, 3000), torch.arange(2200, 3001, 100))),
        (Layout("grid", (3, 20, 20)), Values(drawn(9, 3, 20, 20))),
        (
            Layout("frames", (5, 3, 16, 16)),
            Values(drawn(9, 5, 3, 16, 16), torch.tensor([5, 4, 3, 2, 1, 5, 5, 5, 5])),
        ),
        (Layout("vector", (4,)), Values(drawn(9, 4))),
    ],
)
def test_other_cells_have_numbers_of_mean_0_and_deviation_1(layout: Layout, cells: Values) -> None:
    statistics = Statistics(layout)
    assert not statistics(cells).any(), "before anything is fitted"
    statistics.fit([cells.take(torch.arange(4)), cells.take(torch.arange(4, 9))])
    numbers = statistics(cells)
    assert numbers.shape == (9, statistics.width)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(statistics.width), atol=1e-4, rtol=0)
    spread = numbers.std(0, correction=0)
    torch.testing.assert_close(spread[spread > 0], torch.ones(int((spread > 0).sum())), atol=1e-3, rtol=0)
    torch.testing.assert_close(statistics(cells.take(torch.tensor([0]))), numbers[:1], atol=1e-4, rtol=1e-3)
    nothing = cells.take(torch.tensor([], dtype=torch.long))
    assert statistics(nothing).shape == (0, statistics.width)
    statistics.fit([nothing])
    torch.testing.assert_close(statistics(cells), numbers)


def test_each_token_holds_the_numbers_of_its_cell() -> None:
    torch.manual_seed(0)
    values = Values(torch.randn(4, 20, 8), torch.tensor([20, 12, 16, 8]))
    encoder = crnn.component(8, (4,), 3, 1, "all", 0.0)
    column_encoder = ColumnEncoder(
        "a", encoder, "learned", statistics=Statistics(Layout("spectrogram", (20, 8)))
    ).eval()
    column_encoder.statistics.fit([values])
    assert (column_encoder.fixed, column_encoder.width) == (encoder.width, encoder.width + 16)
    present = {"a": torch.tensor([True, True, False, True])}
    tokens = column_encoder({"a": values}, present, present)["a"]
    numbers = column_encoder.statistics(values)
    encoded = encoder(values).x_BLD
    for row in (0, 1, 3):
        x_LD = tokens.x_BLD[row]
        length = int(tokens.mask_BL[row].sum())
        assert torch.allclose(x_LD[:, encoder.width :], numbers[row].expand(len(x_LD), -1), atol=1e-5)
        assert torch.allclose(x_LD[:length, : encoder.width], encoded[row, :length], atol=1e-5)
    assert not tokens.mask_BL[2].any()
    assert torch.equal(tokens.x_BLD[2, 0], column_encoder.stand_in.missing)
    assert ColumnEncoder("b", bag.component(9, 4, 0.0), "zero").fixed is None


def test_with_two_pretrained_columns_only_texts_have_statistics(tmp_path: Path) -> None:
    rows = [{**row, "other": row["photo"], "again": row["photo"]} for row in make_rows(tmp_path, 40)]
    path, columns = write_csv(tmp_path / "t.csv", rows), ["photo", "other", "text", "again"]
    frozen = f"{{name: pretrained, model: {tiny_models.vit(tmp_path / 'vit')}}}"
    for second, expected in ((frozen, {"text"}), ("vgg", {"text", "other", "again"})):
        overrides = [
            f"columns.photo.encoder={frozen}",
            f"columns.other.encoder={second}",
            "columns.text.modality=text",
            "training.epochs=1",
        ]
        out = tmp_path / second[:3]
        model = plait.fit(path, align=columns, out=out, overrides=overrides, quiet=True).network.model
        assert {c for c in columns if model.encoder(c).statistics is not None} == expected


def test_a_space_of_learned_encoders_begins_at_statistics(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv",
        [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(make_rows(tmp_path, 60))],
    )
    model = plait.fit(
        path, align=["photo", "text"], out=tmp_path / "run", overrides=["training.epochs=1"], quiet=True
    )
    network = model.network.model
    for c, head in network.task("alignment").heads.items():
        encoder = network.encoder(c.removeprefix("of_"))
        assert not head.first.weight[:, : encoder.fixed].any()
        assert head.first.weight[:, encoder.fixed :].any()
    assert 0 <= float(network.task("alignment").share) < 1
    loaded = plait.load(tmp_path / "run", quiet=True)
    assert_same_embeddings(loaded.embed(path, column="text"), model.embed(path, column="text"))
