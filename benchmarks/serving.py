"""How a service answers uploads of images: benchmarks/serving.py

A model that reads images (and texts) by pretrained encoders is served in one process, and clients in another
send requests over loopback: each uploads a JPEG of 224 pixels, or a text, that was not sent before, so that
nothing is answered from a cache. "One by one" is the same service with batches of one row. LitServe serves
the same model if it is installed (pip install litserve).

Overload: requests arrive at about four times the rate that the service can answer. Each must be answered
within the bound on latency, or refused. Memory: that of the service and its workers, over many requests.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import plait
from clients import Answers, ask, form
from measure import HERE, machine, page, read_arguments, remembered, sample_table, table
from plait.samples import stamps


class Sizes(NamedTuple):
    """`requests` are distinct ones; `seconds` is how long each load lasts; `total` are those of memory."""

    clients: tuple[int, ...]
    requests: int
    seconds: float
    total: int


FULL, QUICK = Sizes((1, 8, 64), 2000, 15.0, 100_000), Sizes((1, 4), 20, 0.5, 100)
SIDE = 224  # pixels of an uploaded image
MOST_GROWTH = 50  # megabytes, after the first quarter of the requests
LATENCY = 2.0  # seconds: the bound of the overloaded service


def images(count: int, side: int = SIDE) -> list[bytes]:
    """Return JPEGs of blots, each different."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=85)
        files.append(buffer.getvalue())
    return files


def trained(quick: bool, folder: Path) -> plait.Model:
    """Train a model of images and texts; a quick one of a few made up rows."""
    if not quick:
        overrides = ["training.epochs=10"]
        columns = dict.fromkeys(("sound", "speech"), "ignored")
        cells = sample_table(stamps)
        return plait.fit(cells, "category", columns=columns, overrides=overrides, out=folder, quiet=True)
    rows = [
        {"picture": file, "sentence": f"blot {n}", "category": "ab"[n % 2]}
        for n, file in enumerate(images(24, 16))
    ]
    overrides = ["training.epochs=1", "quality=network", "modalities.image.size=16", "pretrained=off"]
    return plait.fit(rows, "category", overrides=overrides, out=folder, quiet=True)


