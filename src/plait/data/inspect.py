"""What each column of a table is, and what is wrong with its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plait.console import Screen
from plait.data.infer import infer, infer_tasks
from plait.data.preprocessing import Prepared, Preprocessing
from plait.data.split import Split
from plait.errors import TrainingError
from plait.media.cache import Cache, open_store
from plait.recipe import recipe, registry
from plait.recipe.recipe import Recipe
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.read import read
from plait.table.schema import Schema, origin
from plait.table.table import Table

WORTH_CACHING = 16  # rows


SHOWN = 10


@dataclass(frozen=True)
class Inspection:
    """What each column is and why, for each target the task and why; and, where cells were probed,
    which cannot be read (`problems`) and what else is odd (`warnings`).
    """

    table: str
    schema: Schema
    tasks: dict[str, tuple[str, str]]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def show(self, screen: Screen | None = None) -> Inspection:
        """Prints itself, and returns itself."""
        screen = screen or Screen(out=True)
        rows = [
            [
                c.name,
                c.modality or c.role,
                f"{c.missing:,}" if c.missing else "-",
                f"{self.tasks[c.name][0]}: {self.tasks[c.name][1]}" if c.name in self.tasks else c.reason,
            ]
            for c in self.schema
        ]
        title = f"{self.table}: {self.schema.rows:,} rows, {len(self.schema.columns)} columns"
        screen.table(title, ["column", "is", "missing ", "because"], rows)
        if self.problems:
            bad = [[f"{p.row}", p.column, p.reason, p.file] for p in self.problems[:SHOWN]]
            more = f", of which the first {SHOWN}" if len(self.problems) > SHOWN else ""
            count = f"{len(self.problems):,} cell{'s' if len(self.problems) > 1 else ''}"
            screen.table(
                f"\n{count} cannot be read and would count as missing{more}",
                ["row ", "column", "reason", "file"],
                bad,
            )
        for warning in self.warnings:
            screen.warn(warning)
        return self


def inspect(
    data: Any,
    target: str | Sequence[str] = (),
    root: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    probe: bool = True,
) -> Inspection:
    """What plait takes each column of a table to be, and why. With `probe` every picture, sound and
    clip is read, as `fit` would; what was read is kept for it. Trains nothing. Raises `TableError`.
    """
    table = read(data, root)
    targets = [target] if isinstance(target, str) else list(target)
    chosen = recipe.load({"columns": dict(columns or {})})
    schema = infer(table, targets, chosen)
    tasks = {
        t: (name, match.reason) for t, (name, match) in infer_tasks(table, {t: t for t in targets}).items()
    }
    media = _media(table, schema, chosen) if probe else None
    if not media or not media.inputs:
        return Inspection(table.name, schema, tasks)
    prepared = prepare(table, media, Screen())
    return Inspection(
        table.name, schema, tasks, prepared.problems, check.health(prepared.notes, prepared.digests)
    )


def _media(table: Table, schema: Schema, chosen: Recipe) -> Preprocessing:
    resolved = chosen.resolve(schema, {})
    inputs = {}
    for name in schema.of("input"):
        choice = resolved.columns[name].modality
        if choice and (modality := registry.find("modalities", choice.name)).media:
            cells = table.column(origin(name, table.data.column_names))
            inputs[name] = modality.fit(registry.configure("modalities", choice.name, choice.options), cells)
    return Preprocessing(inputs, {})


def prepare(table: Table, preprocessing: Preprocessing, screen: Screen) -> Prepared:
    """All rows as tensors, with a progress bar, and the user's cache of prepared cells."""
    with (
        screen.bar("reading cells", len(table) * len(preprocessing.inputs)) as bar,
        store(screen, table) as cells,
    ):
        return preprocessing.prepare(table, progress=bar.advance, store=cells)


def store(screen: Screen, table: Table) -> AbstractContextManager[Cache | None]:
    """The cache of prepared cells; none for a few rows, which are read faster than it is opened."""
    return (open_store(screen.warn) if len(table) >= WORTH_CACHING else None) or nullcontext()


def check_cells(
    prepared: Prepared, rows: Split, table: Table, folder: Path, strict: bool, screen: Screen
) -> None:
    """Writes `problems.csv` and says what is wrong. Raises `BadCellsError` when it is too much."""
    check.write(prepared.problems, folder / "problems.csv")
    if prepared.problems:
        screen.warn(
            f"{len(prepared.problems):,} cells have problems, listed in {folder / 'problems.csv'}; they "
            f"count as missing:\n" + check.summary(prepared.problems)
        )
    check.check(prepared.problems, prepared.given, table.root, strict)
    for warning in (
        *check.health(prepared.notes, prepared.digests),
        *check.leaks(prepared.digests, rows.sides()),
    ):
        screen.warn(warning)
    lacking = {c: 1 - float(p.float().mean()) for c, p in prepared.batch.present.items()}
    shares = [
        f"{c} {share:.0%}" if share >= 0.01 else f"{c} {share:.1%}" for c, share in lacking.items() if share
    ]
    if shares:
        screen.say(f"missing: {', '.join(shares)}")


def check_labels(prepared: Prepared, train: np.ndarray) -> None:
    """Raises `TrainingError` for a target that no training row has a usable label of."""
    for target, labelled in prepared.batch.labelled.items():
        if not bool(labelled[torch.from_numpy(train)].any()):
            said = next((p.reason for p in prepared.problems if p.column == target), "none is there")
            raise TrainingError(
                f"target '{target}': no training row has a label that can be learned from: {said}"
            )
