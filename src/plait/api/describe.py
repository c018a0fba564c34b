"""The options of all components in words, from the one place where they are stated: each component's
`Config`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from plait.balancing.base import balancings
from plait.encoders.base import encoders
from plait.errors import RecipeError, nearest
from plait.fusion.base import fusions
from plait.members.base import members
from plait.modalities.base import modalities
from plait.recipe.registry import Component, Registry
from plait.recipe.sections import EnsembleRecipe, ModelRecipe, SplitRecipe, TrainingRecipe, TuningRecipe
from plait.tasks.base import tasks

RECIPE: Mapping[str, type[BaseModel]] = {
    "split": SplitRecipe,
    "model": ModelRecipe,
    "training": TrainingRecipe,
    "ensemble": EnsembleRecipe,
    "tuning": TuningRecipe,
}

# The components of every kind, in the order in which `plait options` shows them.
REGISTRIES: Mapping[str, Registry[Component]] = {
    registry.kind: registry for registry in (modalities, encoders, fusions, tasks, balancings, members)
}


def options(kind: str | None = None, name: str | None = None) -> str:
    """Describe the components of a kind (or of all, and the recipe's own sections): options, types and
    defaults.

    Raises `RecipeError` with the nearest name for an unknown kind or component.
    """
    kinds = [*REGISTRIES, "recipe"]
    if kind is not None and kind not in kinds:
        raise RecipeError(f"no kind '{kind}': {nearest(kind, kinds)}")
    described = []
    for shown_kind in [kind] if kind else kinds:
        configs = _configs(shown_kind)
        if name is not None and name not in configs:
            raise RecipeError(f"no component '{name}' in {shown_kind}: {nearest(name, configs)}")
        for shown_name in [name] if name else configs:
            described.append(_describe(f"{shown_kind}/{shown_name}", configs[shown_name]))
    return "\n\n".join(described)


def _configs(kind: str) -> Mapping[str, type[BaseModel]]:
    """Return the options of every component of a kind, by name."""
    if kind == "recipe":
        return RECIPE
    registry = REGISTRIES[kind]
    return {name: registry.find(name).options for name in registry.names()}


def _describe(title: str, config: type[BaseModel]) -> str:
    lines = [title]
    is_documented = config.__doc__ and config.__base__ and config.__doc__ != config.__base__.__doc__
    text = str(config.__doc__).strip() if is_documented else ""
    lines += [f"  {line.strip()}" for line in text.splitlines() if line.strip()]
    for name, field in config.model_fields.items():
        description = f"  {field.description}" if field.description else ""
        lines.append(f"    {name} = {_default(field.default)}  ({_type(field.annotation)}){description}")
    return "\n".join(lines)


def _default(value: object) -> str:
    """Write a default value as a recipe would."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    if not isinstance(value, dict):
        return str(value)
    lines = []
    for name, option in value.items():
        fields = option.model_dump(exclude_defaults=True) if isinstance(option, BaseModel) else option
        lines.append(f"\n        {name}: {fields}")
    return "{" + "".join(lines) + "}"


def _type(annotation: object) -> str:
    """Write a type as words: the values of a `Literal`, else the name."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    if not text.startswith("Literal"):
        return text
    return text.removeprefix("Literal").strip("[]").replace("'", "").replace(", ", " | ")
