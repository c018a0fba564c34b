"""Aligned columns from the table to the search, on a tiny table whose images and texts say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import plait
from plait.cli.main import run
from plait.errors import ArtifactError, Interrupted, RecipeError, TableError
from plait.evaluation import alignment as crossmodal
from plait.nn.batch import Tokens
from plait.retrieval import index as retrieval
from plait.retrieval.database import exists
from plait.table.read import read
from plait.tasks import alignment
from plait.tasks.aligning import ranking
from plait.tasks.aligning.cells import identify
from plait.tasks.alignment import Alignment, Config
from plait.tasks.base import MAIN
from plait.training.first_pass import compare, first_pass
from plait.training.objective import added, loss_terms, losses
from support.tables import COLOURS, FAST, make_rows, write_csv
from support.training import StopAtStep

PAIRS = [o for o in FAST if "epochs" not in o] + [
    "training.epochs=25",
    "modalities.image.flip=false",
    "columns.text.modality=text",
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of photo ~ text beside the label, and its table."""
    folder = tmp_path_factory.mktemp("pairs")
    path = write_csv(folder / "train.csv", rows_of_pairs(folder, 90))
    columns, out = ["photo", "text"], folder / "run"
    model = plait.fit(path, "label", align=columns, out=out, overrides=PAIRS, quiet=True)
    return model, path


