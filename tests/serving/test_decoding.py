"""Workers decode files in turns, and one that is stuck or replies nonsense is replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from plait.media.cell import Cell
from plait.modalities.base import modalities
from plait.serving import worker
from plait.serving.decoding import STOPPED, Decoder
from plait.serving.limits import Limits
from plait.serving.metrics import Metrics
from plait.table.table import Table
from support import hostile_worker
from support.hostile_files import black, good_files
from support.hostile_worker import header, reply, says

SIDE = 16  # pixels
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the environment of others")


def image(**options: Any) -> Any:
    """Return how images are prepared."""
    config = modalities.configure("image", {"size": SIDE, **options})
    return modalities.find("image").fit(config, pa.chunked_array([pa.nulls(0)]))


IMAGE = image()
PIXELS = np.full(IMAGE.shape, 7, np.uint8)


def photos(*contents: bytes) -> Table:
    return Table(pa.table({"photo": pa.array(contents, pa.binary())}), Path(), "rows")


@contextmanager
def decoding(workers: int = 1, **limits: Any) -> Iterator[tuple[Decoder, Metrics]]:
    """Give a decoder of images, and what it counts."""
    metrics = Metrics()
    decoder = Decoder({"photo": [IMAGE]}, Limits(workers=workers, **limits), metrics)
    try:
        yield decoder, metrics
    finally:
        decoder.close()


def decoded(decoder: Decoder, content: bytes) -> Cell:
    (cell,) = asyncio.run(decoder.decode(photos(content))).values()
    return cell


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers reply what files say."""
    monkeypatch.setattr(worker, "run", hostile_worker.run)


def processes() -> set[Any]:
    return {process for process in multiprocessing.active_children() if process.is_alive()}


# --- Turns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("taken_over")
def test_a_request_of_many_files_lets_others_pass(workers: int) -> None:
    many = [says(header(notes=["bad"]), b"", seconds=0.03 + number / 1e6) for number in range(60)]
    small = says(header(notes=["small"]))

    async def both(decoder: Decoder) -> None:
        large = asyncio.create_task(decoder.decode(photos(*many)))
        await asyncio.sleep(0.1)
        (cell,) = (await decoder.decode(photos(small))).values()
        assert cell.notes == ("small",)
        assert not large.done()
        large.cancel()

    with decoding(workers) as (decoder, _):
        asyncio.run(both(decoder))


@pytest.mark.usefixtures("taken_over")
def test_a_request_takes_half_of_the_workers() -> None:
    files = [says(header(notes=["bad"]), seconds=0.2 + number / 1e6) for number in range(4)]
    with decoding(4) as (decoder, _):
        begun = time.perf_counter()
        asyncio.run(decoder.decode(photos(*files)))
    assert time.perf_counter() - begun > 0.4


# --- What goes wrong ------------------------------------------------------------------------------------

COUNT = PIXELS.size
WRONG: dict[str, Sequence[bytes]] = {
    "deep JSON": [b"[" * 100_000],
    "no JSON": [b"\xff"],
    "a number": [b"1"],
    "no cells": [b'{"last": false}'],
    "too many cells": [b'{"cells": [{"notes": []}, {"notes": []}], "last": false}'],
    "an infinite size": [b'{"cells": [{"notes": [], "passing": false, "shape": [1e999]}], "last": false}'],
    "a negative size": [header(shape=[-1, -COUNT, 1]), bytes(COUNT)],
    "another shape": [header(shape=[COUNT]), bytes(COUNT)],
    "sizes of text": [header(shape=[str(size) for size in PIXELS.shape]), bytes(COUNT)],
    "another type": [header(shape=PIXELS.shape, dtype="<f8"), bytes(8 * COUNT)],
    "objects": [header(shape=PIXELS.shape, dtype="|O"), bytes(8 * COUNT)],
    "too few bytes": [header(shape=PIXELS.shape), bytes(COUNT - 1)],
    "too many bytes": [header(shape=PIXELS.shape), bytes(COUNT + 1)],
    "a header without an end": [b" " * (2 << 20)],
}


