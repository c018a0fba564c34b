"""Decode the files of requests in worker processes, and hand the arrays to the model through its store."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import numpy as np

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
LONGEST_HEADER = 1 << 20  # bytes of a reply
LONGEST_NOTE = 300  # characters
STOPPED = "decoding it takes too much time or memory, so it was stopped"

Key = tuple[str, bytes]  # the identity of a preparation, and the digest of a file


def preparations_of(model: Model) -> dict[str, list[Preparation]]:
    """Return how files of each column are prepared: for the network, and for each view of an ensemble."""
    names = model.plan.table_columns
    found: dict[str, dict[str, Preparation]] = {}
    for preprocessing in [*model.answering.preprocessings, model.network.preprocessing]:
        for name, modality in preprocessing.inputs.items():
            preparation: object = modality
            if name.endswith(TEXT) and name not in names:
                preparation = ocr.ImageText()
            if isinstance(preparation, Preparation):
                found.setdefault(origin(name, names), {})[preparation.identity] = preparation
    return {column: list(of_column.values()) for column, of_column in found.items()}


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

    def __init__(self, cells: Mapping[Key, Cell], identities: frozenset[str], kept: Cells) -> None:
        self._cells = cells
        self._identities = identities
        self._kept = kept

    def get(self, identity: str, digest: bytes) -> Cell | None:
        """Return a decoded cell, or an embedding if there is one."""
        if identity in self._identities:
            return self._cells.get((identity, digest), Cell(None, (STOPPED,)))
        return self._kept.get(identity, digest)

    def put(self, identity: str, digest: bytes, cell: Cell) -> Cell:
        """Keep an embedding."""
        return self._kept.put(identity, digest, cell)


class Decoder:
    """Worker processes that decode files. A worker that dies is replaced."""

    def __init__(
        self, preparations: Mapping[str, Sequence[Preparation]], limits: Limits, metrics: Metrics
    ) -> None:
        self.preparations = preparations
        self.kept = Cells(limits.cache)
        self._metrics = metrics
        self._identities = frozenset(
            preparation.identity for of_column in preparations.values() for preparation in of_column
        )
        self._workers: asyncio.Queue[_Worker] = asyncio.Queue()
        count = limits.workers if preparations else 0
        self._threads = ThreadPoolExecutor(max(count, 1), thread_name_prefix="decode")
        for _ in range(count):
            self._workers.put_nowait(_Worker(preparations, limits, metrics))

    async def decode(self, table: Table) -> dict[Key, Cell]:
        """Decode all files of a table, as many at once as there are workers."""
        jobs: dict[tuple[str, bytes], bytes] = {}
        for column in self.preparations:
            if column in table.data.column_names:
                for content in _contents(table.data.column(column).to_pylist()):
                    jobs[column, Media(content, table.root).digest] = content
        decoded: dict[Key, Cell] = {}
        async with asyncio.TaskGroup() as group:
            for (column, digest), content in jobs.items():
                group.create_task(self._decode(column, digest, content, decoded))
        return decoded

    async def _decode(self, column: str, digest: bytes, content: bytes, decoded: dict[Key, Cell]) -> None:
        """Decode one file for all preparations of its column, unless it has been decoded lately."""
        preparations = self.preparations[column]
        cells = [self.kept.get(preparation.identity, digest) for preparation in preparations]
        if None in cells:
            worker = await self._workers.get()
            loop = asyncio.get_running_loop()
            try:
                # A request that is given up leaves its worker busy until that is done.
                running = loop.run_in_executor(self._threads, worker.decode, column, content)
                running.add_done_callback(lambda _: self._workers.put_nowait(worker))
            except RuntimeError:  # the service is being closed
                self._workers.put_nowait(worker)
                raise
            cells = list(await asyncio.shield(running))
        for preparation, cell in zip(preparations, cells, strict=True):
            assert cell is not None
            decoded[preparation.identity, digest] = cell
            if cell.notes != (STOPPED,):
                self.kept.put(preparation.identity, digest, cell)

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
        return Decoded(cells, self._identities, self.kept)

    def close(self) -> None:
        """End all workers."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._workers.empty():
            self._workers.get_nowait().close()


def _contents(cells: Sequence[object]) -> Iterator[bytes]:
    """Yield the files of a column, whose cells are bytes or lists of them."""
    for cell in cells:
        for entry in cell if isinstance(cell, list) else [cell]:
            if isinstance(entry, bytes):
                yield entry


def _received(pipe: Connection, preparations: Sequence[Preparation]) -> tuple[list[Cell], bool]:
    """Read what a worker replies: the cells, and whether it has ended itself.

    A worker that a file has taken over may send anything. Raises `ValueError`, `TypeError` or `KeyError` for
    what no worker of plait would send.
    """
    reply = json.loads(pipe.recv_bytes(LONGEST_HEADER))
    cells = []
    for header, preparation in zip(reply["cells"], preparations, strict=True):
        notes = tuple(str(note)[:LONGEST_NOTE] for note in header["notes"])
        if "shape" not in header:
            cells.append(Cell(None, notes))
            continue
        shape = tuple(map(int, header["shape"]))
        steps = 1 if preparation.ragged else 0
        if shape[steps:] != tuple(preparation.shape)[steps:]:
            raise ValueError(f"an array of shape {shape}")
        size = math.prod(shape) * np.dtype(header["dtype"]).itemsize
        content = pipe.recv_bytes(size)
        cells.append(Cell(np.frombuffer(content, header["dtype"]).reshape(shape), notes))
    return cells, bool(reply["last"])


@contextmanager
def _harmless_environment() -> Iterator[None]:
    """Take variables that may hold passwords out of the environment, which new processes inherit."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if not worker.is_harmless(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _Worker:
    """One worker process, as a thread of the service sees it. It is started when it is first needed."""

    def __init__(
        self, preparations: Mapping[str, Sequence[Preparation]], limits: Limits, metrics: Metrics
    ) -> None:
        self._preparations = preparations
        self._limits = limits
        self._metrics = metrics
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([worker.__name__])
        with _harmless_environment():
            forkserver.ensure_running()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.run, args=(theirs, self._preparations, self._limits), daemon=True
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    def decode(self, column: str, content: bytes) -> list[Cell]:
        """Decode a file for each preparation of its column."""
        preparations = self._preparations[column]
        if not self._process.is_alive():  # the system has ended it, which is not the fault of this file
            self._restart()
        try:
            self._await_start()
            self._pipe.send_bytes(column.encode())
            self._pipe.send_bytes(content)
            if not self._pipe.poll(PATIENCE * self._limits.decode_time):
                raise TimeoutError
            cells, has_ended = _received(self._pipe, preparations)
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            # It has died, or is stuck: another one takes its place.
            self._restart()
            return [Cell(None, (STOPPED,))] * len(preparations)
        if has_ended:  # of old age
            self.close()
            self._start()
        return cells

    def _await_start(self) -> None:
        """Wait until the process is ready: its start is no time that a file takes."""
        if self._is_ready:
            return
        if not self._pipe.poll(LONGEST_START):
            raise TimeoutError
        self._pipe.recv_bytes(len(worker.READY))
        self._is_ready = True

    def _restart(self) -> None:
        self._metrics.restarts.inc()
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
