"""The service answers rows as the model itself does, whatever form they come in."""

from __future__ import annotations

import base64
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import plait
from support.serving import served
from support.tables import FAST, make_rows, write_csv

ROW = {"text": "there is a leaf near house number 7", "price": 1.1, "shop": "north"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos that the model has not seen: red, green, blue."""
    folder = tmp_path_factory.mktemp("photos")
    return [folder / row["photo"] for row in make_rows(folder, 3, seed=9)]


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Rows that are answered together differ from single ones by rounding alone."""
    assert answer.keys() == expected.keys()
    for name, value in expected.items():
        assert answer[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), name


def predicted(model: plait.Model, row: dict[str, object]) -> dict[str, Any]:
    return dict(model.predict(row).to_pylist()[0])


@pytest.mark.parametrize("left_out", ["nothing", "photo", "text", "price", "shop"])
def test_a_row_gets_the_answer_of_the_model(
    service: httpx.Client, model: plait.Model, photos: list[Path], left_out: str
) -> None:
    row = {**ROW, "photo": str(photos[1])}
    row.pop(left_out, None)
    sent = {**row, "photo": base64_of(photos[1])} if "photo" in row else row

    response = service.post("/predict", json=sent)

    assert response.status_code == 200
    (answer,) = response.json()["answers"]
    assert_same(answer, predicted(model, row))


def test_an_empty_row_gets_the_baseline(service: httpx.Client, model: plait.Model) -> None:
    (answer,) = service.post("/predict", json={}).json()["answers"]
    assert_same(answer, predicted(model, dict.fromkeys(ROW)))


def test_files_come_in_many_forms(service: httpx.Client, photos: list[Path], tmp_path: Path) -> None:
    encoded = base64_of(photos[0])
    bare = service.post("/predict", json={"photo": encoded})
    uri = service.post("/predict", json={"photo": f"data:image/png;base64,{encoded}"})
    quoted = service.post("/predict", json={"photo": f"data:image/png;base64,{quote(encoded, safe='')}"})
    urlsafe = service.post(
        "/predict", json={"photo": encoded.replace("+", "-").replace("/", "_").rstrip("=")}
    )
    upload = service.post("/predict", files={"photo": ("a.png", photos[0].read_bytes(), "image/png")})

    answers = [response.json()["answers"] for response in (bare, uri, quoted, urlsafe, upload)]
    assert answers[0][0]["label"] == "red"
    assert answers == [answers[0]] * 5


def test_a_form_has_texts_as_a_table_writes_them(service: httpx.Client, photos: list[Path]) -> None:
    form = {**{name: str(cell) for name, cell in ROW.items()}, "price": " 1.1 ", "shop": ""}
    upload = {"photo": ("", b"", "application/octet-stream")}  # what a browser sends for no file
    response = service.post("/predict", data=form, files=upload)

    expected = service.post("/predict", json={**ROW, "shop": None})
    assert response.json() == expected.json()


def test_rows_are_answered_in_their_order(service: httpx.Client, photos: list[Path]) -> None:
    rows = [{"photo": base64_of(photo)} for photo in photos] + [{}]
    answers = service.post("/predict", json=rows).json()["answers"]
    assert [answer["label"] for answer in answers[:3]] == ["red", "green", "blue"]
    assert len(answers) == 4


def test_requests_at_once_get_their_own_answers(model: plait.Model, photos: list[Path]) -> None:
    """They are answered as batches, and one that is refused spoils none of the others."""
    rows = [{"photo": base64_of(photos[number % 3]), "price": number / 8} for number in range(24)]
    rows[5] = {"photo": base64.b64encode(b"no image at all, but long enough for base64").decode()}
    with served(model.folder, wait=0.05) as client, ThreadPoolExecutor(24) as pool:
        alone = [client.post("/predict", json=row).json() for row in rows]
        together = list(pool.map(lambda row: client.post("/predict", json=row).json(), rows))
        batches = client.get("/metrics").text

    assert "error" in together[5]
    for single, batched in zip(alone, together, strict=True):
        assert single.keys() == batched.keys()
        for one, other in zip(single.get("answers", []), batched.get("answers", []), strict=True):
            assert_same(other, one)
    answered_rows = float(batches.split("plait_batch_rows_sum ")[1].split()[0])
    answered_batches = float(batches.split("plait_batch_rows_count ")[1].split()[0])
    assert answered_rows > 1.3 * answered_batches


ODD = [
    {"shop": "north"}, {"shop": ["north"]}, {"shop": 5}, {"shop": True}, {"price": 1.5}, {"price": 1},
    {"price": "1"}, {"price": [1]}, {"price": "cheap"}, {"text": "a leaf"}, {"text": ["a", "leaf"]},
    {"text": 7.5}, {"text": [1, 2]}, {"text": None}, {"photo": "x"}, {},
]  # fmt: skip


def test_no_row_changes_the_answer_of_another(service: httpx.Client) -> None:
    """Whatever kinds of cells stand beside each other."""
    alone = [service.post("/predict?strict=false", json=row) for row in ODD]
    for first, second in itertools.product(range(len(ODD)), repeat=2):
        if alone[first].status_code != 200 or alone[second].status_code != 200:
            continue
        together = service.post("/predict?strict=false", json=[ODD[first], ODD[second]]).json()
        assert_same(together["answers"][0], alone[first].json()["answers"][0])
        assert_same(together["answers"][1], alone[second].json()["answers"][0])


def test_a_bad_file_is_refused_with_its_column(service: httpx.Client) -> None:
    response = service.post("/predict", files={"photo": ("a.png", b"\x89PNG\r\n\x1a\n and nothing more")})
    assert response.status_code == 422
    (cell,) = response.json()["cells"]
    assert (cell["row"], cell["column"]) == (0, "photo")
    assert response.json()["error"].startswith("column 'photo': ")


def test_without_strict_a_bad_file_is_missing(service: httpx.Client) -> None:
    row = {**ROW, "photo": base64.b64encode(b"this is no image, whatever it says").decode()}
    (answer,) = service.post("/predict?strict=false", json=row).json()["answers"]
    (expected,) = service.post("/predict", json=ROW).json()["answers"]
    assert answer.pop("problem").startswith("photo: not an image")
    assert_same({**answer, "problem": None}, expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"phto": "x"}, "the model knows no such column: did you mean 'photo'?"),
        ({"photo": 5}, "expected a file, as an upload, base64 or a data URI; came a number"),
        ({"photo": "/etc/passwd"}, "came '/etc/passwd'"),
        ({"photo": "http://example.com/a.png"}, "came 'http://example.com/a.png'"),
        ({"photo": ["x", "y"]}, "came a list, and training had one file in each cell"),
        ({"photo": "data:image/png;base64,"}, "a data URI without content"),
        ({"price": "cheap"}, "expected a number"),
        ({"price": {"a": 1}}, "price"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(
    service: httpx.Client, row: dict[str, object], message: str
) -> None:
    response = service.post("/predict", json=row)
    assert response.status_code == 422
    assert message in response.json()["error"]
    assert next(iter(row)) in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"price": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"5", "application/json", 422),
        (b"[5]", "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"no boundary", "multipart/form-data", 400),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400),
    ],
)
def test_a_body_that_cannot_be_parsed_is_refused(
    service: httpx.Client, body: bytes, kind: str, status: int
) -> None:
    headers = {"content-type": kind} if kind else {}
    response = service.post("/predict", content=body, headers=headers)
    assert response.status_code == status
    assert response.json()["error"]


