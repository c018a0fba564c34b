"""Answer the rows of many requests together, one batch after the other, in one thread.

A network answers 32 rows in far less than 32 times the time of one. So a row waits a few milliseconds for
others that are being read and decoded. While a batch is being answered, the next one gathers.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from plait.api.model import Model
from plait.errors import PlaitError
from plait.media.cell import Cell
from plait.serving.decoding import Decoder, Key
from plait.serving.inputs import RowGroup
from plait.serving.limits import Limits
from plait.serving.metrics import Metrics
from plait.serving.refusals import Refusal
from plait.table.problems import Problem
from plait.table.table import Table, stacked

T = TypeVar("T")

BUG = "this is a bug in plait; the log of the service says more"
RECENT = 0.2  # the weight of the last batch in the mean seconds of a row


@dataclass
class Answered:
    """The answers to a request's rows, the cells that could not be read, and warnings about others."""

    answers: pa.Table
    problems: list[Problem]
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Job:
    """The rows of a request, with their decoded files. `future` gets the answers."""

    table: Table
    cells: Mapping[Key, Cell]
    future: asyncio.Future[Answered] = field(repr=False)


class Batcher:
    """Gathers rows of requests, and has the model answer them."""

    def __init__(self, model: Model, decoder: Decoder, limits: Limits, metrics: Metrics) -> None:
        self._model = model
        self._decoder = decoder
        self._limits = limits
        self._metrics = metrics
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._row_seconds = 0.0
        self._coming = 0  # requests whose rows are being read and decoded
        self._gathering = asyncio.get_running_loop().create_task(self._run())

    @property
    def wait(self) -> float:
        """The seconds that a row would wait for its answer, as far as the last batches tell."""
        return self._row_seconds * self._rows

    @property
    def _rows(self) -> int:
        return sum(len(job.table) for job in self._jobs)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that rows are on their way, so that others wait for them."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def answer(self, table: Table, cells: Mapping[Key, Cell]) -> Answered:
        """Answer the rows of a typed table, whose files are `cells`."""
        job = _Job(table, cells, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.future

    async def call(self, function: Callable[[], T], cells: Mapping[Key, Cell]) -> T:
        """Run something else of the model in its thread, such as a search. Raises `Refusal`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._called, function, cells)

    def _called(self, function: Callable[[], T], cells: Mapping[Key, Cell]) -> T:
        self._model.cells = self._decoder.store(cells)
        try:
            return function()
        except PlaitError as error:
            raise Refusal(422, str(error)) from None

    async def close(self) -> None:
        """Answer what is waiting, then stop."""
        while self._jobs:
            await asyncio.sleep(self._limits.wait)
        self._gathering.cancel()
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        """Answer batch after batch."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._coming and self._rows < self._limits.batch:
                await asyncio.sleep(self._limits.wait)
            batch = self._next_batch()
            if batch:
                await loop.run_in_executor(self._thread, self._answer, loop, batch)

    def _next_batch(self) -> list[_Job]:
        """Take jobs until a batch is full. Those that nobody waits for any more are left out."""
        batch: list[_Job] = []
        rows = 0
        while self._jobs and (not batch or rows + len(self._jobs[0].table) <= self._limits.batch):
            job = self._jobs.popleft()
            if not job.future.done():
                batch.append(job)
                rows += len(job.table)
        if not self._jobs:
            self._arrived.clear()
        self._metrics.queue.set(self._rows)
        return batch

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Job]) -> None:
        """Answer a batch, in the model's thread. If that fails, answer each request by itself."""
        try:
            outcomes: list[Answered | Refusal] = [*self._answered(batch)]
        except Exception:  # whatever one request makes fail must not fail the others
            outcomes = [self._alone(job) for job in batch]
        for job, outcome in zip(batch, outcomes, strict=True):
            loop.call_soon_threadsafe(_deliver, job.future, outcome)

    def _alone(self, job: _Job) -> Answered | Refusal:
        try:
            return self._answered([job])[0]
        except PlaitError as error:
            return Refusal(422, str(error))
        except Exception:  # the caller learns that it is a bug, and the log says which
            traceback.print_exc(file=sys.stderr)
            return Refusal(500, BUG)

    def _answered(self, batch: Sequence[_Job]) -> list[Answered]:
        """Answer the rows of several requests as one table."""
        began = time.perf_counter()
        table = batch[0].table if len(batch) == 1 else stacked([job.table for job in batch])
        cells: dict[Key, Cell] = {}
        for job in batch:
            cells.update(job.cells)
        self._model.cells = self._decoder.store(cells)
        answers, problems = self._model.answer(self._model.with_texts(table))

        seconds = time.perf_counter() - began
        self._metrics.batches.observe(len(table))
        self._metrics.model_seconds.observe(seconds)
        self._row_seconds += RECENT * (seconds / max(len(table), 1) - self._row_seconds)
        return _shared_out(answers, problems, [len(job.table) for job in batch])


def joined(row_groups: Sequence[RowGroup], answered: Sequence[Answered], ids: Sequence[str]) -> Answered:
    """Return the answers to groups of a request's rows as those to the request, in the order of its rows.

    `ids` are the id columns, which come as they were sent: those of several kinds become texts.
    """
    if len(row_groups) == 1:
        return answered[0]
    problems = []
    numbers: list[int] = []
    for group, of_group in zip(row_groups, answered, strict=True):
        problems += group.located(of_group.problems)
        numbers += group.numbers
    problems.sort(key=lambda problem: problem.row)

    tables = [of_group.answers for of_group in answered]
    for name in ids:
        kinds = {table.schema.field(name).type for table in tables if name in table.column_names}
        if len(kinds - {pa.null()}) > 1:
            tables = [_with_texts(table, name) for table in tables]
    answers = pa.concat_tables(tables, promote_options="default")
    return Answered(answers.take(pa.array(np.argsort(numbers))), problems)


def _with_texts(table: pa.Table, name: str) -> pa.Table:
    """Return a table with the cells of one column as texts."""
    place = table.schema.get_field_index(name)
    if place < 0:
        return table
    texts = [None if cell is None else str(cell) for cell in table.column(place).to_pylist()]
    return table.set_column(place, name, pa.array(texts, pa.string()))


def _shared_out(answers: pa.Table, problems: Sequence[Problem], counts: Sequence[int]) -> list[Answered]:
    """Cut the answers to a batch into those of its requests, of which each has so many rows."""
    shares = []
    first = 0
    for count in counts:
        of_request = []
        for problem in problems:
            if first <= problem.row < first + count:
                of_request.append(Problem(problem.row - first, problem.column, problem.file, problem.reason))
        shares.append(Answered(answers.slice(first, count), of_request))
        first += count
    return shares


def _deliver(future: asyncio.Future[Answered], outcome: Answered | Refusal) -> None:
    """Give a request its answer, unless it has been given up."""
    if future.done():
        return
    if isinstance(outcome, Refusal):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
