"""Statistics of cells, which are not trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

import plait
from plait.encoders import bag, crnn
from plait.model.column import ColumnEncoder
from plait.nn.batch import Values
from plait.nn.summaries import Statistics
from plait.nn.traits import Traits, TraitsLayout
from support import tiny_models
from support.answers import assert_same_embeddings
from support.tables import make_rows, write_csv

LENGTHS = 2  # numbers beside the n-grams of the texts below


def texts(rows: int = 40) -> Traits:
    """Return the traits of texts of 3 to 8 n-grams out of 29."""
    generator = torch.Generator().manual_seed(0)
    count_B = torch.randint(3, 9, (rows,), generator=generator)
    ids_T = torch.randint(1, 30, (int(count_B.sum()),), generator=generator).int()
    return Traits(torch.randn(rows, LENGTHS, generator=generator), ids_T, count_B)


def test_traits_of_some_rows_are_theirs() -> None:
    traits = texts(5)
    ids = traits.ids_T.split(traits.count_B.tolist())
    taken = traits.take(torch.tensor([3, 0, 3]))
    assert torch.equal(taken.ids_T, torch.cat([ids[3], ids[0], ids[3]]))
    assert torch.equal(taken.numbers_BM, traits.numbers_BM[[3, 0, 3]])
    assert torch.equal(taken.row_of_ngram().bincount(), traits.count_B[[3, 0, 3]])
    nothing = traits.take(torch.tensor([], dtype=torch.long))
    assert (len(nothing.numbers_BM), len(nothing.ids_T), len(nothing.count_B)) == (0, 0, 0)
    absent = Traits.absent(3, TraitsLayout((2,), 30))
    assert absent.take(torch.tensor([1, 1])).count_B.tolist() == [0, 0]


def test_texts_have_the_main_directions_of_their_tfidf() -> None:
    traits = texts()
    statistics = Statistics(TraitsLayout((LENGTHS,), 30))
    statistics.fit(traits)
    words = []
    for ids in traits.ids_T.split(traits.count_B.tolist()):
        words.append(" ".join(f"w{i}" for i in ids.tolist()))
    expected = TfidfVectorizer(sublinear_tf=True).fit_transform(words).toarray()
    scale = statistics.scale.where(statistics.scale > 0, 1)
    directions = (statistics(traits) / scale + statistics.mean)[:, LENGTHS:].numpy()

    # All directions of 29 words but one: the products of two texts are nearly those of their TF-IDF.
    np.testing.assert_allclose(directions @ directions.T, expected @ expected.T, atol=0.02)
    numbers = statistics(traits)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(statistics.width), atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers[:, LENGTHS:].square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(statistics(traits.take(torch.tensor([7, 7]))), numbers[[7, 7]])


def test_a_text_of_unknown_words_or_none_has_no_direction() -> None:
    statistics = Statistics(TraitsLayout((), 90))
    traits = texts()
    statistics.fit(Traits(traits.numbers_BM[:, :0], traits.ids_T, traits.count_B))
    numbers = statistics(Traits(torch.zeros(2, 0), torch.tensor([80, 81]), torch.tensor([2, 0])))
    torch.testing.assert_close(numbers, (-statistics.mean * statistics.scale).expand(2, -1))


def test_numbers_have_mean_0_and_deviation_1() -> None:
    generator = torch.Generator().manual_seed(0)
    traits = Traits(50 + 9 * torch.randn(30, 5, generator=generator))
    traits.numbers_BM[:, 3] = 7
    statistics = Statistics(TraitsLayout((2, 3)))
    assert not statistics(traits).any(), "before anything is fitted"
    statistics.fit(traits)
    numbers = statistics(traits)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    expected_spread = torch.tensor([1.0, 1, 1, 0, 1])
    torch.testing.assert_close(numbers.std(0, correction=0), expected_spread, atol=1e-3, rtol=0)
    statistics.fit(traits.take(torch.tensor([], dtype=torch.long)))
    torch.testing.assert_close(statistics(traits), numbers)
    assert statistics.blocks == [slice(0, 2), slice(2, 5)]


def test_each_token_holds_the_numbers_of_its_cell() -> None:
    torch.manual_seed(0)
    traits = Traits(torch.randn(4, 16))
    values = Values(torch.randn(4, 20, 8), torch.tensor([20, 12, 16, 8]), traits=traits)
    encoder = crnn.component(8, (4,), 3, 1, "all", 0.0)
    statistics = Statistics(TraitsLayout((16,)))
    column_encoder = ColumnEncoder("a", encoder, "learned", statistics=statistics).eval()
    statistics.fit(traits)
    assert (column_encoder.fixed, column_encoder.width) == (encoder.width, encoder.width + 16)
    assert column_encoder.fixed_blocks == [slice(encoder.width, encoder.width + 16)]
    present = {"a": torch.tensor([True, True, False, True])}
    numbers = statistics(traits)
    encoded = encoder(values).x_BLD
    for batch in (values, values.packed(present["a"])):
        tokens = column_encoder({"a": batch}, present, present)["a"]
        fixed = column_encoder.encode_fixed(batch, present["a"])
        for row in (0, 1, 3):
            x_LD = tokens.x_BLD[row]
            length = int(tokens.mask_BL[row].sum())
            assert torch.allclose(x_LD[:length, encoder.width :], numbers[row].expand(length, -1), atol=1e-5)
            assert torch.allclose(x_LD[:length, : encoder.width], encoded[row, :length], atol=1e-5)
            assert torch.allclose(fixed.pooled_BD()[row, encoder.width :], numbers[row], atol=1e-5)
        assert not tokens.mask_BL[2].any()
        assert not fixed.mask_BL[2].any()
        assert torch.equal(tokens.x_BLD[2, 0], column_encoder.stand_in.missing)
    assert ColumnEncoder("b", bag.component(9, 4, 0.0), "zero").fixed is None


def test_images_with_a_pretrained_encoder_have_no_statistics(tmp_path: Path) -> None:
    rows = [{**row, "other": row["photo"]} for row in make_rows(tmp_path, 40)]
    path, columns = write_csv(tmp_path / "t.csv", rows), ["photo", "other", "text"]
    text, vit = tiny_models.bert(tmp_path / "bert"), tiny_models.vit(tmp_path / "vit")
    overrides = [
        f"columns.photo.encoder={{name: pretrained, model: {vit}}}",
        f"columns.text.encoder={{name: pretrained, model: {text}}}",
        "columns.text.modality=text",
        "training.epochs=1",
    ]
    out = tmp_path / "run"
    model = plait.fit(path, align=columns, out=out, overrides=overrides, quiet=True).network.model
    assert {c for c in columns if model.encoder(c).statistics is not None} == {"other", "text"}
    assert all(model.encoder(c).fixed_blocks for c in columns)


def test_a_space_of_learned_encoders_has_linear_maps(tmp_path: Path) -> None:
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(make_rows(tmp_path, 60))]
    path, options = write_csv(tmp_path / "t.csv", rows), ["training.epochs=1"]
    model = plait.fit(path, align=["photo", "text"], out=tmp_path / "run", overrides=options, quiet=True)
    task = model.network.model.task("alignment")
    assert task.mixture.is_fitted
    assert set(task.shares()) == {"photo ~ text"}
    assert 0 <= task.shares()["photo ~ text"] <= 1
    loaded = plait.load(tmp_path / "run", quiet=True)
    assert loaded.network.model.task("alignment").shares() == task.shares()
    assert_same_embeddings(loaded.embed(path, column="text"), model.embed(path, column="text"))
