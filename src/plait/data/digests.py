"""Digests of the files that a table's cells name, to notice when they have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from plait.data.plan import Plan
from plait.errors import BadCell
from plait.media.cell import Media, Store
from plait.modalities.base import modalities
from plait.table.schema import origin
from plait.table.table import Table
from plait.tasks.base import tasks

Digests = dict[str, list[set[bytes]]]  # those of each row's files, by column


def media_columns(plan: Plan, table: Table) -> list[str]:
    """Return the columns of the table whose cells are media: inputs, and targets that are read from files."""
    names = []
    for name, column in plan.columns.items():
        if modalities.find(column.modality.name).media:
            names.append(origin(name, table.data.column_names))
    return list(dict.fromkeys(names + target_columns(plan)))


def target_columns(plan: Plan) -> list[str]:
    """Return the columns of targets that are read from files."""
    return [label for target, label in plan.labels.items() if tasks.find(plan.tasks[target].name).from_files]


def file_digests(table: Table, columns: Iterable[str], store: Store | None = None) -> Digests:
    """Return the digests of the files of all rows, by column. A cell that cannot be read has none.

    The store knows those of files that have kept their size and time of change.
    """
    digests: Digests = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for column in columns:
            cells = table.column(column)
            digests[column] = list(pool.map(lambda cell: _digests(cell, table.root, store), cells))
    return digests


def _digests(scalar: pa.Scalar, root: Path, store: Store | None) -> set[bytes]:
    """Return the digests of the files that one cell names: several where it is a list."""
    cell = scalar.as_py()
    items = cell if isinstance(cell, list) else [cell]
    digests = set()
    for item in items:
        try:
            if item is not None:
                digests.add(Media(item, root, store).digest)
        except BadCell:
            continue
    return digests