def rows_of_pairs(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return rows with an id, whose text says the colour of the photo and nothing else."""
    rows = []
    for number, row in enumerate(make_rows(folder, count)):
        text = row["text"].split(" near")[0]
        rows.append({"id": f"r{number}", **row, "text": text})
    return rows


def test_cells_that_differ_in_case_and_blanks_only_are_the_same() -> None:
    texts = pa.chunked_array([["A cat", " a CAT ", None, "dog"]])
    assert identify(texts).tolist() == [0, 0, -1, 1]
    lists = pa.chunked_array([[["a"], None, ["a"], ["a", "b"]]])
    assert identify(lists).tolist() == [0, -1, 0, 1]
    files = pa.chunked_array([pa.array([b"x", None, b"x"], pa.large_binary())])
    assert identify(files).tolist() == [0, -1, 0]


def test_texts_of_an_arrow_dictionary_are_folded_too() -> None:
    texts = pa.array(["A cat", "a cat ", None, "dog"]).dictionary_encode()
    assert identify(pa.chunked_array([texts])).tolist() == [0, 0, -1, 1]
    numbers = pa.array([7, 5, None, 7]).dictionary_encode()
    assert identify(pa.chunked_array([numbers])).tolist() == [0, 1, -1, 0]


def task(**options: Any) -> Alignment:
    torch.manual_seed(0)
    aligned = Alignment(Config(inputs=("a", "b"), width=8, dropout=0, **options))
    aligned.build_head({"a": 6, "b": 6})
    return aligned


def tokens(rows: int, missing: tuple[int, ...] = ()) -> dict[str, Tokens]:
    """Return one random token for each row in columns `a` and `b`. The `missing` rows lack `b`."""
    generator = torch.Generator().manual_seed(1)
    everywhere = torch.ones(rows, 1, dtype=torch.bool)
    mask_of_b = everywhere.clone()
    mask_of_b[list(missing)] = False
    return {
        "a": Tokens(torch.randn(rows, 1, 6, generator=generator), everywhere),
        "b": Tokens(torch.randn(rows, 1, 6, generator=generator), mask_of_b),
    }


def ids(rows: int, first: int = 0) -> torch.Tensor:
    """Return a target in which all rows differ, without groups."""
    of_cells = torch.arange(first, first + rows)[:, None].expand(rows, 2)
    no_group = torch.full((rows, 1), -1)
    return torch.cat([of_cells, no_group], 1)


def loss_of(aligned: Alignment, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the loss with all rows labelled."""
    everywhere = torch.ones(len(output), dtype=torch.bool)
    return aligned.loss(output, target, everywhere)


def symmetric_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of the cross-entropies of both directions."""
    targets = torch.arange(len(logits))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def test_the_loss_is_symmetric_info_nce() -> None:
    aligned = task()
    output = aligned(tokens(5))
    scale = aligned.log_scale.exp()
    logits = scale * output[:, 0] @ output[:, 1].T
    torch.testing.assert_close(loss_of(aligned, output, ids(5)), symmetric_loss(logits))


def test_a_row_that_lacks_a_column_is_still_a_negative() -> None:
    aligned = task()
    output = aligned(tokens(5, missing=(4,)))
    assert not output[4, 1].any()
    logits = aligned.log_scale.exp() * output[:, 0] @ output[:, 1].T
    forth = F.cross_entropy(logits[:4, :4], torch.arange(4))
    back = F.cross_entropy(logits.T[:4], torch.arange(4))  # the fifth row's `a` is among the candidates
    torch.testing.assert_close(loss_of(aligned, output, ids(5)), (forth + back) / 2)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_rows_with_the_same_cell_or_group_are_no_negatives(column: int) -> None:
    aligned, target = task(), ids(5)
    target[:2, column] = 99
    output = aligned(tokens(5))
    logits = aligned.log_scale.exp() * output[:, 0] @ output[:, 1].T
    logits[0, 1] = logits[1, 0] = -torch.inf
    torch.testing.assert_close(loss_of(aligned, output, target), symmetric_loss(logits))


def test_the_bank_adds_negatives_of_earlier_batches() -> None:
    aligned = task(bank=4)
    first = aligned(tokens(4))
    negated = {column: Tokens(-t.x_BLD, t.mask_BL) for column, t in tokens(3).items()}
    second = aligned(negated)
    loss_of(aligned, first, ids(4, 10))
    scale = aligned.log_scale.exp()
    forth = scale * second[:, 0] @ torch.cat([second[:, 1], first[:, 1].detach()]).T
    back = scale * second[:, 1] @ torch.cat([second[:, 0], first[:, 0].detach()]).T
    expected = (F.cross_entropy(forth, torch.arange(3)) + F.cross_entropy(back, torch.arange(3))) / 2
    torch.testing.assert_close(loss_of(aligned, second, ids(3)), expected)


@pytest.mark.parametrize(
    "option",
    [
        {"objective": "siglip"},
        {"objective": "gram"},
        {"objective": "symile"},
        {"hardness": 1.0},
        {"temperature": 0.5},
        {"hidden": 7},
        {"bank": 3},
        {"dropout": 0.5},
    ],
)
def test_every_option_changes_something(option: dict[str, Any]) -> None:
    def last_loss(**options: Any) -> float:
        """Return the loss of the second batch: the first one fills the bank."""
        torch.manual_seed(0)
        aligned = Alignment(Config(**{"inputs": ("a", "b"), "width": 8, "dropout": 0, **options}))
        aligned.build_head({"a": 6, "b": 6})
        for step in range(2):
            loss = loss_of(aligned, aligned(tokens(6)), ids(6, 100 * step))
        return float(loss.detach())

    assert last_loss(**option) != pytest.approx(last_loss())


@pytest.mark.parametrize("objective", ["infonce", "siglip", "gram", "symile"])
def test_the_loss_is_as_exact_in_bf16(objective: str) -> None:
    aligned = task(objective=objective)
    output = aligned(tokens(6))
    torch.manual_seed(0)
    loss_in_fp32 = loss_of(aligned, output, ids(6))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_of(aligned, output, ids(6)) == loss_in_fp32


def test_a_space_of_an_older_form_is_refused() -> None:
    config = Config(inputs=("a", "b"))
    assert Alignment.from_state(config, Alignment(config).state()).columns == ["a", "b"]
    with pytest.raises(ArtifactError, match=r"of a, b has vectors of form 1.*Train the model again"):
        Alignment.from_state(config, {})


def test_with_an_anchor_only_its_pairs_are_compared() -> None:
    unanchored = Alignment(Config(inputs=("a", "b", "c")))
    anchored = Alignment(Config(inputs=("a", "b", "c"), anchor="b"))
    assert unanchored.pairs() == [(0, 1), (0, 2), (1, 2)]
    assert anchored.pairs() == [(0, 1), (1, 2)]


def test_gradients_of_micro_batches_are_those_of_the_batch(pairs: Any) -> None:
    model, path = pairs
    network = model.network
    prepared = network.prepare(read(path))
    batch = prepared.batch(torch.arange(12))
    trained = network.model
    trained.requires_grad_(True)

    def gradients(micro_batches: list[Any] | None) -> dict[str, torch.Tensor]:
        trained.zero_grad()
        if micro_batches is None:
            losses(trained, batch)["alignment"][MAIN].backward()
        else:
            autocast, factors = network.settings.autocast, {"alignment": 1.0}
            first = first_pass(trained, micro_batches, [None] * len(micro_batches), autocast)
            _, of_outputs = compare(trained, first.compared, micro_batches, batch, autocast, factors)
            for micro_batch, of_output in zip(micro_batches, of_outputs, strict=True):
                terms = loss_terms(trained, micro_batch, gradients=of_output)
                added(terms)["alignment"][MAIN].backward()
        return {n: p.grad.clone() for n, p in trained.named_parameters() if p.grad is not None}

    of_batch = gradients(None)
    of_micro_batches = gradients([batch.take(rows) for rows in torch.arange(12).split(5)])
    assert set(of_batch) == set(of_micro_batches)
    assert any("encoders" in name for name in of_batch)
    total = torch.stack([x.norm() for x in of_batch.values()]).norm()
    for name, expected in of_batch.items():
        # An entry near zero is a difference of large ones, so compare whole tensors.
        difference = (of_micro_batches[name] - expected).norm()
        assert difference < 1e-3 * expected.norm() + 1e-5 * total, name


def test_training_in_micro_batches_learns_the_same_pairs(tmp_path: Path) -> None:
    rows = [{"photo": row["photo"], "text": row["text"].split(" near")[0]} for row in make_rows(tmp_path, 48)]
    options = [*PAIRS, "training.micro_batch=7", "training.epochs=12", "training.learning_rate=0.01"]
    columns, out = ["photo", "text"], tmp_path / "run"
    model = plait.fit(rows, align=columns, root=tmp_path, out=out, overrides=options, quiet=True)
    history = [epoch["loss"] for epoch in model.record["history"]]
    assert np.mean(history[-4:]) < np.mean(history[:4]) / 2


def test_columns_find_each_other(pairs: Any) -> None:
    model, path = pairs
    evaluated = model.evaluate(path).alignments["alignment"]
    for direction in evaluated.directions:
        assert direction.metrics["r@1"][0] > 0.9 > direction.chance["r@1"], (
            "a text about a colour finds an image of it"
        )
        assert direction.size == 90
    assert set(evaluated.geometry["photo ~ text"]) == {"gap", "alignment", "uniformity"}
    recorded = model.record["evaluation"]["validation"]["alignments"]["alignment"]["directions"]
    assert set(recorded[0]["baselines"]) == {"linear map", "network"}
    for direction in recorded:
        assert direction["baselines"]["linear map"]["mrr"] > direction["chance"]["mrr"]
    assert model.record["evaluation"]["validation"]["targets"]["label"]["metrics"]["accuracy"]["value"] > 0.8


def test_predictions_have_the_cosine_of_a_rows_cells(pairs: Any) -> None:
    model, path = pairs
    table = read(path)
    matching = table.data.slice(0, 3)
    swapped = matching.set_column(
        matching.column_names.index("text"), "text", [["there is a sky", "there is a sky", None]]
    )
    matching_cosines = model.predict(matching, root=path.parent)["alignment"].to_pylist()
    swapped_cosines = model.predict(swapped, root=path.parent)["alignment"].to_pylist()
    assert matching_cosines[0] > swapped_cosines[0]
    assert swapped_cosines[2] is None


def test_search_in_every_direction_with_conditions(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    index = model.index(path, place=tmp_path / "index")
    assert len(index) == 90
    for colour, word in (("red", "cherry"), ("blue", "sky")):
        nearest = model.search(f"there is a {word}", 5, column="photo", index=index)
        assert nearest.column_names[0] == "score"
        assert nearest["label"].to_pylist() == [colour] * 5
        photo = next(r["photo"] for r in read(path).data.to_pylist() if r["label"] == colour)
        assert model.search(str(path.parent / photo), 3, index=index)["label"].to_pylist() == [colour] * 3
        both = model.search(
            {"photo": photo, "text": f"there is a {word}"}, 3, column="photo", index=index, root=path.parent
        )
        assert both["label"].to_pylist() == [colour] * 3
    few = model.search("there is a leaf", 40, where="shop = 'north' AND price < 1", index=index)
    assert 0 < len(few) < 40
    assert set(few["shop"].to_pylist()) == {"north"}
    assert np.all(np.diff(few["score"].to_numpy()) <= 0)


def test_rows_are_added_replaced_by_id_and_deleted(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    table = read(path)
    index_folder = tmp_path / "index"
    model.index(table.data.slice(0, 50), place=index_folder, root=path.parent)
    index = model.index(table.data.slice(40, 50), place=index_folder, root=path.parent)
    assert len(index) == 90, "ten rows came twice, with the same ids"
    assert index.delete("label = 'red'") == 30
    assert set(model.search("there is a cherry", 60, index=index_folder)["label"].to_pylist()) == {
        "green",
        "blue",
    }


def test_a_row_that_lacks_a_column_is_not_found_by_it(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    rows = read(path).data.slice(0, 6)
    photos = rows["photo"].to_pylist()
    without_two = rows.set_column(rows.column_names.index("photo"), "photo", [[None, None, *photos[2:]]])
    index = model.index(without_two, place=tmp_path / "index", root=path.parent)
    assert len(model.search("there is a cherry", 10, index=index)) == 4
    assert len(model.search({"photo": photos[0]}, 10, index=index, root=path.parent)) == 6
    assert len(model.search("there is a cherry", 10, index=index, exact=True)) == 4


def test_an_index_knows_its_model(pairs: Any, trained: Any, tmp_path: Path) -> None:
    model, path = pairs
    model.index(path, place=tmp_path / "index")
    other = plait.fit(
        path, align=True, out=tmp_path / "other", overrides=[*FAST, "columns.text.modality=text"], quiet=True
    )
    with pytest.raises(TableError, match="another model"):
        other.search("x", index=tmp_path / "index")
    with pytest.raises(TableError, match="no index"):
        other.search("x")
    with pytest.raises(TableError, match=r"columns .*label"):
        model.search("there is a leaf", where="colour = 1", index=tmp_path / "index")
    with pytest.raises(RecipeError, match="aligns no columns"):
        trained[0].search("x")


def test_an_address_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "REGION": "x",
        "ALLOW_HTTP": "true",
        "ENDPOINT": "http://127.0.0.1:9",
    }
    for name, setting in settings.items():
        monkeypatch.setenv(f"AWS_{name}", setting)
    message = r"'s3://nothing/here' cannot be reached: .*onnection refused.*AWS_ENDPOINT"
    with pytest.raises(TableError, match=message):
        exists("s3://nothing/here")


def test_a_query_that_cannot_be_placed_or_read_says_so(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    model.index(path, place=tmp_path / "index")
    (tmp_path / "bad.png").write_bytes(b"no image")
    for query, message in (
        ({"foto": "x"}, "did you mean 'photo'"),
        ({"photo": str(tmp_path / "bad.png")}, "cannot be read"),
        ({"text": None}, "empty"),
    ):
        with pytest.raises(TableError, match=message):
            model.search(query, index=tmp_path / "index")


def test_a_file_that_is_not_there_is_not_searched_as_a_text(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    model.index(path, place=tmp_path / "index")
    with pytest.raises(TableError, match=r"no file 'flags/nope.png' in .* text=flags/nope.png"):
        model.search("flags/nope.png", index=tmp_path / "index")
    assert len(model.search({"text": "nope.png"}, 3, index=tmp_path / "index")) == 3


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("pric < 1", "there is no column 'pric': did you mean 'price'"),
        ("price <", "it is no condition of SQL"),
        ("price = 'x'", "a value is not of its column's type"),
        ("largest(price) > 1", "there is no function 'largest'"),
        ("price", "it is neither true nor false of a row"),
    ],
)
def test_wrong_conditions_are_explained(pairs: Any, tmp_path: Path, where: str, message: str) -> None:
    model, path = pairs
    index = model.index(path, place=tmp_path / "index")
    with pytest.raises(TableError, match=message) as raised:
        model.search("a sky", where=where, index=index)
    assert "The index has the columns id, photo" in str(raised.value)
    assert not re.search(r"\.rs|Schema error|Invalid", str(raised.value)), "not in LanceDB's words"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "expected one label or more"),
        ({"labels": ["a sky"], "templates": []}, "one template or more"),
        ({"labels": ["a sky"], "text": "txt"}, "no aligned text column 'txt': did you mean 'text'"),
        ({"labels": ["a sky"], "text": "photo"}, "no aligned text column 'photo'"),
    ],
)
def test_wrong_labels_are_explained(pairs: Any, arguments: dict[str, Any], message: str) -> None:
    model, path = pairs
    with pytest.raises(RecipeError, match=message):
        model.classify(path, **arguments)


def test_zero_shot_classification(pairs: Any, tmp_path: Path) -> None:
    model, path = pairs
    words = {"cherry": "red", "leaf": "green", "sky": "blue"}
    answers = model.classify(path, list(words), templates=["there is a {}", "{}"])
    truth = read(path).data["label"].to_pylist()
    pairs_of_labels = zip(answers["label"].to_pylist(), truth, strict=True)
    is_right = [words[label] == colour for label, colour in pairs_of_labels]
    assert np.mean(is_right) > 0.9
    assert answers["id"].to_pylist()[:2] == ["r0", "r1"]
    probabilities = np.array([answers[f"label_probability_{word}"].to_numpy() for word in words])
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    assert model.classify(path, list(words), thresholds=1.1)["label"].null_count == 90

    folder = tmp_path / "photos"
    folder.mkdir()
    for i, colour in enumerate(COLOURS.values()):
        plain(colour).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"broken")
    in_folder = model.classify(folder, list(words), templates=["there is a {}"])
    assert in_folder["label"].to_pylist() == ["cherry", "leaf", "sky", None]
    assert "photo" in in_folder["problem"].to_pylist()[3]
    with pytest.raises(RecipeError, match=r"expected \{\}"):
        model.classify(path, list(words), templates=["a photo"])


def plain(colour: tuple[int, int, int]) -> Any:
    from PIL import Image

    return Image.new("RGB", (20, 20), colour)


def test_vectors_of_a_column_have_length_one(pairs: Any) -> None:
    model, path = pairs
    vectors = model.embed(path, column="photo")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    assert model.embed(path).shape == (90, model.network.width), "with a target, the fused vector"


def test_of_several_alignments_the_one_that_is_named_is_searched(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of_pairs(tmp_path, 60))
    overrides = [
        *PAIRS,
        "columns.label.role=ignored",
        "tasks.words={name: alignment, inputs: [photo, text]}",
        "tasks.shops={name: alignment, inputs: [photo, shop]}",
    ]
    model = plait.fit(path, out=tmp_path / "run", overrides=overrides, quiet=True)
    message = r"more than one alignment, words, shops: say which \(alignment=, --alignment\)"
    with pytest.raises(RecipeError, match=message):
        model.index(path)
    with pytest.raises(RecipeError, match="no alignment 'word': did you mean 'words'"):
        model.search("there is a sky", alignment="word")
    model.index(path, alignment="words")
    model.index(path, alignment="shops")
    assert model.search("there is a sky", 5, alignment="words")["label"].to_pylist() == ["blue"] * 5
    with pytest.raises(TableError, match="no aligned column 'shop' to search"):
        model.embed(path, column="shop", alignment="words")
    vectors = model.embed(path, column="shop", alignment="shops")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    with pytest.raises(TableError, match="made by another model"):
        model.search({"shop": "north"}, alignment="shops", index=model.folder / "index-words")
    nearest = tmp_path / "nearest.jsonl"
    options = ["-k", "2", "--alignment", "words", "-o", str(nearest)]
    assert run(["search", str(model.folder), "there is a leaf", *options]) == 0
    assert labels_in(nearest) == ["green", "green"]


def labels_in(path: Path) -> list[str]:
    """Return the label in each line of a file of JSON lines."""
    lines = path.read_text().splitlines()
    return [json.loads(line)["label"] for line in lines]


def test_the_command_line(pairs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, path = pairs
    folder, index = str(model.folder), ["--index", str(tmp_path / "index")]
    nearest = tmp_path / "nearest.jsonl"
    assert run(["index", folder, str(path), *index]) == 0
    options = ["-k", "2", "--where", "shop = 'north'", "-o", str(nearest)]
    assert run(["search", folder, "there is a sky", *index, *options]) == 0
    assert labels_in(nearest) == ["blue", "blue"]
    printed = capsys.readouterr().out
    assert "photo searched by text: 2 rows" in printed
    assert "score" in printed
    assert run(["search", folder, "text=there is a sky", *index]) == 0

    assert run(["index", folder, *index, "--delete", "label = 'blue'"]) == 0
    assert "60 rows" in capsys.readouterr().out

    thresholds = ["--threshold", "0", "--threshold", "leaf=2"]
    assert run(["classify", folder, str(path), "--labels", "cherry, leaf", *thresholds]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "leaf" not in [line.split(",")[1] for line in lines]

    assert run(["search", folder, "a", "b", *index]) == 1


@pytest.mark.parametrize(
    ("align", "message"),
    [(["photo"], "two or more"), (["photo", "txt"], "did you mean 'text'"), (["photo", "label"], "label")],
)
def test_wrong_columns_are_named(tmp_path: Path, align: list[str], message: str) -> None:
    path = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 12))
    with pytest.raises(RecipeError, match=message):
        plait.fit(path, "label", align=align, out=tmp_path / "run", overrides=FAST, quiet=True)


def test_a_large_index_is_approximate_and_says_how_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "APPROXIMATE", 2000)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 2, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[::7, 1] = 0
    index_about = retrieval.About("m", ("a", "b"), 32)
    index = retrieval.Index.create(tmp_path, index_about, pa.schema([("number", pa.int64())]))
    index.add(pa.table({"number": np.arange(1000)}), vectors[:1000])
    assert not index.settle()
    index.add(pa.table({"number": np.arange(1000, 3000)}), vectors[1000:])
    assert index.settle()
    assert 0.6 < index.recall("a") <= 1  # without any structure in the vectors, which is as hard as it gets
    assert 0.6 < index.recall("b") <= 1
    nearest = retrieval.Index.open(tmp_path, "m").search(vectors[5, 0], "a", 3)
    assert nearest["number"][0].as_py() == 5
    assert nearest["score"][0].as_py() == pytest.approx(1, abs=1e-3)
    exact = [int(i) for i in np.argsort(-(vectors[:, 1] @ vectors[5, 1]))[:10]]
    assert index.search(vectors[5, 1], "b", 10, exact=True)["number"].to_pylist() == exact
    few = index.search(vectors[5, 0], "a", 5, where="number >= 2000")
    assert min(few["number"].to_pylist()) >= 2000


def test_many_rows_are_searched_by_a_sample_of_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aligned = task()
    output = aligned(tokens(50)).detach().numpy()
    all_queries = crossmodal.evaluate(aligned, output, ids(50).numpy()).directions[0]
    monkeypatch.setattr(crossmodal, "QUERIES", 20)
    sampled_queries = crossmodal.evaluate(aligned, output, ids(50).numpy()).directions[0]
    assert (all_queries.queries, all_queries.size) == (50, 50)
    assert (sampled_queries.queries, sampled_queries.size) == (20, 50)
    monkeypatch.setattr(alignment, "MEASURED", 25)
    sampled = np.linspace(0, 49, 25).astype(int)
    expected = aligned.measure(output[sampled], ids(25).numpy())
    assert aligned.measure(output, ids(50).numpy()) == expected


def measure_ranks(rank_Q: np.ndarray) -> dict[str, float]:
    """All metrics of queries in one direction."""
    queries = ranking.RankRows(rank_Q[:, None])
    return {name: metric(queries) for name, metric in ranking.METRICS.items()}


class TestRanking:
    def test_ranks_count_what_comes_before_the_first_positive(self) -> None:
        query = np.array([[1.0, 0.0]])
        gallery = np.array([[0.9, 0], [0.8, 0], [0.5, 0], [0.5, 0]])
        for ids, rank in (
            ([1, 0, 0, 0], 2.0),
            ([1, 1, 1, 0], 3.5),
            ([0, 1, 0, 1], 1.0),
            ([1, 1, 1, 1], np.nan),
        ):
            ranks = ranking.ranks(query, gallery, np.array([[0]]), np.array(ids)[:, None])
            np.testing.assert_array_equal(ranks, [rank])

    def test_metrics(self) -> None:
        assert measure_ranks(np.array([1, 2, 6, 20.0])) == {
            "r@1": 0.25,
            "r@5": 0.5,
            "r@10": 0.75,
            "median_rank": 4.0,
            "mrr": (1 + 0.5 + 1 / 6 + 0.05) / 4,
        }

    @pytest.mark.parametrize("positives", [1, 3])
    def test_chance_is_what_shuffling_gives(self, positives: int) -> None:
        rng = np.random.default_rng(0)
        drawn = np.array([rng.permutation(20)[:positives].min() + 1 for _ in range(20_000)], dtype=float)
        simulated, expected = measure_ranks(drawn), ranking.chance(np.full(5, positives), 20)
        for name in ("r@1", "r@5", "r@10", "mrr"):
            assert expected[name] == pytest.approx(simulated[name], abs=0.01)
        assert abs(expected["median_rank"] - simulated["median_rank"]) <= 1

    def test_geometry(self) -> None:
        x = np.array([[1.0, 0], [0, 1]])
        assert ranking.geometry(x, x)["gap"] == 0
        assert ranking.geometry(x, -x)["alignment"] == 4
        assert ranking.geometry(x, x)["uniformity"] == pytest.approx(-4)


@pytest.mark.parametrize("override", ["training.mixup=0.2", "quality=good"])
def test_options_that_an_alignment_cannot_use_are_refused(tmp_path: Path, override: str) -> None:
    path = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 12))
    with pytest.raises(RecipeError, match="leave"):
        plait.fit(
            path, align=["photo", "text"], out=tmp_path / "run", overrides=[*FAST, override], quiet=True
        )


def test_the_report_has_every_direction(pairs: Any) -> None:
    model, _ = pairs
    page = (model.folder / "report.html").read_text()
    assert "photo → text" in page
    assert "text → photo" in page
    assert "linear map" in page
    assert "alignment_mrr" in page, "what chose the epoch is drawn"
    assert "photo -> text, " in (model.folder / "README.md").read_text()


def test_a_stopped_alignment_goes_on_to_the_same_end(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 40))
    options = [*FAST, "training.batch_size=8", "training.micro_batch=5", "tasks.alignment.bank=16"]
    columns = ["photo", "text"]
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    plait.fit(path, align=columns, out=uninterrupted, overrides=options, quiet=True)
    stop = [StopAtStep(6)]  # in the middle of the second epoch
    with pytest.raises(Interrupted):
        plait.fit(path, align=columns, out=stopped, overrides=options, callbacks=stop, quiet=True)
    assert run(["fit", "--resume", str(stopped)]) == 0
    expected = load_file(uninterrupted / "weights.safetensors")
    weights = load_file(stopped / "weights.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
