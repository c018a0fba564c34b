"""Decode the files of requests in worker processes, and hand the arrays to the model through its store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import numpy as np
import torch

from plait.api.model import Model
from plait.media import ocr
from plait.media.cell import Cell, InMemory, Media
from plait.media.loading import Preparation
from plait.serving import worker
from plait.serving.limits import Limits
from plait.serving.metrics import Metrics
from plait.table.problems import Problem
from plait.table.schema import TEXT, origin
from plait.table.table import Table

PATIENCE = 2  # times the time of the processor that a file may take by the clock
LONGEST_START = 60  # seconds until a new process is ready
LONGEST_END = 5  # seconds until a process that was killed is gone
LONGEST_HEADER = 1 << 20  # bytes of a reply
LONGEST_NOTE = 300  # characters
STOPPED = "decoding it takes too much time or memory, so it was stopped"

Key = tuple[str, bytes]  # the identity of a preparation, and the digest of a file

_starting = threading.Lock()  # one process is started at a time, in an environment without secrets


def preparations_of(model: Model) -> dict[str, list[Preparation]]:
    """Return how files of each column are prepared: for the network, and for each view of an ensemble."""
    names = model.plan.table_columns
    by_column: dict[str, dict[str, Preparation]] = {}
    for preprocessing in [*model.answering.preprocessings, model.network.preprocessing]:
        for name, modality in preprocessing.inputs.items():
            preparation: object = modality
            if name.endswith(TEXT) and name not in names:
                preparation = ocr.ImageText()
            if isinstance(preparation, Preparation):
                by_column.setdefault(origin(name, names), {})[preparation.identity] = preparation
    return {column: list(of_column.values()) for column, of_column in by_column.items()}


class Cells(InMemory):
    """Decoded cells and embeddings in memory, up to `limit` bytes. Those used least recently leave first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._cells: OrderedDict[Key, Cell] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return a cell, or None if it is not there."""
        key = (identity, digest)
        with self._lock:
            cell = self._cells.get(key)
            if cell is not None:
                self._cells.move_to_end(key)
            return cell

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keep a cell and return it."""
        with self._lock:
            self._remove((identity, digest))
            self._cells[identity, digest] = cell
            self._size += _size(cell)
            while self._size > self._limit:
                self._remove(next(iter(self._cells)))
        return cell

    def _remove(self, key: Key) -> None:
        cell = self._cells.pop(key, None)
        if cell is not None:
            self._size -= _size(cell)


def _size(cell: Cell) -> int:
    return 200 + (0 if cell.array is None else cell.array.nbytes)  # with what Python takes for the entry


class Decoded(InMemory):
    """The store that a model reads while it answers some requests: what workers decoded, and embeddings.

    A file that no worker decoded is bad: the process that answers decodes nothing.
    """

    def __init__(self, cells: Mapping[Key, Cell], identities: frozenset[str], cache: Cells) -> None:
        self._cells = cells
        self._identities = identities
        self._cache = cache

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return a decoded cell, or an embedding if there is one."""
        if identity in self._identities:
            return self._cells.get((identity, digest), Cell(None, (STOPPED,)))
        return self._cache.get(identity, digest)

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keep an embedding."""
        return self._cache.put(identity, digest, cell)