@pytest.mark.parametrize("messages", WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("taken_over")
def test_a_wrong_reply_is_not_that_to_another_file(messages: Sequence[bytes]) -> None:
    with decoding() as (decoder, metrics):
        others = reply(PIXELS + 1)
        assert decoded(decoder, says(*messages, *others)) == Cell(None, (STOPPED,))
        np.testing.assert_array_equal(decoded(decoder, says(*reply(PIXELS))).array, PIXELS)
        assert b"plait_worker_restarts_total 1.0" in metrics.text()


@pytest.mark.usefixtures("taken_over")
def test_a_reply_too_many_is_not_that_to_another_file() -> None:
    with decoding() as (decoder, metrics):
        np.testing.assert_array_equal(
            decoded(decoder, says(*reply(PIXELS), *reply(PIXELS + 1))).array, PIXELS
        )
        np.testing.assert_array_equal(decoded(decoder, says(*reply(PIXELS + 2))).array, PIXELS + 2)
        assert b"plait_worker_restarts_total 1.0" in metrics.text()


@pytest.mark.usefixtures("taken_over")
def test_only_what_a_file_is_to_blame_for_is_cached() -> None:
    bad = says(header(notes=["broken"]))
    passing = says(header(notes=["not enough memory"], passing=True))
    with decoding() as (decoder, _):
        for content in (bad, passing):
            decoded(decoder, content)
        stored = []
        for content in (bad, passing):
            ((identity, digest),) = asyncio.run(decoder.decode(photos(content)))
            stored.append(decoder.cache.get(identity, digest))
    assert stored == [Cell(None, ("broken",)), None]


def test_too_little_memory_is_not_a_bad_file() -> None:
    decoder = Decoder({"photo": [hostile_worker.Short()]}, Limits(workers=1), Metrics())
    try:
        ((key, cell),) = asyncio.run(decoder.decode(photos(b"large"))).items()
        assert cell.notes == ("not enough memory to decode it",)
        assert decoder.cache.get(*key) is None
        ((key, cell),) = asyncio.run(decoder.decode(photos(b"small"))).items()
        assert decoder.cache.get(*key) == cell == Cell(None, ("broken",))
    finally:
        decoder.close()


def test_a_worker_that_reads_nothing_is_replaced() -> None:
    large = good_files()["PNG"] + os.urandom(8 << 20)  # more than a pipe holds
    before = processes()
    with decoding(decode_time=0.3) as (decoder, metrics):
        assert decoded(decoder, black(8, 8)).array is not None
        (process,) = processes() - before
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.perf_counter()
        assert decoded(decoder, large) == Cell(None, (STOPPED,))
        assert time.perf_counter() - begun < 10
        assert decoded(decoder, large).array is not None
        assert b"plait_worker_restarts_total 1.0" in metrics.text()


def test_a_worker_that_does_nothing_delays_no_end() -> None:
    before = processes()
    with decoding(decode_time=60) as (decoder, _):
        assert decoded(decoder, black(8, 8)).array is not None
        (process,) = processes() - before
        os.kill(process.pid, signal.SIGSTOP)
        waiting = threading.Thread(target=decoded, args=[decoder, os.urandom(8 << 20)])
        waiting.start()
        time.sleep(0.2)
        begun = time.perf_counter()
    assert time.perf_counter() - begun < 10
    waiting.join(10)
    assert not waiting.is_alive()
    assert processes() == before


# --- The environment ------------------------------------------------------------------------------------


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is true, for some seconds."""
    for _ in range(500):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError("it has not become true")


@NEEDS_PROC
def test_a_new_fork_server_learns_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", "canary")
    before = processes()
    missing = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            missing.extend(["SERVICE_PASSWORD"] * ("SERVICE_PASSWORD" not in os.environ))

    with decoding() as (decoder, metrics):
        watcher = threading.Thread(target=watch)
        watcher.start()
        assert decoded(decoder, black(8, 8)).array is not None
        (process,) = processes() - before
        server = parent_of(process.pid)
        os.kill(server, signal.SIGKILL)
        until(lambda: not process.is_alive())
        assert decoded(decoder, black(9, 9)).array is not None
        (process,) = processes() - before
        again = parent_of(process.pid)
        is_over.set()
        watcher.join()
        assert b"plait_worker_restarts_total 1.0" in metrics.text()
    assert again != server
    assert b"canary" not in Path(f"/proc/{again}/environ").read_bytes()
    assert missing == []
    child = subprocess.run(["sh", "-c", "echo $SERVICE_PASSWORD"], capture_output=True, text=True)
    assert child.stdout.strip() == "canary"
