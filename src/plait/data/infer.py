"""What each column is, with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.errors import RecipeError, TableError
from plait.media.cell import is_file
from plait.modalities.base import Match
from plait.recipe import registry
from plait.recipe.sections import ColumnRecipe, SplitRecipe
from plait.table.read import SPLITS
from plait.table.schema import SOUND, Column, Role, Schema, origin
from plait.table.table import Source, Table
from plait.table.values import distinct, is_text, sample

ID_NAME = re.compile(
    r"(^|[_\- .])(id|uuid|guid|key|idx|index|row_?(id|no|numbers?|names?)?)$"
    r"|^unnamed: \d+$|^__index_level_\d+__$",
    re.IGNORECASE,
)


ID_CELL = re.compile(r"[A-Za-z0-9_\-./:]+")


CODE = re.compile(r"[\d_/.:]")


SPLIT_NAMES = ("split", "fold", "partition", "subset", "set")


MEDIA_SUFFIX = re.compile(
    r".*\.(wav|mp3|flac|ogg|opus|m4a|aac|mp4|mkv|webm|avi|mov|pdf|svg|txt|json)$", re.IGNORECASE
)


def infer(
    table: Table,
    targets: Sequence[str],
    columns: Mapping[str, ColumnRecipe],
    split: SplitRecipe,
    rows: np.ndarray | None = None,
) -> Schema:
    """Infer the schema of a table: what the recipe says of its `columns`, and the cells' own evidence.

    `targets` are columns that are not read as inputs. Only the cells of `rows`, those that train, decide
    what an input is; all cells decide where None. Raises `TableError` for a target that is no column,
    `RecipeError` for an unknown modality.
    """
    for target in targets:
        table.column(target)
    for name, column in columns.items():
        table.column(origin(name, table.data.column_names))
        if column.role == "input" and column.modality is None and name in targets:
            raise RecipeError(f"recipe: column '{name}' cannot be both input and target")

    rows = np.arange(len(table)) if rows is None else rows
    inferred = []
    for name in table.data.column_names:
        role = _role(table, name, targets, columns, split)
        inferred.append(
            _with_role(table, name, *role) if role else _input(table, name, columns.get(name), rows)
        )
    return Schema(columns=(*inferred, *_sounds(table, inferred, columns, rows)), rows=len(table))


def split_column(
    table: Table, targets: Sequence[str], columns: Mapping[str, ColumnRecipe], split: SplitRecipe
) -> str | None:
    """Return the first column that says on which side a row is; None where there is none."""
    for name in table.data.column_names:
        role = _role(table, name, targets, columns, split)
        if role and role[0] == "split":
            return name
    return None


def infer_tasks(table: Table, labels: Mapping[str, str]) -> dict[str, tuple[str, Match]]:
    """Choose for each target, whose labels are in the column `labels[target]`, the task that fits best.

    Return its name and the reason. Raises `TableError` when none does.
    """
    tasks = {}
    for target, column in labels.items():
        cells = table.column(column).drop_null()
        matches = {}
        for name in registry.names("tasks") if len(cells) else ():
            if match := registry.find("tasks", name).matches(cells):
                matches[name] = match
        if not matches:
            content = f"cells of type {cells.type}" if len(cells) else "no labels at all"
            raise TableError(
                f"target '{target}' has {content}; expected classes, numbers, texts or lists of labels"
            )
        best = max(matches, key=lambda name: matches[name].score)
        tasks[target] = best, matches[best]
    return tasks


def _role(
    table: Table,
    name: str,
    targets: Sequence[str],
    columns: Mapping[str, ColumnRecipe],
    split: SplitRecipe,
) -> tuple[Role, str] | None:
    """Return the role of a column that is no input, and why. Inputs have none here.

    All rows decide: which of them train is not known before the split column is.
    """
    asked = columns.get(name)
    if name in targets:
        return "target", "asked for"
    if name == split.column:
        return "split", "said by the recipe"
    if name == split.group:
        return "group", "said by the recipe"
    if asked and asked.role not in (None, "input"):
        return asked.role, "said by the recipe"
    if asked and (asked.modality or asked.role):
        return None
    sides = _sides(name, table.column(name), split)
    return ("split", f"holds {sides}") if sides else None


def _with_role(table: Table, name: str, role: Role, reason: str) -> Column:
    cells = table.column(name)
    return Column(
        name=name, role=role, reason=reason, missing=cells.null_count, distinct=_distinct(cells.drop_null())
    )


def _input(table: Table, name: str, asked: ColumnRecipe | None, rows: np.ndarray) -> Column:
    """Judge a column that may be an input by its cells in the rows that train."""
    everywhere = table.column(name)
    cells = everywhere.take(pa.array(rows)) if len(rows) < len(table) else everywhere
    known = cells.drop_null()
    facts = {"name": name, "missing": everywhere.null_count, "distinct": _distinct(known)}

    if asked and asked.modality:
        registry.find("modalities", asked.modality.name)
        return Column(role="input", modality=asked.modality.name, reason="said by the recipe", **facts)
    if not len(known):
        empty = (
            "no cell has a value" if everywhere.null_count == len(table) else "no row that trains has a value"
        )
        return Column(role="ignored", reason=empty, **facts)
    modality, match = _best(name, known, table)
    if match is None:
        return Column(role="ignored", reason=f"no modality reads cells of type {cells.type}", **facts)

    if asked is None or asked.role != "input":  # an input by the caller's word may look like anything
        if _is_constant(modality, cells):
            return Column(role="ignored", reason="the same value in every row", **facts)
        if modality in ("text", "category", "number") and (why := _is_id(name, cells, rows)):
            return Column(role="id", reason=why, **facts)
        if is_text(known) and modality in ("text", "category") and (why := _is_path(known, table)):
            return Column(role="ignored", reason=why, **facts)
    return Column(role="input", modality=modality, reason=match.reason, **facts)


def _distinct(known: pa.ChunkedArray) -> int:
    """Count different cells; 0 for lists and bytes, which are not compared."""
    nested = pa.types.is_nested(known.type) or pa.types.is_binary(known.type)
    return 0 if nested else distinct(known)


def _is_constant(modality: str, cells: pa.ChunkedArray) -> bool:
    """Whether a column without empty cells has the same plain value in all of several rows."""
    if registry.find("modalities", modality).media or modality == "vector":
        return False
    return len(cells) > 1 and not cells.null_count and _distinct(cells) == 1


def _sounds(
    table: Table, columns: list[Column], recipes: Mapping[str, ColumnRecipe], rows: np.ndarray
) -> list[Column]:
    """The sounds of clips, as inputs of their own: where the recipe asks for them, or where some clips
    looked at have one.
    """
    asked = {
        origin(c, table.data.column_names): r for c, r in recipes.items() if c not in table.data.column_names
    }
    found = []
    for column in columns:
        name = column.name + SOUND
        if name in table.data.column_names or column.role == "target":
            continue
        if own := asked.get(column.name):
            role = own.role or "input"
            found.append(
                Column(
                    name=name,
                    role=role,
                    modality="audio" if role == "input" else None,
                    reason="said by the recipe",
                )
            )
        elif column.role == "input" and column.modality == "video":
            known = table.column(column.name).take(pa.array(rows)).drop_null()
            heard, looked = registry.find("modalities", "video").hears(known, Source(column.name, table.root))
            if heard:
                found.append(
                    Column(
                        name=name,
                        role="input",
                        modality="audio",
                        reason=f"{heard} of {looked} clips looked at have a sound",
                    )
                )
    return found


def _best(name: str, known: pa.ChunkedArray, table: Table) -> tuple[str, Match | None]:
    source = Source(name, table.root)
    found = {m: registry.find("modalities", m).matches(known, source) for m in registry.names("modalities")}
    matches = {m: match for m, match in found.items() if match}
    if not matches:
        return "", None
    best = max(matches, key=lambda m: matches[m].score)
    return best, matches[best]


def _sides(name: str, cells: pa.ChunkedArray, split: SplitRecipe) -> str:
    """Return what a column of train, valid and test holds; nothing for others, or if the recipe names one."""
    known = cells.drop_null()
    if name.lower() not in SPLIT_NAMES or split.column or not len(known) or not is_text(known):
        return ""
    sides = {str(cell).lower() for cell in pc.unique(known).to_pylist()}
    return ", ".join(sorted(sides)) if sides <= set(SPLITS) and "train" in sides else ""


def _is_id(name: str, cells: pa.ChunkedArray, rows: np.ndarray) -> str:
    """Return why a column only names its rows, whose numbers are `rows`; nothing if it does not."""
    known = cells.drop_null()
    if _distinct(known) < len(known) or len(known) < 2:
        return ""
    if pa.types.is_integer(known.type):
        # years, or doses of 0, 20, 40, count something else than rows
        before_first = known.to_numpy() - rows[cells.is_valid().to_numpy()]
        if len(known) > 2 and before_first[0] in (0, 1) and (before_first == before_first[0]).all():
            return "counts the rows"
        return "unique whole numbers, and named like an id" if ID_NAME.search(name) else ""
    if pa.types.is_floating(known.type):
        return ""

    shown = [str(cell) for cell in sample(known, 200)]
    without_spaces = all(ID_CELL.fullmatch(cell) for cell in shown)
    if ID_NAME.search(name) and without_spaces:
        return "unique in every row, and named like an id"
    with_digits = sum(bool(CODE.search(cell)) for cell in shown)
    coded = without_spaces and with_digits > 0.5 * len(shown)
    if coded and len(known) >= 20 and not MEDIA_SUFFIX.fullmatch(shown[0]):
        return "unique codes without spaces"
    return ""


def _is_path(known: pa.ChunkedArray, table: Table) -> str:
    looked = sample(known)
    files = sum(bool(MEDIA_SUFFIX.fullmatch(cell)) and is_file(cell, table.root) for cell in looked)
    if files < len(looked) / 2:
        return ""
    modalities = ", ".join(registry.names("modalities"))
    return f"names of files ({looked[0]}) that none of the modalities reads: {modalities}"
