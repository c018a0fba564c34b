"""Clients of a service over loopback: as many as are asked for, each with one connection, without threads."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np

# requests to draw from, or what makes one
Requests = Sequence[bytes] | Callable[[random.Random], bytes]


@dataclass
class Answers:
    """What clients were answered: the seconds of each request by its status, and how long all of it took.

    Status 0 stands for a connection that broke, or an answer that did not come in time.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    duration: float = 0.0

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, []))

    @property
    def a_second(self) -> float:
        """Requests a second that were answered."""
        return self.count(200) / self.duration

    def percentile(self, percent: float, status: int = 200) -> float:
        """Return a percentile of the milliseconds of requests with a status."""
        return float(np.percentile(self.seconds.get(status) or [np.nan], percent) * 1000)

    @property
    def longest(self) -> float:
        """The seconds of the slowest answer, whatever its status."""
        return max(itertools.chain(*self.seconds.values()), default=0.0)


def form(fields: dict[str, str | bytes], path: str = "/predict", host: str = "localhost") -> bytes:
    """Return the bytes of a request that uploads a form."""
    boundary = "plaitplaitplait"
    parts = []
    for name, cell in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(cell, bytes):
            head += f'; filename="{name}"\r\nContent-Type: application/octet-stream'
        parts.append(
            f"{head}\r\n\r\n".encode() + (cell if isinstance(cell, bytes) else cell.encode()) + b"\r\n"
        )
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    )
    return head.encode() + body


def ask(
    address: str,
    requests: Requests,
    clients: int,
    seconds: float = 0.0,
    total: int = 0,
    pause: float = 0.0,
    timeout: float = 60.0,
) -> Answers:
    """Have clients send requests, one after the other each, for so many seconds or until `total` are sent.

    Each request is drawn from `requests`, or made by it. Between two, a client pauses for a random time, on
    average `pause` seconds.
    """
    return asyncio.run(_ask(address, requests, clients, seconds, total, pause, timeout))


async def _ask(
    address: str,
    requests: Requests,
    clients: int,
    seconds: float,
    total: int,
    pause: float,
    timeout: float,
) -> Answers:
    answers = Answers()
    began = perf_counter()
    numbers = itertools.count()

    def goes_on() -> bool:
        return next(numbers) < total if total else perf_counter() < began + seconds

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        connection = None
        while goes_on():
            await asyncio.sleep(pause * rng.expovariate(1) if pause else 0)
            sent = perf_counter()
            try:
                async with asyncio.timeout(timeout):
                    # A server closes connections that are idle for long, as after a long pause.
                    if connection is None or connection[0].at_eof():
                        parts = urlsplit(address)
                        connection = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
                    request = requests(rng) if callable(requests) else rng.choice(requests)
                    status = await _exchange(*connection, request)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                status = 0
            if status == 0 and connection is not None:
                connection[1].close()
                connection = None
            answers.seconds.setdefault(status, []).append(perf_counter() - sent)
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client(seed) for seed in range(clients)))
    answers.duration = perf_counter() - began
    return answers


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request, read its answer, and return its status."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])
