"""What each column is, with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from plait.errors import RecipeError, TableError, nearest
from plait.media.cell import is_file
from plait.modalities.base import Match
from plait.recipe import registry
from plait.recipe.recipe import Recipe
from plait.table.read import SPLITS
from plait.table.schema import ROLES, SOUND, Column, Schema, origin
from plait.table.table import Source, Table
from plait.table.values import distinct, is_text, sample

ID_NAME = re.compile(
    r"(^|[_\- .])(id|uuid|guid|key|idx|index|row_?(id|no|numbers?|names?)?)$"
    r"|^unnamed: \d+$|^__index_level_\d+__$",
    re.IGNORECASE,
)


ID_CELL = re.compile(r"[A-Za-z0-9_\-./:]+")


CODE = re.compile(r"[\d_/.:]")


MEDIA_SUFFIX = re.compile(
    r".*\.(wav|mp3|flac|ogg|opus|m4a|aac|mp4|mkv|webm|avi|mov|pdf|svg|txt|json)$", re.IGNORECASE
)


def infer(table: Table, targets: list[str], recipe: Recipe) -> Schema:
    """The schema of a table: the recipe's word where it says something, the cells' own evidence otherwise.

    Raises `TableError` for a table without rows or a target that is no column, `RecipeError` for an
    unknown modality.
    """
    if not len(table):
        raise TableError(f"{table.name} has no rows")
    for target in targets:
        table.column(target)
    for name, column in recipe.columns.items():
        table.column(origin(name, table.data.column_names))
        if column.role == "input" and column.modality is None and name in targets:
            raise RecipeError(f"recipe: column '{name}' cannot be both input and target")
    columns = [_column(table, name, targets, recipe) for name in table.data.column_names]
    return Schema(columns=(*columns, *_sounds(table, columns, recipe)), rows=len(table))


def infer_tasks(table: Table, labels: Mapping[str, str]) -> dict[str, tuple[str, Match]]:
    """For each target, whose labels are in the column `labels[target]`, the task that fits them best,
    and why. Raises `TableError` when none does.
    """
    chosen = {}
    for target, column in labels.items():
        cells = table.column(column).drop_null()
        matches = (
            {name: registry.find("tasks", name).matches(cells) for name in registry.names("tasks")}
            if len(cells)
            else {}
        )
        found = {name: match for name, match in matches.items() if match}
        if not found:
            what = f"cells of type {cells.type}" if len(cells) else "no labels at all"
            raise TableError(
                f"target '{target}' has {what}; expected classes, numbers, texts or lists of labels"
            )
        best = max(found, key=lambda name: found[name].score)
        chosen[target] = best, found[best]
    return chosen


def _column(table: Table, name: str, targets: list[str], recipe: Recipe) -> Column:
    cells = table.column(name)
    known = cells.drop_null()
    nested = pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type)
    facts = {"name": name, "missing": cells.null_count, "distinct": 0 if nested else distinct(known)}
    own = recipe.columns.get(name)
    if name in targets:
        return Column(role="target", reason="asked for", **facts)
    for role, column in (("split", recipe.split.column), ("group", recipe.split.group)):
        if name == column:
            return Column(role=role, reason="said by the recipe", **facts)
    if own and own.role not in (None, "input"):
        return Column(role=own.role, reason="said by the recipe", **facts)
    if own and own.modality:
        registry.find("modalities", own.modality.name)
        return Column(role="input", modality=own.modality.name, reason="said by the recipe", **facts)
    forced = own is not None and own.role == "input"
    if not len(known):
        return Column(role="ignored", reason="no cell has a value", **facts)
    if not forced and (role_reason := _special(name, known, recipe)):
        return Column(role=role_reason[0], reason=role_reason[1], **facts)
    modality, match = _best(name, known, table)
    if match is None:
        return Column(role="ignored", reason=f"no modality reads cells of type {cells.type}", **facts)
    if not forced:
        if (
            not registry.find("modalities", modality).media
            and modality != "vector"
            and facts["distinct"] == 1
            and not cells.null_count
        ):
            return Column(role="ignored", reason="the same value in every row", **facts)
        if modality in ("text", "category", "number") and (why := _is_id(name, known, facts["distinct"])):
            return Column(role="id", reason=why, **facts)
        if is_text(known) and modality in ("text", "category") and (why := _is_path(known, table)):
            return Column(role="ignored", reason=why, **facts)
    return Column(role="input", modality=modality, reason=match.reason, **facts)


def _sounds(table: Table, columns: list[Column], recipe: Recipe) -> list[Column]:
    """The sounds of clips, as inputs of their own: where the recipe asks for them, or where some clips
    looked at have one.
    """
    asked = {
        origin(c, table.data.column_names): r
        for c, r in recipe.columns.items()
        if c not in table.data.column_names
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
            known = table.column(column.name).drop_null()
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


def _special(name: str, known: pa.ChunkedArray, recipe: Recipe) -> tuple[str, str] | None:
    """A column of train / valid / test, unless the recipe names another one."""
    if (
        name.lower() not in ("split", "fold", "partition", "subset", "set")
        or not is_text(known)
        or recipe.split.column
    ):
        return None
    values = {str(v).lower() for v in pc.unique(known).to_pylist()}
    return (
        ("split", f"holds {', '.join(sorted(values))}")
        if values <= set(SPLITS) and "train" in values
        else None
    )


def _is_id(name: str, known: pa.ChunkedArray, different: int) -> str:
    if different < len(known) or len(known) < 2:
        return ""
    if pa.types.is_integer(known.type):
        steps = pc.unique(pc.pairwise_diff(known.combine_chunks(), 1)).drop_null()
        if (
            steps.to_pylist() == [1] and known[0].as_py() in (0, 1) and len(known) > 2
        ):  # years, or doses of 0, 20, 40, count something else
            return "counts the rows"
        return "unique whole numbers, and named like an id" if ID_NAME.search(name) else ""
    if pa.types.is_floating(known.type):
        return ""
    looked = [str(c) for c in sample(known, 200)]
    if ID_NAME.search(name) and all(ID_CELL.fullmatch(c) for c in looked):
        return "unique in every row, and named like an id"
    coded = all(ID_CELL.fullmatch(c) for c in looked) and sum(
        bool(CODE.search(c)) for c in looked
    ) > 0.5 * len(looked)
    return (
        "unique codes without spaces"
        if coded and len(known) >= 20 and not MEDIA_SUFFIX.fullmatch(looked[0])
        else ""
    )


def _is_path(known: pa.ChunkedArray, table: Table) -> str:
    looked = sample(known)
    files = sum(bool(MEDIA_SUFFIX.fullmatch(cell)) and is_file(cell, table.root) for cell in looked)
    if files < len(looked) / 2:
        return ""
    modalities = ", ".join(registry.names("modalities"))
    return f"names of files ({looked[0]}) that none of the modalities reads: {modalities}"


def parse_columns(texts: list[str]) -> dict[str, dict[str, str]]:
    """`price=number`, `note=ignored` as the recipe's `columns`. Raises `RecipeError` for an unknown
    role or modality.
    """
    columns = {}
    modalities = registry.names("modalities")
    for text in texts:
        name, sign, what = text.partition("=")
        if not sign or not name:
            raise RecipeError(f"column '{text}': expected name=modality or name=role, as in price=number")
        if what in modalities:
            columns[name] = {"modality": what}
        elif what in ROLES:
            columns[name] = {"role": what}
        else:
            raise RecipeError(
                f"column '{name}': no modality or role '{what}': {nearest(what, [*modalities, *ROLES])}"
            )
    return columns
