"""Describe the options of all components, from the one place that states them: each component's `Config`."""

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
    """Describe the options of a kind's components, with types and defaults.

    Without a kind, describe all components and the recipe's own sections.

    Raises `RecipeError` with the nearest name for an unknown kind or component.
    """
    kinds = [*REGISTRIES, "recipe"]
    if kind is not None and kind not in kinds:
        raise RecipeError(f"no kind '{kind}': {nearest(kind, kinds)}")

    descriptions = []
    for shown_kind in [kind] if kind else kinds:
        configs = _configs(shown_kind)
        if name is not None and name not in configs:
            raise RecipeError(f"no component '{name}' in {shown_kind}: {nearest(name, configs)}")
        for shown_name in [name] if name else configs:
            title = f"{shown_kind}/{shown_name}"
            descriptions.append(_describe(title, configs[shown_name]))
    return "\n\n".join(descriptions)


def _configs(kind: str) -> Mapping[str, type[BaseModel]]:
    """Return the options of every component of a kind, by name."""
    if kind == "recipe":
        return RECIPE
    registry = REGISTRIES[kind]
    return {name: registry.find(name).options for name in registry.names()}


def _describe(title: str, config: type[BaseModel]) -> str:
    """Return a title, what the docstring says, and one line for each option."""
    lines = [title]
    for line in _docstring(config).splitlines():
        if line.strip():
            lines.append(f"  {line.strip()}")
    for name, field in config.model_fields.items():
        description = f"  {field.description}" if field.description else ""
        lines.append(f"    {name} = {_default(field.default)}  ({_type(field.annotation)}){description}")
    return "\n".join(lines)


def _docstring(config: type[BaseModel]) -> str:
    """Return a class's own docstring; nothing if it only has that of its base."""
    text, base = config.__doc__, config.__base__
    if not text or base is None or text == base.__doc__:
        return ""
    return text.strip()


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
    if isinstance(annotation, type):
        return annotation.__name__
    text = str(annotation).replace("typing.", "")
    if not text.startswith("Literal"):
        return text
    values = text.removeprefix("Literal").strip("[]")
    return values.replace("'", "").replace(", ", " | ")