class Decoder:
    """Worker processes that decode files. A worker that dies is replaced."""

    def __init__(
        self, preparations: Mapping[str, Sequence[Preparation]], limits: Limits, metrics: Metrics
    ) -> None:
        self.preparations = preparations
        self.cache = Cells(limits.cache)
        self._metrics = metrics
        self._identities = frozenset(
            preparation.identity for of_column in preparations.values() for preparation in of_column
        )
        count = limits.workers if preparations else 0
        self._workers = [_Worker(preparations, limits, metrics) for _ in range(count)]
        self._threads = ThreadPoolExecutor(max(count, 1), thread_name_prefix="decode")
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        for process in self._workers:
            self._idle.put_nowait(process)

    async def decode(self, table: Table) -> dict[Key, Cell]:
        """Decode all files of a table. It takes half of the workers at most, so that requests take turns."""
        jobs: dict[tuple[str, bytes], bytes] = {}
        for column in self.preparations:
            if column in table.data.column_names:
                for content in _contents(table.data.column(column).to_pylist()):
                    jobs[column, Media(content, table.root).digest] = content
        decoded: dict[Key, Cell] = {}
        turns = asyncio.Semaphore(max(1, len(self._workers) // 2))
        async with asyncio.TaskGroup() as group:
            for (column, digest), content in jobs.items():
                group.create_task(self._decode(column, digest, content, decoded, turns))
        return decoded

    async def _decode(
        self,
        column: str,
        digest: bytes,
        content: bytes,
        decoded: dict[Key, Cell],
        turns: asyncio.Semaphore,
    ) -> None:
        """Decode one file for all preparations of its column, unless it has been decoded lately.

        A cell that another try may read is not cached.
        """
        preparations = self.preparations[column]
        for preparation in preparations:
            cell = self.cache.get(preparation.identity, digest)
            if cell is not None:
                decoded[preparation.identity, digest] = cell
        if all((preparation.identity, digest) in decoded for preparation in preparations):
            return
        async with turns:
            replies = await self._reply(column, content)
        for preparation, reply in zip(preparations, replies, strict=True):
            decoded[preparation.identity, digest] = reply.cell
            if not reply.is_passing:
                self.cache.put(preparation.identity, digest, reply.cell)

    async def _reply(self, column: str, content: bytes) -> list[Reply]:
        """Let a worker decode a file, as soon as one is idle."""
        process = await self._idle.get()
        loop = asyncio.get_running_loop()
        try:
            # A request that is given up leaves its worker busy until that is done.
            running = loop.run_in_executor(self._threads, process.decode, column, content)
            running.add_done_callback(lambda _: self._idle.put_nowait(process))
        except RuntimeError:  # the service is being closed
            self._idle.put_nowait(process)
            raise
        return await asyncio.shield(running)

    def problems(self, table: Table, cells: Mapping[Key, Cell]) -> list[Problem]:
        """Return the cells of a typed table that could not be read, or do not fit their columns."""
        problems = []
        for column in table.bad:
            problems += table.problems(column)
        for column, preparations in self.preparations.items():
            if column not in table.data.column_names:
                continue
            for row, cell in enumerate(table.data.column(column).to_pylist()):
                for content in _contents([cell]):
                    digest = Media(content, table.root).digest
                    decoded = [cells[preparation.identity, digest] for preparation in preparations]
                    reasons = [cell.notes[0] for cell in decoded if cell.array is None and cell.notes]
                    problems += [Problem(row, column, "", reason) for reason in reasons[:1]]
        return problems

    def store(self, cells: Mapping[Key, Cell]) -> Decoded:
        """Return the store for a model that answers rows with these files."""
        return Decoded(cells, self._identities, self.cache)

    def close(self) -> None:
        """End all workers."""
        for process in self._workers:  # a thread may wait for one that does nothing any more
            process.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._workers:
            process.close()


def _contents(cells: Sequence[object]) -> Iterator[bytes]:
    """Yield the files of a column, whose cells are bytes or lists of them."""
    for cell in cells:
        for entry in cell if isinstance(cell, list) else [cell]:
            if isinstance(entry, bytes):
                yield entry


@dataclass(frozen=True)
class Reply:
    """What a worker replies for one preparation of a file. `is_passing`: another try may go better."""

    cell: Cell
    is_passing: bool = False


def _received(
    pipe: Connection, preparations: Sequence[Preparation], most_bytes: int
) -> tuple[list[Reply], bool]:
    """Read what a worker replies, and whether it has ended itself.

    A worker that a file has taken over may send anything, so anything may be raised.
    """
    message = json.loads(pipe.recv_bytes(LONGEST_HEADER))
    replies = []
    for header, preparation in zip(message["cells"], preparations, strict=True):
        notes = tuple(str(note)[:LONGEST_NOTE] for note in header["notes"])
        array = _array(pipe, header, preparation, most_bytes) if "shape" in header else None
        replies.append(Reply(Cell(array, notes), bool(header["passing"])))
    return replies, bool(message["last"])


def _array(
    pipe: Connection, header: Mapping[str, object], preparation: Preparation, most_bytes: int
) -> np.ndarray:
    """Read an array of at most so many bytes. Raises `ValueError` if it is none of this preparation."""
    shape, dtype = header["shape"], torch.empty(0, dtype=preparation.dtype).numpy().dtype
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("a shape of sizes that are none")
    steps = 1 if preparation.ragged else 0
    if len(shape) != len(preparation.shape) or tuple(shape[steps:]) != tuple(preparation.shape)[steps:]:
        raise ValueError(f"an array of shape {shape}")
    if header["dtype"] != dtype.str:
        raise ValueError(f"an array of {header['dtype']}")
    length = math.prod(shape) * dtype.itemsize
    if length > most_bytes:
        raise ValueError(f"an array of {length} bytes")
    array = np.frombuffer(pipe.recv_bytes(length), dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("an array with values that are no numbers")
    return array


def _run_fork_server() -> None:
    """Start the process that workers are forked from, unless it runs, without variables that hold secrets.

    A new process inherits the environment of the system. `os.environ` is Python's copy of it: that stays as
    it is, since other threads read it.
    """
    hidden = [name for name in list(os.environ) if not worker.is_harmless(name)]
    try:
        for name in hidden:
            os.unsetenv(name)
        forkserver.ensure_running()
    finally:
        for name in hidden:
            if (content := os.environ.get(name)) is not None:
                os.putenv(name, content)


class _Worker:
    """One worker process, as a thread of the service sees it."""

    def __init__(
        self, preparations: Mapping[str, Sequence[Preparation]], limits: Limits, metrics: Metrics
    ) -> None:
        self._preparations = preparations
        self._limits = limits
        self._metrics = metrics
        self._is_closed = False
        self._lock = threading.Lock()  # no process is started after the last one has been stopped
        self._start()

    def _start(self) -> None:
        """Start a process, unless the service is being closed."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([worker.__name__])
        with self._lock, _starting:
            if self._is_closed:
                return
            _run_fork_server()
            pipe, theirs = context.Pipe()
            process = context.Process(
                target=worker.run, args=(theirs, self._preparations, self._limits), daemon=True
            )
            with theirs:
                process.start()
            self._pipe, self._process = pipe, process
            self._is_ready = False

    def decode(self, column: str, content: bytes) -> list[Reply]:
        """Decode a file for each preparation of its column."""
        if not self._is_fit():  # which is not the fault of this file
            self._metrics.restarts.inc()
            self._replace()
        try:
            replies, has_ended = self._exchange(column, content)
        except Exception:
            # The process has died, is stuck, or replies what no worker would. Whatever it was, a reply may be
            # left in the pipe, which must not become that to another file: another process takes its place.
            self._metrics.restarts.inc()
            self._replace()
            return [Reply(Cell(None, (STOPPED,)), is_passing=True)] * len(self._preparations[column])
        if has_ended:  # of old age
            self._replace()
        return replies

    def _is_fit(self) -> bool:
        """Return whether the process runs, and has said nothing that it was not asked."""
        return self._process.is_alive() and not (self._is_ready and self._pipe.poll())

    def _exchange(self, column: str, content: bytes) -> tuple[list[Reply], bool]:
        """Send a file and read the reply; a process that takes too long is killed, which ends both."""
        self._await_start()
        deadline = threading.Timer(PATIENCE * self._limits.decode_time, self._process.kill)
        deadline.start()
        try:
            self._pipe.send_bytes(column.encode())
            self._pipe.send_bytes(content)
            return _received(self._pipe, self._preparations[column], self._limits.decode_memory)
        finally:
            deadline.cancel()

    def _await_start(self) -> None:
        """Wait until the process is ready: its start is no time that a file takes."""
        if self._is_ready:
            return
        if not self._pipe.poll(LONGEST_START):
            raise TimeoutError
        self._pipe.recv_bytes(len(worker.READY))
        self._is_ready = True

    def _replace(self) -> None:
        """Start another process. If the system has no room for one, the next file tries again."""
        self._end()
        with contextlib.suppress(OSError, EOFError):
            self._start()

    def _end(self) -> None:
        self._process.kill()
        self._process.join(LONGEST_END)
        self._pipe.close()

    def stop(self) -> None:
        """Kill the process for good. A thread that waits for it goes on."""
        with self._lock:
            self._is_closed = True
            self._process.kill()

    def close(self) -> None:
        """Release what belongs to a process that has been stopped."""
        self._end()
