"""Streams of rows are answered while they arrive, in order, and one bad line stops no other."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pytest

import plait
from support.serving import served

LINES = {"content-type": "application/jsonl"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
ROWS = [{"text": f"house number {number}", "price": number / 10} for number in range(100)]


def lines(rows: list[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def stream(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None, chunk: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def expected(model: plait.Model) -> list[dict[str, object]]:
    return model.predict(ROWS).to_pylist()


def probabilities(answers: list[dict[str, object]]) -> list[object]:
    return [answer["label_probability_red"] for answer in answers]


def test_each_line_gets_a_line(service: httpx.Client, expected: list[dict[str, object]]) -> None:
    response = service.post("/predict/batch", content=lines([*ROWS]), headers=LINES)
    assert response.headers["content-type"].startswith("application/jsonl")
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
    assert probabilities(answers) == pytest.approx(probabilities(expected), abs=1e-4)


def test_arrow_is_answered_in_arrow(service: httpx.Client, expected: list[dict[str, object]]) -> None:
    content = stream(pa.Table.from_pylist(ROWS), chunk=7)
    response = service.post("/predict/batch", content=content, headers=ARROW)
    answers = pa.ipc.open_stream(response.content).read_all()
    assert answers.num_rows == len(ROWS)
    assert probabilities(answers.to_pylist()) == pytest.approx(probabilities(expected), abs=1e-4)


def test_arrow_without_rows_has_the_answers_columns(service: httpx.Client, model: plait.Model) -> None:
    content = stream(pa.Table.from_pylist(ROWS).slice(0, 0))
    response = service.post("/predict/batch", content=content, headers=ARROW)
    assert pa.ipc.open_stream(response.content).read_all().schema == model.predict([]).schema


def test_a_bad_line_is_answered_by_its_error(service: httpx.Client) -> None:
    bad_photo = {"photo": base64.b64encode(b"this is no image, whatever it says").decode()}
    rows: list[object] = [ROWS[0], {"phto": "x"}, [1], bad_photo, ROWS[1]]
    content = lines(rows) + b"{broken\n\n" + lines([ROWS[2]]).rstrip(b"\n")
    answers = [
        json.loads(line)
        for line in service.post("/predict/batch", content=content, headers=LINES).text.splitlines()
    ]
    assert [answer.get("row") for answer in answers] == [None, 1, 2, None, None, 5, None]
    assert "did you mean 'photo'?" in answers[1]["error"]
    assert answers[3]["problem"].startswith("photo: not an image")
    assert all("label" in answers[row] for row in (0, 3, 4, 6))


def test_a_line_is_answered_before_the_next_is_sent(service: httpx.Client) -> None:
    """The request is one that lasts as long as its sender likes."""
    address = urlsplit(str(service.base_url))
    head = f"POST /predict/batch HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/jsonl\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        received = b""
        for number in range(3):
            line = lines([{"price": number}])
            connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while received.count(b'"label"') <= number:
                received += connection.recv(65536)
        connection.sendall(b"0\r\n\r\n")
        while b"\r\n0\r\n\r\n" not in received:
            received += connection.recv(65536)
    assert received.count(b'"label"') == 3


def test_answers_may_be_read_after_all_rows(model: plait.Model) -> None:
    """A client that sends megabytes before it reads anything is not kept waiting."""

    def many() -> Iterator[bytes]:
        for _ in range(200):
            yield lines([*ROWS])

    with served(model.folder, batch=256) as client:
        response = client.post("/predict/batch", content=many(), headers=LINES)
    assert len(response.content) > 2_000_000
    assert response.text.count("\n") == 200 * len(ROWS)


def test_arrow_of_rows_without_columns_is_refused(service: httpx.Client) -> None:
    structs = pa.array([{}] * 1000, pa.struct([]))
    batch = pa.RecordBatch.from_struct_array(structs)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    response = service.post("/predict/batch", content=sink.getvalue().to_pybytes(), headers=ARROW)
    assert response.status_code == 422


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.duration("s"), pa.timestamp("us")])
def test_arrow_dates_beyond_all_calendars_are_refused(service: httpx.Client, kind: pa.DataType) -> None:
    table = pa.table({"price": pa.array([2**62], pa.int64()).cast(kind)})
    response = service.post("/predict/batch", content=stream(table), headers=ARROW)
    assert response.status_code < 500


def test_a_line_in_many_pieces_is_one_line(service: httpx.Client) -> None:
    line = lines([{"text": "x" * 5000}, ROWS[0]])
    pieces = (line[number : number + 1] for number in range(len(line)))
    response = service.post("/predict/batch", content=pieces, headers=LINES)
    assert response.text.count("\n") == 2


def test_streams_have_a_bound(model: plait.Model) -> None:
    with served(model.folder, streams=1, upload=1.0) as client:
        address = urlsplit(str(client.base_url))
        head = (
            f"POST /predict/batch HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/jsonl\r\n"
        )
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n".encode())
            while client.post("/predict/batch", content=b"{}\n", headers=LINES).status_code != 429:
                time.sleep(0.01)
            assert client.post("/predict", json={}).status_code == 200

            # It brings no row, though bytes: it ends, and another one may begin.
            assert b" 408 " in connection.recv(1000)
        assert client.post("/predict/batch", content=b"{}\n", headers=LINES).status_code == 200


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (pa.table({"text": ["a", "b"]}), pa.ipc.IpcWriteOptions(compression="zstd"), "compressed Arrow"),
        (pa.table({"text": pa.array(["a", "a"]).dictionary_encode()}), None, "cells of type dictionary"),
        (pa.table({"text": pa.nulls(10**9)}), None, "cells of type null"),
        (pa.table({"phto": ["a"]}), None, "did you mean 'photo'?"),
    ],
)
def test_arrow_that_could_be_a_bomb_is_refused(
    service: httpx.Client, table: pa.Table, options: pa.ipc.IpcWriteOptions | None, message: str
) -> None:
    response = service.post("/predict/batch", content=stream(table, options), headers=ARROW)
    assert response.status_code == 422
    assert message in response.json()["error"]


def test_arrow_with_any_byte_changed_is_no_bug(service: httpx.Client) -> None:
    content = stream(pa.Table.from_pylist(ROWS[:3]))
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        try:
            response = service.post("/predict/batch", content=bytes(changed), headers=ARROW)
        except httpx.RemoteProtocolError:  # the answers had begun, and were cut off
            continue
        assert response.status_code < 500, position
    assert service.post("/predict", json={}).status_code == 200


def test_other_kinds_of_streams_are_refused(service: httpx.Client) -> None:
    response = service.post("/predict/batch", content=b"a,b\n", headers={"content-type": "text/csv"})
    assert response.status_code == 415
    assert "application/jsonl" in response.json()["error"]


def test_a_line_that_is_too_long_ends_the_stream(model: plait.Model) -> None:
    with served(model.folder, body=1000) as client:
        content = lines([ROWS[0], {"text": "x" * 5000}])
        answers = client.post("/predict/batch", content=content, headers=LINES).text.splitlines()
    assert "label" in json.loads(answers[0])
    assert "1,000 bytes" in json.loads(answers[-1])["error"]
