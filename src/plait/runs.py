"""What a run is begun with: its table and the rows that train, its folder, and what a resume must agree with."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plait import artifact, components
from plait.checkpoint import Checkpoint
from plait.errors import RecipeError, TableError, TrainingError
from plait.preprocessing import Prepared
from plait.recipe import Recipe
from plait.schema import Schema, origin
from plait.screen import Screen
from plait.table.read import Table, read
from plait.table.split import Split, split

SIDE = "plait_split"  # the split column made for tables given apart


def with_sides(table: Table, valid: Any, test: Any, root: Any, chosen: Recipe) -> tuple[Table, Recipe]:
    """The tables given apart as one, with a split column."""
    others = {side: read(source, root) for side, source in (("valid", valid), ("test", test)) if source is not None}
    if not others:
        return table, chosen
    parts = []
    for side, part in {"train": table, **others}.items():
        if part.root != table.root:
            raise TableError(f"the {side} table's paths begin in {part.root}, the training table's in {table.root}; give root= for both")
        parts.append(part.data.append_column(SIDE, pa.array([side] * len(part))))
    try:
        data = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"the tables given apart have columns of different types: {error}") from error
    return Table(data, table.root, table.name), chosen.model_copy(update={"split": chosen.split.model_copy(update={"column": SIDE})})


def with_split_column(chosen: Recipe, schema: Schema) -> Recipe:
    found = schema.of("split")
    if not found or chosen.split.column or chosen.split.group or chosen.split.time:
        return chosen
    return chosen.model_copy(update={"split": chosen.split.model_copy(update={"column": found[0]})})


def only_aligned(schema: Schema, chosen: Recipe) -> Schema:
    """The schema of a table without any target, in which only what is aligned is an input."""
    wanted = {c for columns in chosen.aligned(schema).values() for c in columns}
    columns = [
        c.model_copy(update={"role": "ignored", "modality": None, "reason": "not aligned, and there is no target"})
        if c.role == "input" and c.name not in wanted
        else c
        for c in schema
    ]
    return schema.model_copy(update={"columns": tuple(columns)})


def choose_rows(table: Table, chosen: Recipe, targets: list[str], screen: Screen) -> tuple[Split, np.ndarray]:
    """The split, less the rows that have no label at all, and those of them that are on its training side."""
    first = targets[0] if targets else ""
    sides = split(table, chosen.split, chosen.label(first), chosen.seed, bool(targets) and chosen.tasks[first].name == "classification")
    labelled = np.zeros(len(table), dtype=bool)
    for name in [*map(chosen.label, targets), *(origin(c, table.data.column_names) for columns in chosen.aligned().values() for c in columns)]:
        labelled |= table.column(name).is_valid().to_numpy(zero_copy_only=False)
    train_rows, valid_rows, test_rows = (rows[labelled[rows]] for rows in (sides.train, sides.valid, sides.test))
    kept = Split(train_rows, valid_rows, test_rows, sides.how)
    without = len(table) - int(labelled.sum())
    learned = sides.train[~labelled[sides.train]] if chosen.training.unlabelled else np.zeros(0, dtype=int)
    if without and not targets:
        screen.say(f"{without:,} rows have nothing that is aligned and are left out")
    elif without:
        fuses = any(components.find("tasks", chosen.tasks[t].name).fuses for t in targets)
        left = (
            f"are left out{'; --set training.unlabelled=1 learns from them too' if fuses else ''}"
            if not len(learned)
            else f"of which {len(learned):,} are learned from"
        )
        screen.say(f"{without:,} rows have no label, {left}" if len(learned) else f"{without:,} rows have no label and {left}")
    if len(kept.train) < 2:
        raise TrainingError(f"expected two or more labelled rows to train on, found {len(kept.train)} (of {len(table)} rows, split {kept.how})")
    screen.say(f"rows: {', '.join(f'{len(r):,} {side}' for side, r in kept.sides().items())} ({kept.how})")
    return kept, learned


def check_labels(prepared: Prepared, train: np.ndarray) -> None:
    """Raises `TrainingError` for a target that no training row has a usable label of."""
    for target, labelled in prepared.batch.labelled.items():
        if not bool(labelled[torch.from_numpy(train)].any()):
            said = next((p.reason for p in prepared.problems if p.column == target), "none is there")
            raise TrainingError(f"target '{target}': no training row has a label that can be learned from: {said}")


def folder_for(out: str | Path | None, resume: bool) -> Path:
    if out is None:
        if resume:
            raise RecipeError("resume= needs out=, the folder of the training that was stopped")
        base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
        out, count = base, 1
        while Path(out).exists():
            out, count = Path(f"{base}-{count}"), count + 1
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"out '{folder}' is a file; expected a folder")
    if resume and not (folder / "run.json").is_file():
        raise RecipeError(f"'{folder}' holds no training to go on with")
    if not resume and (folder / "weights.safetensors").is_file():
        raise RecipeError(f"'{folder}' already holds a trained model; choose another out=, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def content(table: Table) -> str:
    """A short hash of what a table holds: of each chunk the first thousand rows."""
    digest = hashlib.blake2b(digest_size=16)
    for column in table.data.columns:
        for chunk in column.chunks:
            digest.update(json.dumps(chunk.slice(0, 1000).to_pylist(), default=str).encode())
    return digest.hexdigest()


def begin(folder: Path, table: Table, chosen: Recipe, sources: dict[str, Any], root: Any, targets: list[str], strict: bool, resumed: bool) -> None:
    """Writes what a later resume needs and must agree with, or checks it."""
    given = {side: str(Path(s).absolute()) if isinstance(s, (str, Path)) else None for side, s in sources.items()}
    now = {
        "rows": len(table), "columns": table.data.column_names, "content": content(table), "recipe": chosen.model_dump(mode="json"),
        "sources": given, "root": None if root is None else str(Path(root).absolute()), "targets": targets, "strict": strict,
    }  # fmt: skip
    path = folder / "run.json"
    if not resumed:
        artifact.write_json(path, now)
        Checkpoint(folder, 1).remove()
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in ("rows", "columns", "content", "recipe") if before.get(key) != json.loads(json.dumps(now[key]))]
    if changed:
        raise RecipeError(f"cannot go on with '{folder}': its {' and '.join(changed)} differ from those it was begun with")
