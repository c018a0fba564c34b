"""What each column is, with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from plait.data.reading import Conventions, infer_conventions, of_input
from plait.data.split import is_named_like_a_split, sides_in
from plait.data.targets import Targets
from plait.errors import RecipeError
from plait.media.cell import is_file
from plait.modalities.base import Match, modalities
from plait.recipe.recipe import Recipe
from plait.recipe.sections import ColumnRecipe, SplitRecipe
from plait.table.schema import SOUND, TEXT, Column, Role, Schema, origin
from plait.table.table import Source, Table
from plait.table.typed import read_cells
from plait.table.values import distinct, is_list, is_text, items, sample

ID_NAME = re.compile(
    r"(?i:(^|[_\- .])(id|uuid|guid|key|idx|index|number|no|nr|row_?(id|no|numbers?|names?)?)$)"
    r"|(?i:^unnamed: \d+$|^__index_level_\d+__$)"
    r"|[a-z](Id|ID|Key|Number|No|Nr|Index|Idx)$"  # PassengerId, OrderNumber
)
UNREAD = "no modality reads cells of type"  # begins the reason of a column that is left out for its type
ALL_BAD = "no cell can be read"  # begins the reason of a column that is left out for its cells

# The index of a frame that has no name, as pandas writes it into CSV and Parquet.
INDEX_NAME = re.compile(r"(?i:unnamed: 0(\.\d+)?)|__index_level_\d+__")
ID_CELL = re.compile(r"[A-Za-z0-9_\-./:]+")
CODE = re.compile(r"[\d_/.:]")
MEDIA_SUFFIX = re.compile(
    r".*\.(wav|mp3|flac|ogg|opus|m4a|aac|mp4|mkv|webm|avi|mov|pdf|svg|txt|json)$", re.IGNORECASE
)
FEWEST = 3  # filled cells from which something can be learned, in a table of at least `MANY` rows
MANY = 50
DATA_URI = re.compile(r"data:(\w+/[\w.+\-]+)[;,]")


@dataclass(frozen=True)
class Inferred:
    """What the columns of a table are, and how those write their cells that may be inputs."""

    schema: Schema
    conventions: Conventions

    @property
    def warnings(self) -> list[str]:
        """What is worth a warning: cells that have two readings, and columns that no modality reads."""
        warnings = list(self.conventions.warnings.values())
        for column in self.schema:
            if column.reason.startswith((UNREAD, ALL_BAD)):
                warnings.append(f"column '{column.name}' is left out: {column.reason}")
        return warnings


def infer(
    table: Table, targets: Targets, recipe: Recipe, split: SplitRecipe, rows: np.ndarray | None = None
) -> Inferred:
    """Infer the schema of a table: what the recipe says of its columns, and the cells' own evidence.

    Only the cells of `rows`, those that train, decide what an input is; all cells decide where None. Raises
    `TableError` for a target that is no column, `RecipeError` for an unknown modality.
    """
    columns = recipe.columns
    for name, column in columns.items():
        table.column(origin(name, table.data.column_names))
        if column.role == "input" and column.modality is None and name in targets.hidden:
            raise RecipeError(f"recipe: column '{name}' cannot be both input and target")

    rows = np.arange(len(table)) if rows is None else rows
    roles = {name: _role(table, name, targets.hidden, columns, split) for name in table.data.column_names}
    untyped = {}
    for name, role in roles.items():
        if role is None and name not in targets.conventions.by_column:
            untyped[name] = of_input(columns.get(name))
    conventions = infer_conventions(table, untyped, recipe, rows)
    typed = read_cells(table, conventions.by_column)

    inferred = []
    for name, role in roles.items():
        if role:
            inferred.append(_with_role(table, name, *role))
        else:
            how = conventions.reasons.get(name, "")
            inferred.append(_input(typed, name, columns.get(name), rows, how))
    warnings = {**conventions.warnings, **_unused_splits(inferred, columns)}
    conventions = replace(conventions, warnings=warnings)
    parts = [*_sounds(typed, inferred, columns, rows), *_image_texts(inferred, columns)]
    schema = Schema(columns=(*inferred, *parts), rows=len(table))
    return Inferred(schema, conventions.only({origin(name, roles) for name in schema.of("input")}))


def _unused_splits(columns: list[Column], recipes: Mapping[str, ColumnRecipe]) -> dict[str, str]:
    """Warn, by column, of inputs that are named like a split and name no sides: folds have numbers."""
    warnings = {}
    for column in columns:
        name = column.name
        if column.role == "input" and name not in recipes and is_named_like_a_split(name):
            warnings[name] = (
                f"column '{name}' is named like a split, but does not say which rows train: it is learned "
                f"from. --column {name}=ignored leaves it out, and --set split.group={name} keeps rows of "
                f"one value together"
            )
    return warnings


def split_column(
    table: Table, targets: Sequence[str], columns: Mapping[str, ColumnRecipe], split: SplitRecipe
) -> str | None:
    """Return the first column that says on which side a row is; None where there is none."""
    for name in table.data.column_names:
        role = _role(table, name, targets, columns, split)
        if role and role[0] == "split":
            return name
    return None


def _role(
    table: Table,
    name: str,
    targets: Sequence[str],
    columns: Mapping[str, ColumnRecipe],
    split: SplitRecipe,
) -> tuple[Role, str] | None:
    """Return the role of a column that is no input, and why. Inputs have none here.

    All rows decide: nobody can tell which of them train before the split column is found.
    """
    recipe = columns.get(name)
    if name in targets:
        return "target", "asked for"
    if name == split.column:
        named = sides_in(name, table.column(name))
        return "split", f"holds {_listed(named)}" if named else "set in the recipe"
    if name == split.group:
        return "group", "set in the recipe"
    if recipe and recipe.role not in (None, "input"):
        return recipe.role, "set in the recipe"
    if recipe and (recipe.modality or recipe.role):
        return None
    sides = _sides(name, table.column(name), split)
    return ("split", f"holds {sides}") if sides else None


def _with_role(table: Table, name: str, role: Role, reason: str) -> Column:
    cells = table.column(name)
    return Column(name=name, role=role, reason=reason, missing=cells.null_count)


def _input(table: Table, name: str, recipe: ColumnRecipe | None, rows: np.ndarray, how: str) -> Column:
    """Judge a column that may be an input by its cells in the rows that train. `how` says how they look."""
    everywhere = table.column(name)
    cells = everywhere.take(pa.array(rows)) if len(rows) < len(table) else everywhere
    filled = cells.drop_null()
    missing = everywhere.null_count - len(table.bad.get(name, ()))
    facts = {"name": name, "missing": missing}

    if recipe and recipe.modality:
        reason = f"set in the recipe{_looks_otherwise(name, recipe.modality.name, filled, table)}"
        return Column(role="input", modality=recipe.modality.name, reason=reason, **facts)
    if not len(filled):
        all_empty = missing == len(table)
        reason = "no cell has a value" if all_empty else "no row that trains has a value"
        if everywhere.null_count == len(table) and not all_empty:
            reason = f"{ALL_BAD}: {how}"
        return Column(role="ignored", reason=reason, **facts)
    is_asked = recipe is not None and recipe.role == "input"
    if len(filled) < FEWEST and len(cells) >= MANY and not is_asked:
        rows_have = "row that trains has" if len(filled) == 1 else "rows that train have"
        reason = f"only {len(filled)} {rows_have} a value"
        return Column(role="ignored", reason=reason, **facts)
    modality, match = _best(name, filled, table)
    if match is None:
        return Column(role="ignored", reason=_unread(cells.type), **facts)

    # a column that the recipe names as an input may look like anything
    if not is_asked:
        role, reason = _exclusion(name, modality, cells, rows, table)
        if role != "input":
            return Column(role=role, reason=reason, **facts)
    reason = f"{match.reason}, {how}" if how else match.reason
    return Column(role="input", modality=modality, reason=reason, **facts)


def _unread(kind: pa.DataType) -> str:
    """Return why a column of this type is no input, and what to do."""
    remedy = "they are no images, audio or videos"
    if pa.types.is_nested(kind):
        remedy = "make all vectors equally long, and give audio as {'array': ..., 'sampling_rate': ...}"
    return f"{UNREAD} {kind}; {remedy}"


def _looks_otherwise(name: str, modality: str, filled: pa.ChunkedArray, table: Table) -> str:
    """Say that a column looks like media of another modality than the one that it is to have, if it does.

    Raises `RecipeError` for a modality that does not exist.
    """
    modalities.find(modality)
    likeliest, match = _best(name, filled, table) if len(filled) else ("", None)
    if match is None or likeliest == modality or not modalities.find(likeliest).media:
        return ""
    return f", but its cells look like {likeliest}: {match.reason}"


def _exclusion(
    name: str, modality: str, cells: pa.ChunkedArray, rows: np.ndarray, table: Table
) -> tuple[Role, str]:
    """Return the role of a column from which nothing can be learned, and why; "input" for others."""
    kind = modalities.find(modality)
    if kind.drops_constant and _is_constant(cells):
        where = "row" if _is_constant(table.column(name)) else "row that trains"
        return "ignored", f"the same value in every {where}"
    if kind.may_be_id:
        reason = _is_id(name, cells, rows)
        if reason:
            return "id", reason
    filled = cells.drop_null()
    texts = items(filled) if is_list(filled) else filled
    if is_text(texts) and len(texts) and kind.may_be_id:
        reason = _is_path(texts, table)
        if reason:
            return "ignored", reason
    return "input", ""


def _distinct(cells: pa.ChunkedArray) -> int:
    """Count different cells; 0 for lists and bytes, which are not compared."""
    nested = pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type)
    return 0 if nested else distinct(cells)


def _is_constant(cells: pa.ChunkedArray) -> bool:
    """Whether a column without empty cells has the same plain value in all of several rows."""
    return len(cells) > 1 and not cells.null_count and _distinct(cells) == 1


def _sounds(
    table: Table, columns: list[Column], recipes: Mapping[str, ColumnRecipe], rows: np.ndarray
) -> list[Column]:
    """Return the sounds of videos as inputs of their own.

    That is where the recipe asks for them, or where a few videos that are looked at have sound.
    """
    names = table.data.column_names
    sound_recipes = {}
    for name, stated in recipes.items():
        if name not in names and name.endswith(SOUND):
            sound_recipes[origin(name, names)] = stated
    sounds = []
    for column in columns:
        if column.name + SOUND in names or column.role == "target":
            continue
        recipe = sound_recipes.get(column.name)
        if recipe:
            sounds.append(_sound_of_recipe(column, recipe))
        elif column.modality and modalities.find(column.modality).may_have_sound:
            sounds += _sound_of_video(table, column, rows)
    return sounds


def _image_texts(columns: list[Column], recipes: Mapping[str, ColumnRecipe]) -> list[Column]:
    """Return the texts in images as inputs of their own, where the recipe asks for them.

    Raises `RecipeError` for a column that has no images.
    """
    by_name = {column.name: column for column in columns}
    texts = []
    for name, recipe in recipes.items():
        images = by_name.get(name.removesuffix(TEXT))
        if name in by_name or not name.endswith(TEXT) or images is None:
            continue
        role = recipe.role or "input"
        modality = recipe.modality.name if recipe.modality else "text"
        # an ignored column may hold images all the same
        if images.modality and not modalities.find(images.modality).may_have_text:
            raise RecipeError(
                f"column '{name}': expected images in '{images.name}' to read text from, it is "
                f"{images.modality}"
            )
        reason = f"set in the recipe: the text in the images of '{images.name}'"
        shown = modality if role == "input" else None
        texts.append(Column(name=name, role=role, modality=shown, reason=reason))
    return texts


def _sound_of_recipe(column: Column, recipe: ColumnRecipe) -> Column:
    role = recipe.role or "input"
    modality = _sound_modality() if role == "input" else None
    return Column(name=column.name + SOUND, role=role, modality=modality, reason="set in the recipe")


def _sound_of_video(table: Table, column: Column, rows: np.ndarray) -> list[Column]:
    """Return the audio of a column of videos if some of those that are looked at have it."""
    assert column.modality is not None
    filled = table.column(column.name).take(pa.array(rows)).drop_null()
    source = Source(column.name, table.root)
    heard, looked = modalities.find(column.modality).hears(filled, source)
    if not heard:
        return []
    reason = f"{heard} of {looked} videos looked at have audio"
    return [Column(name=column.name + SOUND, role="input", modality=_sound_modality(), reason=reason)]


def _sound_modality() -> str:
    """Return the modality that reads the sounds of videos."""
    return next(name for name in modalities.names() if modalities.find(name).is_sound)


def _best(column: str, cells: pa.ChunkedArray, table: Table) -> tuple[str, Match | None]:
    """Return the modality that these cells of a column fit best, and why; None where there is none."""
    source = Source(column, table.root)
    matches = {}
    for name in modalities.names():
        if match := modalities.find(name).matches(cells, source):
            matches[name] = match
    if not matches:
        return "", None
    best = max(matches, key=lambda name: matches[name].score)
    return best, matches[best]


def _sides(name: str, cells: pa.ChunkedArray, split: SplitRecipe) -> str:
    """Return what a column of train, valid and test holds; nothing for others, or if the recipe names one."""
    named = {} if split.column else sides_in(name, cells)
    return _listed(named)


def _listed(sides: Mapping[object, str]) -> str:
    """Return the cells that name sides of a split, in one line."""
    return ", ".join(sorted(str(cell) for cell in sides))


def _is_id(name: str, cells: pa.ChunkedArray, rows: np.ndarray) -> str:
    """Return why a column only names its rows, whose numbers are `rows`; nothing if it does not."""
    filled = cells.drop_null()
    # Frames that were put together each count from 0, so that the numbers repeat and tell which is which.
    if INDEX_NAME.fullmatch(name) and pa.types.is_integer(filled.type):
        return "the index of a frame, which has no name"
    if pa.types.is_nested(filled.type) or _distinct(filled) < len(filled) or len(filled) < 2:
        return ""
    if pa.types.is_integer(filled.type):
        if _counts_rows(filled.to_numpy(), rows[cells.is_valid().to_numpy()]):
            return "counts the rows"
        return "unique whole numbers, and named like an id" if ID_NAME.search(name) else ""
    if pa.types.is_floating(filled.type):
        return ""
    return _is_code(name, filled)


def _counts_rows(numbers: np.ndarray, rows: np.ndarray) -> bool:
    """Return whether numbers are the row numbers, from 0 or from 1.

    Years, or doses of 0, 20, 40, count something else than rows.
    """
    offset = numbers - rows
    return len(numbers) > 2 and bool(offset[0] in (0, 1) and (offset == offset[0]).all())


def _is_code(name: str, filled: pa.ChunkedArray) -> str:
    """Return why different texts are codes that name rows; nothing if they are not."""
    texts = [str(cell) for cell in sample(filled, 200)]
    if not all(ID_CELL.fullmatch(text) for text in texts):
        return ""
    if ID_NAME.search(name):
        return "unique in every row, and named like an id"
    with_digits = sum(bool(CODE.search(text)) for text in texts)
    if with_digits > 0.5 * len(texts) and len(filled) >= 20 and not MEDIA_SUFFIX.fullmatch(texts[0]):
        return "unique codes without spaces"
    return ""


def _is_path(cells: pa.ChunkedArray, table: Table) -> str:
    """Return that a column holds files, or names of files, that nothing reads; nothing if it does not."""
    names = sample(cells)
    data = list(filter(None, map(DATA_URI.match, names)))
    readers = ", ".join(modalities.names())
    if data and len(data) >= len(names) / 2:
        return f"files in text form ({data[0][1]}) that none of the modalities reads: {readers}"
    files = sum(bool(MEDIA_SUFFIX.fullmatch(name)) and is_file(name, table.root) for name in names)
    if files < len(names) / 2:
        return ""
    return f"names of files ({names[0]}) that none of the modalities reads: {readers}"
