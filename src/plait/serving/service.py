"""A trained model that answers requests: it reads their rows, decodes their files and gathers batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from plait.api.model import Model
from plait.errors import PlaitError
from plait.prediction import examples
from plait.retrieval.space import Space
from plait.serving.answers import as_rows
from plait.serving.batching import Answered, Batcher, joined
from plait.serving.conditions import check_condition
from plait.serving.decoding import Decoder, preparations_of
from plait.serving.gallery import Gallery
from plait.serving.inputs import Reader
from plait.serving.limits import Limits
from plait.serving.metrics import Metrics
from plait.serving.refusals import Refusal, too_busy, too_slow, unreadable
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.schema import origin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_PROMPTS = 2_000  # texts that are encoded for one request; a small network takes a second or two

T = TypeVar("T")
Rows = Sequence[Mapping[str, object]]


class Service:
    """A model, and what stands between it and strangers.

    `files` is the folder that paths in requests may lead into; None: requests may name no file. `index` is
    the place of the index that is searched, by default the one in the model's folder.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits | None = None,
        files: str | Path | None = None,
        index: str | Path | None = None,
    ) -> None:
        self.model = model
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.reader = Reader(model, Path(files) if files is not None else None, self.limits)
        self.gallery = Gallery(model, index)
        self.examples = examples.load(model.folder)
        self.is_ready = False
        self._busy = self._begun = 0  # requests that must be answered in time: now, and so far
        self._streams = 0
        self._decoder: Decoder
        self._batcher: Batcher

    @property
    def name(self) -> str:
        """The name of the model: that of its folder."""
        return self.model.folder.resolve().name

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the workers and the model's thread; in the end answer what is waiting, and stop them."""
        self._decoder = Decoder(preparations_of(self.model), self.limits, self.metrics)
        self._batcher = Batcher(self.model, self._decoder, self.limits, self.metrics)
        try:
            await self._warm_up()
            self.is_ready = True
            yield
        finally:
            self.is_ready = False
            await self._batcher.close()
            self._decoder.close()

    async def _warm_up(self) -> None:
        """Answer the examples. Encoders load their weights when they first run: no request waits for it."""
        rows: list[dict[str, object]] = [{}]
        for example in self.examples:
            row: dict[str, object] = dict(example.values)
            for name, paths in example.files.items():
                contents = [path.read_bytes() for path in paths]
                row[name] = contents if len(contents) > 1 else next(iter(contents), None)
            rows.append({name: row[name] for name in self.reader.inputs if name in row})
        if self.model.targets:
            await self.answer(rows)
            return
        alignment = next(iter(self.model.alignments))
        for group in await asyncio.to_thread(self.reader.read, rows):
            cells = await self._decoder.decode(group.table)
            embed = partial(self.model.embed, group.table.data, alignment=alignment)
            await self._batcher.call(embed, cells)

    async def predict(self, rows: Rows, strict: bool = True) -> JSON:
        """Answer rows. With `strict`, a cell that cannot be read refuses the request; else it is missing.

        Raises `Refusal`.
        """
        async with self._in_time():
            answered = await self.answer(rows)
        if strict and answered.problems:
            raise unreadable(answered.problems)
        return {"answers": as_rows(answered.answers), "warnings": answered.warnings}

    async def answer(self, rows: Rows) -> Answered:
        """Answer rows, however long it takes; a cell that cannot be read is missing. Raises `Refusal`."""
        with self._batcher.coming():
            row_groups = await asyncio.to_thread(self.reader.read, rows)
            cells = [await self._decoder.decode(group.table) for group in row_groups]
        waiting = []
        for group, cells_of_group in zip(row_groups, cells, strict=True):
            waiting.append(self._batcher.answer(group.table, cells_of_group))
        answered = joined(row_groups, await asyncio.gather(*waiting), self.model.schema.of("id"))
        answered.problems = self._by_column(answered.problems)
        self._count(answered.problems)
        for group in row_groups:
            answered.warnings += self.model.unseen(group.table)
        return answered

    async def embed(self, rows: Rows, column: str | None, alignment: str | None) -> JSON:
        """Return a vector for each row. Raises `Refusal`."""
        embed = partial(self.model.embed, column=column, alignment=alignment)
        vectors: list[list[float]] = [[]] * len(rows)
        for numbers, group in await self._called(rows, embed):
            for number, vector in zip(numbers, group.tolist(), strict=True):
                vectors[number] = vector
        return {"embeddings": vectors}

    async def search(
        self,
        row: Mapping[str, object],
        k: int,
        column: str | None,
        where: str | None,
        exact: bool,
        alignment: str | None,
    ) -> JSON:
        """Return the rows of the index that fit a query best. Raises `Refusal`."""

        space = self._space(alignment)
        index = self.gallery.index(space)
        if where is not None:
            check_condition(where, self.gallery.condition_columns(index))

        def search(table: pa.Table) -> pa.Table:
            (query,) = table.to_pylist()
            cells = {name: query[name] for name in space.columns if query.get(name) is not None}
            return self.model.search(
                cells, k, column, where, index, exact=exact, alignment=space.name, numbered=True
            )

        ((_, rows),) = await self._called([row], search)
        files = self.gallery.addresses(rows, space.name)
        return {"rows": self.gallery.shown(rows), "files": files}

    def _space(self, alignment: str | None) -> Space:
        """Return the space of an alignment, or of the only one. Raises `Refusal`."""
        try:
            return Space.of(self.model.network, alignment)
        except PlaitError as error:
            raise Refusal(422, str(error)) from None

    async def classify(
        self,
        rows: Rows,
        labels: Sequence[str],
        column: str | None,
        templates: Sequence[str],
        threshold: float | None,
        text: str | None,
        alignment: str | None,
    ) -> JSON:
        """Label a cell of each row with labels that the model was not trained for. Raises `Refusal`."""

        if len(labels) * len(templates) > MOST_PROMPTS:
            raise Refusal(422, f"expected at most {MOST_PROMPTS:,} labels times templates")

        def classify(table: pa.Table) -> pa.Table:
            return self.model.classify(table, labels, column, templates, threshold, text, alignment=alignment)

        answers: list[JSON] = [{}] * len(rows)
        for numbers, group in await self._called(rows, classify):
            for number, answer in zip(numbers, as_rows(group), strict=True):
                answers[number] = answer
        return {"answers": answers}

    async def _called(self, rows: Rows, function: Callable[[pa.Table], T]) -> list[tuple[list[int], T]]:
        """Decode the files of rows, and run something with each group of them in the model's thread.

        Return the numbers of the rows of each group, and what came of it. Raises `Refusal`.
        """
        async with self._in_time():
            of_groups = []
            for group in await asyncio.to_thread(self.reader.read, rows):
                cells = await self._decoder.decode(group.table)
                problems = group.located(self._decoder.problems(group.table, cells))
                if problems:
                    self._count(problems)
                    raise unreadable(problems)
                called = await self._batcher.call(partial(function, group.table.data), cells)
                of_groups.append((group.numbers, called))
            return of_groups

    def _by_column(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems by the columns of the request: a video has frames and sound from one cell."""
        by_cell: dict[tuple[int, str], Problem] = {}
        for problem in problems:
            column = origin(problem.column, self.model.plan.table_columns)
            by_cell.setdefault((problem.row, column), replace(problem, column=column))
        return list(by_cell.values())

    def begin_stream(self) -> None:
        """Count a stream that begins. Raises `Refusal` if there are as many as there may be."""
        if self._streams >= self.limits.streams:
            raise too_busy(self.limits.latency)
        self._streams += 1

    def end_stream(self) -> None:
        """Count a stream that has ended."""
        self._streams -= 1

    def _count(self, problems: Sequence[Problem]) -> None:
        """Count cells that could not be read."""
        for problem in problems:
            self.metrics.bad_cells.labels(problem.column).inc()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Refuse what cannot be answered within the bound on latency, at once if that is foreseeable."""
        wait = self._batcher.wait
        if wait > self.limits.latency or self._busy >= self.limits.requests:
            raise too_busy(wait)
        self._busy += 1
        self._begun += 1
        begun, was_alone = self._begun, self._busy == 1
        try:
            async with asyncio.timeout(self.limits.latency):
                yield
        except TimeoutError:
            if was_alone and self._begun == begun:
                raise too_slow(self.limits) from None
            raise too_busy(self._batcher.wait) from None
        finally:
            self._busy -= 1
