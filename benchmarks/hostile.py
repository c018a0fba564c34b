"""Send malformed and hostile requests to a service, and count what comes back.

    python benchmarks/hostile.py [--requests 10000] [--seed 0] [--quick]

A tiny model of all kinds of columns is served by a second process. The requests are made from a seed: damaged
files of every format, bombs, playlists that name files, paths, values of wrong types, broken JSON, forms,
streams and HTTP, slow clients. An answer must have a status below 500, and hold no address, no path of this
machine and nothing of a planted file. No request may reach a planted listener. The log may have no traceback.
Afterwards the service answers as before, in as many processes, and with as much memory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measure import machine, page, read_arguments, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.hostile_model import GOOD, MEDIA, PLAIN, train
from support.hostile_requests import SECRET, Attack, Reply, Target, attacks, faults, posted, send

CLIENTS = 4
LIMITS = [
    "--decode-time",
    "2",
    "--upload",
    "3",
    "--workers",
    "2",
    "--decode-memory",
    "500",
    "--megabytes",
    "8",
    "--cache",
    "20",
]
GROWTH = 200e6  # bytes by which the service may grow in the second half: large requests come by chance


@dataclass
class Running:
    """A service in a second process, with what is planted beside it."""

    port: int
    process: subprocess.Popen[bytes]
    target: Target
    log: Path
    connections: list[str] = field(default_factory=list)

    def memory(self) -> int:
        """Return the bytes of memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def processes(self) -> int:
        """Return how many processes it and its children are."""
        return len(self._family())

    def secrets(self) -> list[str]:
        """Return a fault for each child whose environment holds the planted password."""
        faults = []
        for child in self._family() - {self.process.pid}:
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes()
            except OSError:  # nobody may read it: so it should be
                continue
            if SECRET.encode() in environment:
                faults.append(f"process {child} has the password in its environment")
        return faults

    def _family(self) -> set[int]:
        """Return the numbers of the process and of its children."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
        family = {self.process.pid}
        while more := {child for child, parent in parents.items() if parent in family} - family:
            family |= more
        return family

    def good(self) -> Reply:
        """Send a request that must succeed."""
        body = json.dumps(self.target.good).encode()
        return send(Attack("good", "row", (posted("/predict", body),)), self.port)


@contextmanager
def running(model: Path, folder: Path) -> Iterator[Running]:
    """Serve a model in a folder where a file is planted; listen at an address that requests name."""
    canary = folder / "planted.ffconcat"
    canary.write_text(f"ffconcat version 1.0\n# {SECRET}\nfile {SECRET}.wav\n")
    log = folder / "log.txt"
    connections: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
        spare.close()
        threading.Thread(target=_listen, args=[listener, connections], daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        target = Target(MEDIA, PLAIN, GOOD, str(canary), address)
        command = [sys.executable, "-m", "plait", "serve", str(model), "--port", str(port), *LIMITS]
        environment = {**os.environ, "SERVICE_PASSWORD": SECRET}
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        service = Running(port, process, target, log, connections)
        try:
            _wait(service)
            yield service
        finally:
            process.terminate()
            process.wait(60)


def _listen(listener: socket.socket, connections: list[str]) -> None:
    while True:
        try:
            connection, address = listener.accept()
        except OSError:  # it is closed
            return
        connections.append(str(address))
        connection.close()


def _wait(service: Running) -> None:
    """Wait until the service answers."""
    for _ in range(600):
        try:
            if service.good().status == 200:
                return
        except OSError:
            pass
        if service.process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the service did not start: {service.log.read_text()[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = read_arguments(parser)
    count = 300 if arguments.quick else arguments.requests
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(folder)
        place = folder / "place"
        place.mkdir()
        with running(model, place) as service:
            outcome = assail(service, count, arguments.seed)
    headers = ["what", "requests", "refused (4xx)", "answered (2xx)", "closed", "longest s"]
    print(outcome.summary, table(headers, outcome.lines), *outcome.faults[:40], sep="\n")
    if outcome.faults:
        raise SystemExit(f"{len(outcome.faults)} faults")
    page(
        "hostile.md",
        f"""# Hostile requests

Made by `benchmarks/hostile.py`, {CLIENTS} clients, seed {arguments.seed}; {machine()}.

{outcome.summary}

No answer had a status of 500 or above, and each came in time. None held an address, a traceback, a path of
the machine, the name of a library or the content of the planted file, and nobody connected to the planted
listener. The log has no traceback. "Closed" are connections that the service ended without an answer, because
the head of a request did not arrive. What was answered was no attack after all: a damaged file that can still
be read, a list without rows, an unknown argument, the page itself.

{table(headers, outcome.lines)}""",
        arguments,
    )


@dataclass
class Outcome:
    """A line of the table for each kind of attack, what else was measured, and what is wrong."""

    lines: list[list[object]]
    summary: str
    faults: list[str]


def assail(service: Running, count: int, seed: int) -> Outcome:
    """Send attacks from several clients."""
    for _ in range(20):
        service.good()
    memory, processes = service.memory(), service.processes()
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    longest: dict[str, float] = defaultdict(float)
    wrong: list[str] = []

    def attack_once(attack: Attack) -> None:
        reply = send(attack, service.port)
        statuses[attack.kind][reply.status] += 1
        longest[attack.kind] = max(longest[attack.kind], reply.seconds)
        for fault in faults(attack, reply, str(service.log.parent)):
            wrong.append(f"{attack.kind}, {attack.name}: {fault}; {reply.content[-300:]!r}")

    began = time.perf_counter()
    listed = attacks(count, service.target, seed)
    middle = len(listed) // 2
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(attack_once, listed[:middle]))
        memory_at_middle = service.memory()
        list(pool.map(attack_once, listed[middle:]))
    seconds = time.perf_counter() - began

    # the first half fills caches, and reads the largest requests that there are: only a leak goes on
    last = service.good()
    grown = service.memory() - memory_at_middle
    if last.status != 200:
        wrong.append(f"a good request has status {last.status} afterwards")
    if service.processes() != processes:
        wrong.append(f"{processes} processes have become {service.processes()}")
    if grown > GROWTH:
        wrong.append(f"the memory has grown by {grown / 1e6:.0f} MB in the second half")
    wrong += [f"a connection from {address}" for address in service.connections]
    wrong += service.secrets()
    log = service.log.read_text(errors="replace")
    if "Traceback" in log:
        wrong.append(f"the log has a traceback: {log[-4000:]}")

    summary = (
        f"{count:,} requests in {seconds:.0f} s. A good one afterwards took {1000 * last.seconds:.0f} ms. "
        f"The service had {processes} processes before and has {service.processes()} after. It took "
        f"{memory / 1e6:.0f} MB of memory before, {memory_at_middle / 1e6:.0f} MB after half of them, and "
        f"{service.memory() / 1e6:.0f} MB in the end."
    )
    return Outcome(_lines(statuses, longest), textwrap.fill(summary, 110), wrong)


def _lines(statuses: dict[str, Counter[int]], longest: dict[str, float]) -> list[list[object]]:
    """Return a line for each kind of attack: how many requests were refused, answered and closed."""
    lines: list[list[object]] = []
    for kind, counts in sorted(statuses.items()):
        refused = sum(number for status, number in counts.items() if 400 <= status < 500)
        answered = sum(number for status, number in counts.items() if 200 <= status < 400)
        lines.append([kind, counts.total(), refused, answered, counts[0], f"{longest[kind]:.1f}"])
    return lines


if __name__ == "__main__":
    main()
