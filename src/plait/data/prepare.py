"""From a table and a plan to prepared rows: cells become tensors, bad cells are listed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plait.console import Screen
from plait.data import frozen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.data.split import Split
from plait.encoders.base import FrozenEncoder
from plait.errors import TrainingError, count
from plait.media.cache import Cache, open_store
from plait.media.cell import Store
from plait.nn.device import Settings
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.table import problems as check
from plait.table.table import Progress, Table

WORTH_CACHING = 16  # rows
SHOWN = 20  # columns with missing cells that the screen lists


class Preparing(ABC):
    """Something that prepares tables as its plan says, such as a trained model."""

    plan: Plan
    preprocessing: Preprocessing
    settings: Settings

    @property
    @abstractmethod
    def frozen(self) -> dict[str, FrozenEncoder]:
        """The frozen encoders, by column."""

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Dataset:
        """Prepare all rows of a table, and embed the columns of frozen encoders.

        The rows have no labels with `targets=False`, see `Preprocessing.prepare`.
        """
        prepared = self.preprocessing.prepare(table, targets, progress, store)

        # Cells are counted when they are read. Here `progress` may only raise, where no time is left.
        def go_on(_: int) -> None:
            progress(0)

        frozen.embed(prepared, self.preprocessing, self.frozen, self.plan, self.settings, store, go_on)
        return Dataset(prepared, self.preprocessing)


@dataclass(frozen=True)
class Sides:
    """The prepared rows of one table, by what they are used for."""

    train: Dataset
    valid: Dataset
    test: Dataset
    unlabelled: Dataset

    @classmethod
    def cut(cls, prepared: Prepared, preprocessing: Preprocessing, split: Split) -> Sides:
        """Cut a prepared table into the sides of a split."""
        return cls(
            train=Dataset(prepared, preprocessing, split.train),
            valid=Dataset(prepared, preprocessing, split.valid),
            test=Dataset(prepared, preprocessing, split.test),
            unlabelled=Dataset(prepared, preprocessing, split.unlabelled),
        )

    @property
    def prepared(self) -> Prepared:
        """The prepared table that all sides are cut from."""
        return self.train.prepared

    @property
    def preprocessing(self) -> Preprocessing:
        """The fitted modalities and tasks that prepared the table."""
        return self.train.preprocessing


def prepare_sides(
    plan: Plan, table: Table, folder: Path, strict: bool, screen: Screen, deadline: Deadline
) -> Sides:
    """Fit the preprocessing on training rows, read all cells, and write bad ones to `problems.csv`.

    Raises `BadCellsError` for too many of them, any at all if `strict`, and `TrainingError` for a target
    without a usable label, or if the time is over.
    """
    preprocessing = Preprocessing.fit(table, plan, plan.split.train)
    prepared = prepare(table, preprocessing, screen, deadline)
    check_cells(prepared, plan.split, table, folder, strict, screen)
    check_labels(prepared, plan.split.train)
    return Sides.cut(prepared, preprocessing, plan.split)


def embed_sides(
    sides: Sides,
    encoders: Mapping[str, FrozenEncoder],
    plan: Plan,
    settings: Settings,
    table: Table,
    screen: Screen,
    deadline: Deadline,
) -> None:
    """Run the frozen encoders once over all cells, in place, with a progress bar.

    Raises `TrainingError` if the time is over.
    """
    present = sides.prepared.batch.present
    cells = sum(int(present[column].sum()) for column in encoders)
    if not cells:
        return
    with screen.bar("computing embeddings", cells) as bar, store(screen, table) as cache:
        advance = deadline.watched(bar.advance, "embeddings were computed")
        frozen.embed(sides.prepared, sides.preprocessing, encoders, plan, settings, cache, advance)


def prepare(
    table: Table, preprocessing: Preprocessing, screen: Screen, deadline: Deadline = NO_LIMIT
) -> Prepared:
    """Read all rows as tensors, with a progress bar, and with the user's cache of prepared cells.

    Raises `TrainingError` if the time is over.
    """
    cells = len(table) * len(preprocessing.inputs)
    with screen.bar("reading cells", cells) as bar, store(screen, table) as cache:
        advance = deadline.watched(bar.advance, "cells were read")
        return preprocessing.prepare(table, progress=advance, store=cache)


def store(screen: Screen, table: Table) -> AbstractContextManager[Cache | None]:
    """Open the cache of prepared cells; none for a few rows, which are read faster than it is opened."""
    if len(table) < WORTH_CACHING:
        return nullcontext()
    return open_store(screen.warn) or nullcontext()


def check_cells(
    prepared: Prepared, rows: Split, table: Table, folder: Path, strict: bool, screen: Screen
) -> None:
    """Write `problems.csv` and say what is wrong. Raises `BadCellsError` when it is too much."""
    # the file is written first: who gets the error below looks into it
    path = folder / "problems.csv"
    problems = table.located(prepared.problems)
    check.write(problems, path)
    if problems:
        cells = count(len(problems), "cell")
        summary = check.summary(problems)
        screen.warn(f"{cells} treated as missing because of problems, listed in {path}:\n{summary}")
    check.check(problems, prepared.filled, table.root, strict)

    for warning in check.health(prepared.notes, prepared.digests):
        screen.warn(warning)
    for warning in check.leaks(prepared.digests, rows.sides()):
        screen.warn(warning)

    shares = _missing_shares(prepared)
    if shares:
        more = f" and {count(len(shares) - SHOWN, 'more column')}" if len(shares) > SHOWN else ""
        screen.say(f"missing: {', '.join(shares[:SHOWN])}{more}")


def _missing_shares(prepared: Prepared) -> list[str]:
    """Say of each column with missing cells which share of them is missing."""
    shares = []
    for column, present in prepared.batch.present.items():
        missing = 1 - float(present.float().mean())
        digits = 0 if missing >= 0.01 else 1
        if missing:
            shown = f"{missing:.{digits}%}" if missing >= 0.001 else "below 0.1%"
            shares.append(f"{column} {shown}")
    return shares


def check_labels(prepared: Prepared, train: np.ndarray) -> None:
    """Raise `TrainingError` for a target that no training row has a usable label of."""
    train_rows = torch.from_numpy(train)
    for target, labelled in prepared.batch.labelled.items():
        if not bool(labelled[train_rows].any()):
            reason = _first_reason(prepared, target) or "none is there"
            raise TrainingError(
                f"target '{target}': no training row has a label that can be learned from: {reason}"
            )


def _first_reason(prepared: Prepared, column: str) -> str:
    """Return what is wrong with the first bad cell of a column; nothing if it has none."""
    for problem in prepared.problems:
        if problem.column == column:
            return problem.reason
    return ""
