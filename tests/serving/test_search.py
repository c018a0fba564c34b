"""The service searches the index of a model, labels cells, and gives out the files of found rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import plait
from plait.serving.gallery import Gallery
from plait.serving.refusals import Refusal
from support.serving import served
from support.tables import FAST, make_rows, write_csv

pytest.importorskip("lancedb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_csv(folder / "train.csv", make_rows(folder))
    return folder


@pytest.fixture(scope="module")
def pairs(folder: Path) -> plait.Model:
    """A model of photos and texts in one space, with an index of its training rows."""
    overrides = [*FAST, "training.epochs=20"]
    model = plait.fit(
        folder / "train.csv", align=["photo", "text"], out=folder / "run", overrides=overrides, quiet=True
    )
    model.index(folder / "train.csv")
    return model


@pytest.fixture(scope="module")
def search(pairs: plait.Model) -> Iterator[httpx.Client]:
    with served(pairs.folder) as client:
        yield client


def test_a_text_finds_the_rows_that_the_model_finds(search: httpx.Client, pairs: plait.Model) -> None:
    query = {"text": "there is a cherry near house number 1"}
    found = search.post("/search?k=5", json=query).json()
    expected = pairs.search(query, 5).to_pylist()
    assert [row["text"] for row in found["rows"]] == [row["text"] for row in expected]
    assert [row["score"] for row in found["rows"]] == pytest.approx(
        [row["score"] for row in expected], abs=1e-4
    )
    assert "row" not in found["rows"][0]


def test_an_upload_finds_itself(search: httpx.Client, folder: Path) -> None:
    photo = folder / "photos" / "0-4.png"
    found = search.post("/search?k=1&in=photo", files={"photo": photo.read_bytes()}).json()
    address = found["files"][0]["photo"]
    response = search.get(f"/{address}")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.content == photo.read_bytes()
    part = search.get(f"/{address}", headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")


def test_a_condition_holds_for_all_rows(search: httpx.Client) -> None:
    query = {"text": "there is a leaf"}
    rows = search.post("/search", json=query, params={"where": "price < 1", "k": 50}).json()["rows"]
    assert rows
    assert all(row["price"] < 1 for row in rows)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/search?where=price <", {"text": "x"}, 422, "cannot be used"),
        ("/search?where=prise < 1", {"text": "x"}, 422, "did you mean 'price'?"),
        ("/search?in=txt", {"text": "x"}, 422, "did you mean 'text'?"),
        ("/search?k=0", {"text": "x"}, 422, "the parameter 'k'"),
        ("/search", {}, 422, "the query is empty"),
        ("/search", [{}, {}], 422, "expected one row"),
        ("/search?alignment=x", {"text": "x"}, 422, "no alignment 'x'"),
        ("/classify", {"text": "x"}, 422, "the parameter 'labels' is missing"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    search: httpx.Client, path: str, body: object, status: int, message: str
) -> None:
    response = search.post(path, json=body)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_labels_of_ones_own_are_the_models(search: httpx.Client, pairs: plait.Model, folder: Path) -> None:
    photo = folder / "photos" / "0-4.png"
    labels = ["cherry", "leaf", "sky"]
    parameters = {"labels": labels, "template": "there is a {}", "column": "photo"}
    response = search.post("/classify", params=parameters, files={"photo": photo.read_bytes()})
    expected = pairs.classify([{"photo": str(photo)}], labels, "photo", ["there is a {}"]).to_pylist()
    (answer,) = response.json()["answers"]
    assert answer["label"] == expected[0]["label"]
    assert answer["cosine"] == pytest.approx(expected[0]["cosine"], abs=1e-4)


def test_a_column_is_embedded_in_its_space(search: httpx.Client, pairs: plait.Model) -> None:
    row = {"text": "there is a leaf"}
    response = search.post("/embed?column=text", json=row)
    np.testing.assert_allclose(response.json()["embeddings"], pairs.embed([row], column="text"), atol=1e-4)


def test_only_media_of_the_index_are_given_out(
    search: httpx.Client, folder: Path, pairs: plait.Model
) -> None:
    (alignment,) = pairs.alignments
    for row, column in ((10**6, "photo"), (0, "text"), (0, "row_folder"), (0, "../photo")):
        query = {"row": row, "column": column, "alignment": alignment}
        assert search.get("/media", params=query).status_code == 404
    for number in (-1, 2**63, 10**30):
        query = {"row": number, "column": "photo", "alignment": alignment}
        assert search.get("/media", params=query).status_code == 422
    assert search.get("/media", params={"row": "0 or 1=1", "column": "photo"}).status_code == 422

    # A file that is no image by now is not given out, whatever its name.
    index = pairs.index([{"photo": "secret.png", "text": "a secret"}], folder / "other", root=folder)
    (folder / "secret.png").write_text("-----BEGIN PRIVATE KEY-----")
    assert len(index) == 1
    with pytest.raises(Refusal):
        Gallery(pairs, folder / "other").file(0, "photo", alignment)


def test_a_model_without_an_index_says_so(pairs: plait.Model, tmp_path: Path, folder: Path) -> None:
    model = plait.load(pairs.folder, quiet=True)
    model.folder = tmp_path
    for name in ("plan.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((pairs.folder / name).read_bytes())
    with served(model) as client:
        response = client.post("/search", json={"text": "x"})
    assert response.status_code == 404
    assert "plait index" in response.json()["error"]
    assert str(tmp_path) not in response.json()["error"]


def test_searches_that_cost_too_much_are_refused(search: httpx.Client) -> None:
    query = {"text": "a cherry"}
    costly = search.post("/search", params={"where": "length(repeat('x', 1000000000)) > 1"}, json=query)
    assert costly.status_code == 422
    assert costly.json()["error"].startswith("where: the function 'repeat' is not allowed")
    assert search.post("/search", params={"where": "lower(shop) = 'north'"}, json=query).status_code == 200

    many = {"labels": [str(n) for n in range(300)], "template": [f"{n} {{}}" for n in range(10)]}
    prompts = search.post("/classify", params=many, json=query)
    assert prompts.status_code == 422
    assert prompts.json()["error"] == "expected at most 2,000 labels times templates"
