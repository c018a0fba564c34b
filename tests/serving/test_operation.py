"""What those who run a service rely on: bounds, tokens, metrics, shutdown."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import plait
from plait.cli.main import run
from support.serving import served

ROW = {"text": "there is a leaf near house number 7"}


class Slow:
    """A model whose answers take a while."""

    def __init__(self, model: plait.Model, seconds: float) -> None:
        self._answer = model.answer
        self._seconds = seconds

    def __call__(self, table: object) -> object:
        time.sleep(self._seconds)
        return self._answer(table)  # type: ignore[arg-type]


@pytest.fixture
def slow(model: plait.Model, monkeypatch: pytest.MonkeyPatch) -> plait.Model:
    loaded = plait.load(model.folder, quiet=True)
    monkeypatch.setattr(loaded, "answer", Slow(loaded, 0.2))
    return loaded


def post(client: httpx.Client) -> tuple[int, float, str]:
    began = time.monotonic()
    response = client.post("/predict", json=ROW)
    return response.status_code, time.monotonic() - began, response.headers.get("retry-after", "")


def test_under_overload_each_is_answered_in_time_or_refused(slow: plait.Model) -> None:
    """Five batches fit into the bound; many more arrive."""
    with served(slow, latency=1.0, batch=2, requests=100) as client, ThreadPoolExecutor(40) as pool:
        results = list(pool.map(lambda _: post(client), range(40)))

    statuses = [status for status, _, _ in results]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4
    assert all(seconds < 3 for _, seconds, _ in results)  # the bound, and time for a busy machine
    assert all(after.isdigit() for status, _, after in results if status == 429)


def test_a_request_that_takes_too_long_by_itself_is_refused(slow: plait.Model) -> None:
    with served(slow, latency=0.1) as client:
        response = client.post("/predict", json=ROW)
    assert response.status_code == 422
    assert "longer than 0.1 s" in response.json()["error"]


def test_more_requests_at_once_than_allowed_are_refused(slow: plait.Model) -> None:
    with served(slow, requests=3) as client, ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda _: post(client), range(12)))
        assert client.get("/health").status_code == 200
    statuses = [status for status, _, _ in results]
    assert statuses.count(200) >= 3
    assert 429 in statuses


def test_after_an_overload_requests_are_answered_again(slow: plait.Model) -> None:
    with served(slow, latency=0.5, batch=1) as client, ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: post(client), range(20)))
        deadline = time.monotonic() + 20
        while post(client)[0] != 200:
            assert time.monotonic() < deadline


def test_requests_in_flight_are_answered_before_the_end(slow: plait.Model) -> None:
    results: list[int] = []
    with served(slow) as client:
        address = f"{client.base_url}/predict"
        thread = threading.Thread(target=lambda: results.append(httpx.post(address, json=ROW).status_code))
        thread.start()
        while "plait_requests_in_flight 2.0" not in client.get("/metrics").text:  # itself is one of them
            time.sleep(0.01)
        assert not results
    thread.join()
    assert results == [200]


def test_with_a_token_each_request_must_bring_it(model: plait.Model) -> None:
    with served(model.folder, token="secret") as client:
        assert client.get("/health").status_code == 200
        for path in ("/schema", "/metrics", "/openapi.json", "/predict", "/nothing"):
            response = client.post(path, json={}) if path == "/predict" else client.get(path)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
        for wrong in ("", "Bearer", "Bearer secre", "Bearer secrets", "Basic secret", "bearer  sécret"):
            headers = {"authorization": wrong.encode()}
            assert client.post("/predict", json={}, headers=headers).status_code == 401, wrong
        assert client.post("/predict", json={}, headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/schema", headers={"cookie": "plait_token=secret"}).status_code == 200
        assert client.get("/schema", headers={"cookie": "plait_token=other"}).status_code == 401


def test_pages_elsewhere_cannot_ask_by_another_name(model: plait.Model) -> None:
    """A name of theirs may lead to this machine."""
    with served(model.folder, local=True) as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "[::1", "@"):
            response = client.post("/predict", json=ROW, headers={"host": host})
            assert response.status_code in (400, 403), host
        for host in ("localhost", "127.0.0.1:80", "[::1]:80"):
            assert client.post("/predict", json=ROW, headers={"host": host}).status_code == 200, host


def value(text: str, metric: str) -> float:
    return float(text.split(f"\n{metric} ")[1].split()[0])


def test_metrics_count_what_happened(model: plait.Model) -> None:
    with served(model.folder) as client:
        before = value(client.get("/metrics").text, "plait_batch_rows_sum")
        client.post("/predict", json=[ROW, ROW])
        client.post("/predict", files={"photo": b"this is no image"})
        client.get("/nothing")
        text = client.get("/metrics").text
    assert 'plait_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'plait_requests_total{route="/predict",status="422"} 1.0' in text
    assert 'plait_requests_total{route="other",status="404"} 1.0' in text
    assert 'plait_bad_cells_total{column="photo"} 1.0' in text
    assert value(text, "plait_batch_rows_sum") == before + 3  # two rows, and one with a bad cell
    assert 'plait_request_seconds_count{route="/predict"} 2.0' in text


def test_a_client_that_says_nothing_is_cut_off(model: plait.Model) -> None:
    with served(model.folder, upload=0.3) as client:
        address = urlsplit(str(client.base_url))
        for beginning in (b"", b"POST /predict HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
                connection.sendall(beginning)
                assert connection.recv(1000) == b""


def test_trailers_without_end_are_cut_off(service: httpx.Client) -> None:
    address = urlsplit(str(service.base_url))
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head)
        trailers = (b"x: " + b"y" * 1000 + b"\r\n") * 10_000
        with pytest.raises(OSError):  # the service closes the connection
            connection.sendall(trailers)


def test_bodies_have_a_bound_together(model: plait.Model) -> None:
    with served(model.folder, bodies=100_000, upload=5.0) as client:
        address = urlsplit(str(client.base_url))
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(head + b"Content-Length: 90000\r\n\r\n" + b" " * 80_000)
            large = {"text": "x" * 50_000}
            while client.post("/predict", json=large).status_code != 429:
                time.sleep(0.01)
            assert client.post("/predict", json=ROW).status_code == 200
        while client.post("/predict", json=large).status_code != 200:  # the client has gone away
            time.sleep(0.01)


def test_pages_of_other_sites_cannot_ask(service: httpx.Client) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    assert service.post("/predict", json=ROW, headers=headers).status_code == 403
    assert service.get("/health").headers["cross-origin-resource-policy"] == "same-origin"


def test_a_body_that_does_not_arrive_is_refused(model: plait.Model) -> None:
    with served(model.folder, upload=0.3) as client:
        address = urlsplit(str(client.base_url))
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(head + b"Content-Length: 9\r\n\r\n{")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_bug_is_said_to_be_one(
    model: plait.Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = plait.load(model.folder, quiet=True)
    with served(loaded) as client:

        def fail(table: object) -> None:
            raise ZeroDivisionError("at 0x7f00")

        monkeypatch.setattr(loaded, "answer", fail)
        response = client.post("/predict", json=ROW)
    assert response.status_code == 500
    assert response.json() == {"error": "this is a bug in plait; the log of the service says more"}
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_command_serves_until_it_is_told_to_stop(model: plait.Model) -> None:
    arguments = [sys.executable, "-m", "plait", "serve", str(model.folder), "--port", "0", "--workers", "1"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not lines or "serving at" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        address = lines[-1].split()[2]
        assert httpx.post(f"{address}/predict", json=ROW).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--files", "nowhere"], "no folder 'nowhere'"),
        (["--host", "203.0.113.1"], "cannot listen at 203.0.113.1:8000"),
        (["--token-file", "nowhere"], "the token file 'nowhere' cannot be read"),
        (["--index", "nowhere"], "this model aligns no columns"),
    ],
)
def test_the_command_says_what_is_wrong(
    model: plait.Model, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", str(model.folder), *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("token", "message"), [("\n", "is empty"), ("sécret", "ASCII"), ("a\nb", "ASCII")])
def test_a_token_that_nobody_could_bring_is_refused(
    model: plait.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str, message: str
) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    assert run(["serve", str(model.folder), "--token-file", str(tmp_path / "token")]) == 1
    assert message in capsys.readouterr().err


def test_a_service_that_cannot_start_says_so(
    model: plait.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("plait.serving.service.Decoder", fail)
    assert run(["serve", str(model.folder), "--port", "0"]) == 1
    assert "could not start" in capsys.readouterr().err


def test_a_second_signal_stops_at_once(model: plait.Model) -> None:
    """A stream that says nothing would keep the service for half a minute."""
    arguments = [sys.executable, "-m", "plait", "serve", str(model.folder), "--port", "0", "--workers", "1"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "serving at" not in line:
            line = process.stderr.readline()
        address = urlsplit(line.split()[2])
        head = "POST /predict/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/jsonl\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\n{{}}\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            process.send_signal(signal.SIGINT)
            assert "waiting for 1 request; Ctrl-C again stops at once" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_parameter_that_does_not_exist_is_refused(service: httpx.Client) -> None:
    response = service.post("/predict?strickt=false", json=ROW)
    assert response.status_code == 422
    assert "did you mean 'strict'?" in response.json()["error"]
