"""From the arguments of a call to a recipe. `fit`, `tune` and `inspect` take the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plait.encoders.base import encoders
from plait.errors import RecipeError, nearest
from plait.modalities.base import modalities
from plait.recipe.parse import split_column
from plait.recipe.recipe import Recipe, load
from plait.recipe.registry import allow
from plait.table.json import JSONValue, read_object
from plait.table.schema import ROLES
from plait.tasks.base import tasks

EXAMPLE = "{'price': 'number', 'note': 'ignored'}"

EXTERNAL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # module:Class


def recipe_from(
    source: str | Path | Mapping[str, object] | Recipe | None,
    *,
    columns: Mapping[str, object] | None = None,
    align: bool | Sequence[str] = (),
    overrides: Iterable[str] = (),
    quality: str | None = None,
    seed: int | None = None,
) -> Recipe:
    """Load a recipe and write the other arguments of the call into it.

    `columns` has a modality, a role or a mapping of options by column. Components outside plait that the
    recipe names may be imported from now on: the recipe is the caller's own. Raises `RecipeError`.
    """
    # later lines replace earlier ones: `quality=` and `seed=` have the last word
    lines = [*_aligning(align), *([overrides] if isinstance(overrides, str) else overrides)]
    if quality is not None:
        lines.append(f"quality={quality}")
    if seed is not None:
        lines.append(f"seed={seed}")
    recipe = load(source, lines)

    # loaded anew, so that the columns are checked as if the recipe had named them
    if columns:
        if not isinstance(columns, Mapping):
            raise RecipeError(f"columns: expected names with a modality or a role, as in {EXAMPLE}")
        fields = recipe.to_dict()
        earlier = read_object(fields.get("columns", {}))
        recipe = load({**fields, "columns": {**earlier, **_column_recipes(columns)}})
    _allow_external(recipe.to_dict())
    _check_names(recipe)
    return recipe


def target_names(target: str | Iterable[str] | None, argument: str = "target") -> list[str]:
    """Return the names of one target or of several as a list.

    `argument` is what users call it. Raises `RecipeError` for what is no name, or is named twice.
    """
    if target is None:
        return []
    names = [target] if isinstance(target, str) else _listed(target)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise RecipeError(f"{argument}: expected a column's name, or a list of names, came {name!r}")
        if name in names[:number]:
            raise RecipeError(f"{argument}: '{name}' is named twice")
    return names


def _listed(names: Iterable[str]) -> list[str]:
    """Return what is to be a list of names. The names of a set, which has no order, are sorted."""
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        return [names]  # refused by `target_names`, which shows it
    return sorted(names, key=str) if isinstance(names, (set, frozenset)) else list(names)


def parse_columns(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Turn texts such as `price=number` and `note=ignored` into the `columns` of a recipe.

    Raises `RecipeError` for an unknown role or modality.
    """
    columns = {}
    for text in texts:
        name, word = split_column(text)
        if word is None or not name:
            raise RecipeError(f"column '{text}': expected name=modality or name=role, as in price=number")
        columns[name] = _column_recipe(name, word)
    return columns


def _column_recipes(columns: Mapping[str, object]) -> dict[str, object]:
    """Return the options of each column. A single word is a modality or a role."""
    recipes: dict[str, object] = {}
    for name, option in columns.items():
        recipes[name] = option if isinstance(option, Mapping) else _column_recipe(str(name), str(option))
    return recipes


def _column_recipe(name: str, word: str) -> dict[str, str]:
    """Return the options of a column by one word: a modality or a role."""
    names = modalities.names()
    if word in names:
        return {"modality": word}
    if word in ROLES:
        return {"role": word}
    raise RecipeError(f"column '{name}': no modality or role '{word}': {nearest(word, [*names, *ROLES])}")


def _aligning(columns: bool | Sequence[str]) -> list[str]:
    """Return the overrides that `align=` stands for. True leaves the columns open."""
    if not columns:
        return []
    inputs = [] if isinstance(columns, bool) else target_names(columns, "align")
    task = json.dumps({"name": "alignment", "inputs": inputs})
    return [f"tasks.alignment={task}"]


def _allow_external(value: JSONValue) -> None:
    """Allow imports of the components `module:Class` that a recipe names, wherever a component can stand.

    Members, tuning choices and options of components hold other components, as names or as mappings.
    """
    if isinstance(value, str):
        if EXTERNAL.fullmatch(value):
            allow(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            _allow_external(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            _allow_external(inner)


def _check_names(recipe: Recipe) -> None:
    """Raise `RecipeError` for a name that no modality, encoder, task or option has.

    What the recipe says of a modality that no column has is fine. A name that is mistyped must not pass for
    one of these.
    """
    for name, options in recipe.modalities.items():
        modalities.check_names(name, options)
    for name, options in recipe.task_defaults.items():
        tasks.check_names(name, options)
    for modality, choice in recipe.encoders.items():
        modalities.find(modality)
        if ":" not in choice.name:  # one outside plait is imported only where a column needs it
            encoders.check_names(choice.name, choice.options)