@contextmanager
def running(command: list[str], port: int) -> Iterator[tuple[str, int]]:
    """Run a server, and give its address and the number of its process once it is ready."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet, start_new_session=True) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120
            while not answers_health(address):
                assert process.poll() is None, command
                assert time.monotonic() < deadline, command
                time.sleep(0.2)
            yield address, process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def answers_health(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def plait_server(run: Path, port: int, *options: str) -> list[str]:
    common = [sys.executable, "-m", "plait", "serve", str(run), "--port", str(port)]
    return [*common, "--cache", "0", "--requests", "1000", "--latency", "60", *options]


def litserve_server(run: Path, port: int, batch: int) -> list[str]:
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import serving_litserve as server; "
    return [sys.executable, "-c", f"{code}server.serve({str(run)!r}, {port}, {batch})"]


def memory(process: int) -> float:
    """Return the megabytes that a process and all its descendants hold by themselves."""
    total = 0.0
    waiting = [process]
    while waiting:
        number = waiting.pop()
        folder = Path(f"/proc/{number}")
        try:
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):  # shared pages count for each process by their share
                    total += int(line.split()[1]) / 1000
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return total


def loads(run: Path, sizes: Sizes) -> str:
    """Measure the rates and times of each server under each load."""
    kinds = {
        "images": [form({"picture": file}) for file in images(sizes.requests)],
        "texts": [
            form({"sentence": f"A stamp with the number {n}, of {n * 7 % 1000} cents."})
            for n in range(sizes.requests)
        ],
    }
    port = free_port()
    servers = {
        "plait": plait_server(run, port),
        "plait, one by one": plait_server(run, port, "--batch", "1", "--wait", "0"),
    }
    if importlib.util.find_spec("litserve"):
        servers["LitServe"] = litserve_server(run, port, 32)
        servers["LitServe, one by one"] = litserve_server(run, port, 1)

    lines: list[list[object]] = []
    for name, command in servers.items():
        with running(command, port) as (address, _):
            for kind, requests in kinds.items():
                ask(address, requests, 4, total=8)  # the first ones take longer
                for clients in sizes.clients:
                    answers = ask(address, requests, clients, sizes.seconds)
                    lines.append([kind, name, clients, *shown(answers)])
                    print(*lines[-1], flush=True)
    lines.sort(key=lambda line: (str(line[0]), int(str(line[2]))))
    headers = ["uploads", "server", "clients", "answers a second", "p50 ms", "p99 ms", "failed"]
    return table(headers, lines)


def shown(answers: Answers) -> list[str]:
    failed = sum(len(seconds) for status, seconds in answers.seconds.items() if status != 200)
    percentiles = [f"{answers.percentile(percent):.0f}" for percent in (50, 99)]
    return [f"{answers.a_second:.1f}", *percentiles, str(failed)]


def overload(run: Path, sizes: Sizes) -> str:
    """Let requests arrive at about four times the rate that the service can answer."""
    requests = [form({"picture": file}) for file in images(sizes.requests)]
    port = free_port()
    command = [*plait_server(run, port), "--latency", str(LATENCY), "--requests", "64"]
    with running(command, port) as (address, _):
        rate = ask(address, requests, 32, sizes.seconds).a_second
        clients = 480  # the service takes 500 connections
        pause = clients / (8 * rate)  # each also waits for its answer, for about as long
        answers = ask(address, requests, clients, sizes.seconds, pause=pause, timeout=10 * LATENCY)
        after = ask(address, requests, 1, total=20)
    sent = sum(map(len, answers.seconds.values()))
    line = [
        f"{rate:.0f}", f"{sent / answers.duration:.0f}", f"{sent / answers.duration / rate:.1f}x",
        answers.count(200), answers.count(429),
        sent - answers.count(200) - answers.count(429),
        f"{answers.percentile(50):.0f} / {answers.percentile(99):.0f}",
        f"{answers.longest:.2f}", f"{after.percentile(50):.0f}",
    ]  # fmt: skip
    headers = [
        "answers a second", "requests a second", "ratio", "answered (200)", "refused (429)", "others",
        "p50 / p99 ms of answers", "longest, s", "p50 ms afterwards",
    ]  # fmt: skip
    return table(headers, [line])


def growth(run: Path, sizes: Sizes) -> str:
    """Measure the memory of the service over many requests: new texts, and an eighth with a new image."""
    files = images(64, 32)

    def request(rng: random.Random) -> bytes:
        """Return a request that was not sent before: bytes behind a JPEG's end change its content alone."""
        number = rng.getrandbits(64)
        fields: dict[str, str | bytes] = {"sentence": f"Stamp {number}."}
        if number % 8 == 0:
            fields["picture"] = files[number // 8 % 64] + number.to_bytes(8, "little")
        return form(fields)

    port = free_port()
    lines: list[list[object]] = []
    megabytes: list[float] = []
    with running([*plait_server(run, port), "--cache", "16"], port) as (address, process):
        done = 0
        for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0):
            answers = ask(address, request, 16, total=max(int(sizes.total * share) - done, 1))
            done += answers.count(200)
            megabytes.append(memory(process))
            lines.append([f"{done:,}", f"{megabytes[-1]:.0f}", f"{answers.a_second:.0f}"])
            print(*lines[-1], flush=True)
    grown = megabytes[-1] - megabytes[2]
    verdict = "within" if grown < MOST_GROWTH else "beyond"
    text = table(["requests", "megabytes", "answers a second"], lines)
    bound = f"{verdict} the bound of {MOST_GROWTH} MB"
    return f"{text}\n\nAfter the first quarter it grew by {grown:.0f} MB: {bound}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(SECTIONS), help="measure this alone")
    arguments = read_arguments(parser, scores="serving.jsonl")
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trained(arguments.quick, run)
        work = []
        for name, (_, measure) in SECTIONS.items():
            if arguments.only in (None, name):
                work.append((name, partial(measure, run, sizes)))
        sections = remembered(arguments.scores, work)
    text = "\n\n".join(f"## {SECTIONS[name][0]}\n\n{section}" for name, section in sections.items())
    made = f"Made by `benchmarks/serving.py`; clients and service share {os.cpu_count()} cores; {machine()}."
    page("serving.md", f"# Serving\n\n{made}\n\n{text}", arguments)


SECTIONS = {
    "loads": (f"Rates and times, {FULL.seconds:g} s each", loads),
    "overload": (f"More requests than it can answer, with a bound of {LATENCY:g} s", overload),
    "growth": ("Memory (PSS of all processes)", growth),
}


if __name__ == "__main__":
    main()
