"""Decide what to train: the recipe, the targets, the split and the rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from plait.console import Screen
from plait.data.infer import parse_columns
from plait.data.split import Split, split
from plait.errors import TableError, TrainingError
from plait.recipe import recipe, registry
from plait.recipe.recipe import Recipe
from plait.table.read import read
from plait.table.schema import Schema, origin
from plait.table.table import Table


def aligning(columns: bool | Sequence[str]) -> list[str]:
    """The overrides of a recipe that `align=` stands for."""
    inputs = [] if isinstance(columns, bool) else target_names(columns)
    return [f"tasks.alignment={json.dumps({'name': 'alignment', 'inputs': inputs})}"] if columns else []


def load_recipe(
    source: Any, columns: Mapping[str, Any] | None, overrides: Iterable[str], seed: int | None
) -> Recipe:
    chosen = recipe.load(source, [*overrides, *([f"seed={seed}"] if seed is not None else [])])
    if columns:
        own = {k: v if isinstance(v, Mapping) else parse_columns([f"{k}={v}"])[k] for k, v in columns.items()}
        data = chosen.model_dump(mode="json", exclude_unset=True)
        data["columns"] = {**data.get("columns", {}), **own}
        chosen = recipe.load(data)
    chosen.allow_external()
    return chosen


def target_names(target: str | Sequence[str]) -> list[str]:
    return [target] if isinstance(target, str) else list(target)


SIDE = "plait_split"  # the split column made for tables given apart


def with_sides(table: Table, valid: Any, test: Any, root: Any, chosen: Recipe) -> tuple[Table, Recipe]:
    """The tables given apart as one, with a split column."""
    others = {
        side: read(source, root) for side, source in (("valid", valid), ("test", test)) if source is not None
    }
    if not others:
        return table, chosen
    parts = []
    for side, part in {"train": table, **others}.items():
        if part.root != table.root:
            raise TableError(
                f"the {side} table's paths begin in {part.root}, the training table's in {table.root}; give "
                f"root= for both"
            )
        parts.append(part.data.append_column(SIDE, pa.array([side] * len(part))))
    try:
        data = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"the tables given apart have columns of different types: {error}") from error
    return Table(data, table.root, table.name), chosen.model_copy(
        update={"split": chosen.split.model_copy(update={"column": SIDE})}
    )


def with_split_column(chosen: Recipe, schema: Schema) -> Recipe:
    found = schema.of("split")
    if not found or chosen.split.column or chosen.split.group or chosen.split.time:
        return chosen
    return chosen.model_copy(update={"split": chosen.split.model_copy(update={"column": found[0]})})


def only_aligned(schema: Schema, chosen: Recipe) -> Schema:
    """The schema of a table without any target, in which only what is aligned is an input."""
    wanted = {c for columns in chosen.aligned(schema).values() for c in columns}
    columns = [
        c.model_copy(
            update={"role": "ignored", "modality": None, "reason": "not aligned, and there is no target"}
        )
        if c.role == "input" and c.name not in wanted
        else c
        for c in schema
    ]
    return schema.model_copy(update={"columns": tuple(columns)})


def choose_rows(table: Table, chosen: Recipe, targets: list[str], screen: Screen) -> tuple[Split, np.ndarray]:
    """The split, less the rows that have no label at all, and those of them that are on its training side."""
    first = targets[0] if targets else ""
    sides = split(
        table,
        chosen.split,
        chosen.label(first),
        chosen.seed,
        bool(targets) and chosen.tasks[first].name == "classification",
    )
    labelled = np.zeros(len(table), dtype=bool)
    for name in [
        *map(chosen.label, targets),
        *(origin(c, table.data.column_names) for columns in chosen.aligned().values() for c in columns),
    ]:
        labelled |= table.column(name).is_valid().to_numpy(zero_copy_only=False)
    train_rows, valid_rows, test_rows = (
        rows[labelled[rows]] for rows in (sides.train, sides.valid, sides.test)
    )
    kept = Split(train_rows, valid_rows, test_rows, sides.how)
    without = len(table) - int(labelled.sum())
    learned = sides.train[~labelled[sides.train]] if chosen.training.unlabelled else np.zeros(0, dtype=int)
    if without and not targets:
        screen.say(f"{without:,} rows have nothing that is aligned and are left out")
    elif without:
        fuses = any(registry.find("tasks", chosen.tasks[t].name).fuses for t in targets)
        left = (
            f"are left out{'; --set training.unlabelled=1 learns from them too' if fuses else ''}"
            if not len(learned)
            else f"of which {len(learned):,} are learned from"
        )
        screen.say(
            f"{without:,} rows have no label, {left}"
            if len(learned)
            else f"{without:,} rows have no label and {left}"
        )
    if len(kept.train) < 2:
        raise TrainingError(
            f"expected two or more labelled rows to train on, found {len(kept.train)} (of {len(table)} rows, "
            f"split {kept.how})"
        )
    screen.say(f"rows: {', '.join(f'{len(r):,} {side}' for side, r in kept.sides().items())} ({kept.how})")
    return kept, learned