def test_what_is_too_large_is_refused(model: plait.Model) -> None:
    with served(model.folder, rows=2, body=1000) as client:
        assert client.post("/predict", json=[{}] * 3).status_code == 422
        assert client.post("/predict", json={"text": "x" * 2000}).status_code == 413
        chunks = (b" " * 100 for _ in range(100))
        headers = {"content-type": "application/json"}
        assert client.post("/predict", content=chunks, headers=headers).status_code == 413
        assert client.post("/predict", json={}).status_code == 200


def test_paths_are_read_only_below_the_folder_of_files(
    model: plait.Model, photos: list[Path], tmp_path: Path
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "red.png").write_bytes(photos[0].read_bytes())
    (tmp_path / "outside.png").write_bytes(photos[0].read_bytes())
    (below / "link.png").symlink_to(tmp_path / "outside.png")
    with served(model.folder, files=below) as client:
        good = client.post("/predict", json={"photo": "red.png"})
        assert good.json()["answers"][0]["label"] == "red"
        for path in ("../outside.png", str(tmp_path / "outside.png"), "link.png", "none.png", "a\0b"):
            response = client.post("/predict", json={"photo": path})
            assert response.status_code == 422, path
            assert str(tmp_path) not in response.json()["error"].replace(path, "")


def test_files_of_the_machine_count_as_a_body(model: plait.Model, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(photos[0].read_bytes() + bytes(1_500))
    (tmp_path / "green.png").write_bytes(photos[1].read_bytes() + bytes(1_500))
    with served(model.folder, files=tmp_path, body=4_000) as client:
        assert client.post("/predict", json=[{"photo": "red.png"}] * 9).status_code == 200
        response = client.post("/predict", json=[{"photo": "red.png"}, {"photo": "green.png"}])
        assert response.status_code == 413


def test_ids_come_back_and_targets_are_not_read(tmp_path: Path) -> None:
    rows = [{"id": f"r{number:03}", **row} for number, row in enumerate(make_rows(tmp_path))]
    for row in rows:
        row.pop("photo")
    table = write_csv(tmp_path / "train.csv", rows)
    fast = [option for option in FAST if "photo" not in option]
    trained = plait.fit(table, "label", out=tmp_path / "run", overrides=fast, quiet=True)
    with served(trained.folder) as client:
        sent = {"id": "r999", "label": "red", "text": "there is a leaf"}
        (answer,) = client.post("/predict", json=sent).json()["answers"]
    assert answer["id"] == "r999"
    assert answer["label"] in ("red", "green", "blue")


def test_a_value_unknown_to_the_model_is_warned_of(service: httpx.Client) -> None:
    answer = service.post("/predict", json={"shop": "west"}).json()
    assert answer["warnings"] == [
        "column 'shop': the cell has a value that the model does not know, such as 'west'"
    ]


def test_a_column_left_out_is_not_an_empty_cell(tmp_path: Path) -> None:
    """A model that met empty cells in training tells them from a column that a table lacks."""
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row[["photo", "text", "price", "shop"][number % 4]] = None
    table = write_csv(tmp_path / "train.csv", rows)
    trained = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)

    differing = 0
    with served(trained.folder) as client:
        for name in ROW:
            left_out = {other: cell for other, cell in ROW.items() if other != name}
            sent = [left_out, {**left_out, name: None}]
            answers = client.post("/predict", json=sent).json()["answers"]
            expected = [predicted(trained, row) for row in sent]
            assert_same(answers[0], expected[0])
            assert_same(answers[1], expected[1])
            differing += answers[0] != answers[1]
    assert differing
