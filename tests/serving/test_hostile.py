"""Strangers' requests break nothing: refused with a reason, in a process that has little to take."""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import plait
from plait.serving import protocol, worker
from plait.serving.conditions import check_condition
from plait.serving.decoding import STOPPED
from plait.serving.refusals import Refusal
from support.hostile_files import black, good_files, playlists
from support.hostile_model import GOOD, MEDIA, PLAIN, train
from support.hostile_requests import SECRET, Attack, Target, attacks, faults, posted, request, send
from support.serving import served

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "hostile.py"
ONLY_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems have no such rights to give up"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of all kinds of columns."""
    return train(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[httpx.Client]:
    with served(folder, upload=1.0, decode_time=2.0) as client:
        yield client


def port_of(client: httpx.Client) -> int:
    port = urlsplit(str(client.base_url)).port
    assert port is not None
    return port


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


# --- A sample of the attacks of the benchmark -----------------------------------------------------------


def test_attacks_are_refused_and_read_nothing(
    service: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "planted.ffconcat"
    canary.write_text(f"ffconcat version 1.0\nfile {SECRET}.wav\n")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        target = Target(MEDIA, PLAIN, GOOD, str(canary), address)
        wrong = []
        for attack in attacks(250, target, seed=7):
            for fault in faults(attack, send(attack, port_of(service)), str(tmp_path)):
                wrong.append((attack.kind, attack.name, fault))
        assert wrong == []

        listener.settimeout(0.01)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert "Traceback" not in capfd.readouterr().err
    assert service.post("/predict", json=GOOD).status_code == 200


@pytest.mark.slow
def test_ten_thousand_attacks_change_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--requests", "10000", "--seed", "1", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


# --- Files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", MEDIA)
def test_a_playlist_is_refused_by_column(service: httpx.Client, column: str, tmp_path: Path) -> None:
    content = playlists(str(tmp_path / "x.wav"))["ffconcat"]
    response = service.post("/predict", json={**GOOD, column: in_base64(content)})
    assert response.status_code == 422
    (cell,) = response.json()["cells"]
    assert cell["column"] == column
    assert "a playlist (ffconcat), which may name other files" in cell["problem"]


def test_limits_of_the_service_reach_the_workers(folder: Path) -> None:
    with served(folder, pixels=1_600, frames=4, duration=0.1, decode_memory=20_000_000) as client:
        reasons = {}
        files = {"photo": black(64, 64), "clip": good_files()["mp4"], "call": good_files()["FLAC"]}
        for column, content in files.items():
            row = {column: in_base64(content)}
            reasons[column] = client.post("/predict", json=row).json()["cells"][0]["problem"]
    assert reasons == {
        "photo": "absurd size: more than 1,600 pixels",
        "clip": "absurd length: more than 4 frames",
        "call": "absurd length: 0.2 s, more than 0.1 s",
    }


def test_too_little_memory_is_said_without_names(folder: Path) -> None:
    with served(folder, decode_memory=20_000_000) as client:
        response = client.post("/predict", json={"photo": in_base64(black(6_000, 6_000))})
    assert response.status_code == 422
    assert "PLAIT" not in response.text


def test_texts_have_a_limit(service: httpx.Client) -> None:
    for text in ("x" * 100_001, ["x" * 60_000] * 2):
        response = service.post("/predict", json={"text": text})
        assert response.status_code == 422
        assert response.json()["error"].startswith(
            "column 'text': expected a text of at most 100,000 characters"
        )


def test_json_of_very_many_values_is_not_parsed(service: httpx.Client) -> None:
    content = b'{"place": [' + b"0," * 1_000_001 + b"0]}"
    response = service.post("/predict", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"] == "expected JSON of at most 1,000,000 values"


@pytest.mark.parametrize("cell", [[], [[]], {"bytes": "eA=="}, ["a"]])
def test_a_list_is_no_category(service: httpx.Client, cell: Any) -> None:
    for path in ("/predict", "/embed"):
        response = service.post(path, json={"shop": cell})
        assert response.status_code in (200, 422)
    assert service.post("/predict", json={"shop": ["a"]}).json()["cells"][0]["column"] == "shop"


def test_a_file_is_no_value(service: httpx.Client) -> None:
    for column in PLAIN:
        response = service.post("/predict", files={column: ("x", b"\xff\xfe\x80")})
        assert response.status_code == 422
        assert response.json()["cells"][0]["column"] == column


def test_videos_with_sound_can_be_served(service: httpx.Client) -> None:
    video = in_base64(good_files()["mp4 with sound"])
    (answer,) = service.post("/predict", json={"clip": video}).json()["answers"]
    (without,) = service.post("/predict", json={}).json()["answers"]
    assert answer != without
    assert service.post("/predict", json={"clip.sound": video}).status_code == 422


# --- Worker processes -----------------------------------------------------------------------------------


def workers() -> set[Any]:
    return {process for process in multiprocessing.active_children() if process.is_alive()}


def test_a_worker_that_dies_or_hangs_is_replaced(folder: Path) -> None:
    before = workers()
    with served(folder, decode_time=0.4) as client:
        (process,) = workers() - before
        assert client.post("/predict", json={"photo": in_base64(black(8, 8))}).status_code == 200

        # one that hangs costs the request that it works on, and no other
        image = in_base64(good_files()["PNG"])
        os.kill(process.pid, signal.SIGSTOP)
        response = client.post("/predict", json={"photo": image})
        assert response.status_code == 422
        assert response.json()["error"] == f"column 'photo': {STOPPED}"
        assert client.post("/predict", json={"photo": image}).status_code == 200

        # one that dies while it waits costs none
        (replaced,) = workers() - before
        assert replaced.pid != process.pid
        replaced.kill()
        replaced.join()
        other = in_base64(good_files()["JPEG"])
        assert client.post("/predict", json={"photo": other}).status_code == 200
        assert len(workers() - before) == 1
        assert "plait_worker_restarts_total 2.0" in client.get("/metrics").text


# Decodes a file again and again, in a process that may decode three.
OLD = """
import json, multiprocessing, sys
import pyarrow as pa
from plait.modalities.base import modalities
from plait.serving import worker
from plait.serving.limits import Limits
worker.MOST_FILES = 3
config = modalities.configure("image", {"size": 16})
image = modalities.find("image").fit(config, pa.chunked_array([pa.nulls(0)]))
pipe, theirs = multiprocessing.Pipe()
process = multiprocessing.get_context("fork").Process(
    target=worker.run, args=(theirs, {"photo": [image]}, Limits())
)
process.start()
pipe.recv_bytes()
ends = []
for content in (sys.stdin.buffer.read(), b"x", b"y"):
    pipe.send_bytes(b"photo")
    pipe.send_bytes(content)
    reply = json.loads(pipe.recv_bytes())
    ends.append(reply["last"])
    if "shape" in reply["cells"][0]:
        pipe.recv_bytes()
process.join(20)
print(json.dumps([ends, process.exitcode]))
"""


def test_a_worker_ends_after_so_many_files() -> None:
    run = subprocess.run(
        [sys.executable, "-c", OLD], input=good_files()["PNG"], capture_output=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[False, False, True], 0]


# What a process that was taken over would try. It prints what worked.
TRIED = """
import json, os, socket, subprocess, sys, threading
from plait.serving import sandbox
secret = sys.argv[1]
in_force = sandbox.confine(512 << 20)
tries = {
    "read a file": lambda: open(secret).read(),
    "read passwords": lambda: open("/etc/passwd").read(),
    "list a folder": lambda: os.listdir(os.path.dirname(secret)),
    "write a file": lambda: open(secret + ".new", "w"),
    "delete a file": lambda: os.unlink(secret),
    "read the environment": lambda: open("/proc/self/environ").read(),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "open a socket": socket.socket,
    "start a program": lambda: subprocess.run(["/bin/true"]),
    "fork": os.fork,
    "kill the parent": lambda: os.kill(os.getppid(), 0),
    "take 600 MB": lambda: bytearray(600 << 20),
    "take 200 MB": lambda: bytearray(200 << 20),
    "start a thread": lambda: threading.Thread(target=int).start(),
    "import": lambda: __import__("colorsys"),
}
worked = []
for name, try_it in tries.items():
    try:
        try_it()
    except (OSError, MemoryError):
        continue
    worked.append(name)
print(json.dumps([in_force, worked]))
"""


@ONLY_LINUX
def test_a_confined_process_can_do_little(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    run = subprocess.run(
        [sys.executable, "-c", TRIED, str(secret)], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    in_force, worked = json.loads(run.stdout)
    may = {"take 200 MB", "start a thread", "import"}
    if "landlock" not in in_force:
        may |= {
            "read a file",
            "read passwords",
            "list a folder",
            "delete a file",
            "read the environment",
            "write a file",
        }
    if "seccomp" not in in_force:
        may |= {"connect", "open a socket", "start a program", "fork", "kill the parent"}
    assert set(worked) <= may
    assert {"take 200 MB", "start a thread", "import"} <= set(worked)


def test_a_worker_keeps_no_secrets() -> None:
    harmless = [
        name for name in ("PATH", "LANG", "OMP_NUM_THREADS", "PYTHONPATH") if worker.is_harmless(name)
    ]
    assert len(harmless) == 4
    for name in ("PLAIT_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_URL", "GITHUB_TOKEN"):
        assert not worker.is_harmless(name)


# --- HTTP -----------------------------------------------------------------------------------------------


HEADS = {
    "address": request("GET", "/" + "x" * 70_000),
    "header": request("GET", "/health", headers=[("X", "y" * 70_000)]),
    "many headers": request("GET", "/health", headers=[("X", "y")] * 300),
    "header without an end": b"GET /health HTTP/1.1\r\nX: " + b"y" * 500_000,
    "address without an end": b"GET /" + b"y" * 500_000,
}


@pytest.mark.parametrize("raw", HEADS.values(), ids=HEADS)
def test_a_long_head_is_refused(service: httpx.Client, raw: bytes) -> None:
    reply = send(Attack("HTTP", "head", (raw,)), port_of(service))
    assert reply.status == 400
    assert b'{"error":' in reply.content


def test_a_client_that_reads_nothing_is_cut_off(service: httpx.Client) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port_of(service)))
        with pytest.raises(ConnectionError):
            connection.sendall(asked * 1_000_000)
    for _ in range(200):  # until only the request that asks is in flight
        if "plait_requests_in_flight 1.0" in service.get("/metrics").text:
            return
        time.sleep(0.05)
    raise AssertionError("the connection is still being answered")


def test_connections_have_a_bound(service: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 10)
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(12):
            connection = socket.create_connection(("127.0.0.1", port_of(service)), timeout=20)
            idle.append(stack.enter_context(connection))
        assert idle[-1].recv(1) == b""
    assert service.get("/health").status_code == 200


def test_a_body_that_is_too_large_ends_the_connection(service: httpx.Client) -> None:
    raw = posted("/predict", b"{}").replace(b"Content-Length: 2", b"Content-Length: 99999999999")
    raw = raw.replace(b"Connection: close", b"Connection: keep-alive")
    reply = send(Attack("HTTP", "length", (raw,)), port_of(service))
    assert reply.status == 413
    assert b"connection: close" in reply.content.lower()


def test_a_very_long_name_of_a_column_is_shown_in_part(service: httpx.Client) -> None:
    response = service.post("/predict", json={"x" * 3_000_000: 1})
    assert response.status_code == 422
    assert len(response.content) < 2_000


COLUMNS = ["price", "shop", "title", "unit price", "text"]
REFUSED_CONDITIONS = [
    "length(repeat('x', 1000000000000)) > 1",
    "lpad('x', 2147483647, 'y') = text",
    "repeat/**/('x', 9) = text",
    "repeat -- (\n('x', 9) = text",
    "\"repeat\"('x', 9) = text",
    "`repeat`('x', 9) = text",
    r"E'\'' = text OR repeat('x', 9) = 'y'",
    "$$'$$ = text OR repeat('x', 9) = 'y'",
]


@pytest.mark.parametrize("where", REFUSED_CONDITIONS)
def test_conditions_make_no_large_values(where: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_condition(where, COLUMNS)
    assert refusal.value.message.startswith(("where: the function", "where: comments", "where: no column"))


def test_usual_conditions_are_allowed() -> None:
    for where in (
        "price < 10 AND (shop = 'north' OR shop IN ('a', 'b'))",
        "title = 'Alien (1979)' AND NOT (price BETWEEN 1 AND 2)",
        "lower(`unit price`) = 'a''b(c)' AND starts_with(text, 'x')",
    ):
        check_condition(where, COLUMNS)


@pytest.mark.parametrize(
    "where",
    ["row_folder LIKE '/tmp/%'", "row_content = 'x'", '"vector_0" IS NULL', "_rowid = 1", "`photo` = 'x'"],
)
def test_conditions_name_no_hidden_column(where: str) -> None:
    """They could tell, letter by letter, where files are."""
    with pytest.raises(Refusal, match="where: no column"):
        check_condition(where, COLUMNS)


def test_the_examples_are_those_of_the_table(folder: Path) -> None:
    examples = json.loads((folder / "examples.json").read_text())["rows"]
    assert all("clip.sound" not in row["values"] and "clip.sound" not in row["files"] for row in examples)
    assert plait.load(folder, quiet=True).plan.table_columns == [
        "photo", "text", "price", "shop", "label", "call", "clip", "day", "place",
    ]  # fmt: skip
