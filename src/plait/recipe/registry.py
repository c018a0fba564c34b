"""Finds components by name: the file's name is the registered name, and the folder is the kind.

`find("encoders", "lstm")` imports `plait/encoders/lstm.py` and takes its `component`. Nothing else is
imported, so a component whose optional dependency is missing fails only when it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from plait.errors import RecipeError, nearest

UNION = ("int", "str", "literal['auto']")  # how pydantic names the ways to read a field that has several


KINDS = ("modalities", "encoders", "fusion", "tasks", "balancing", "members")


_external: set[str] = set()


class Options(BaseModel):
    """The base of every component's `Config`: frozen, and closed to names that it does not declare."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(BaseModel):
    """A component and its options: `{name: lstm, width: 64}`, or just `lstm`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def resolved(self, kind: str, defaults: Mapping[str, Any] | None = None) -> Choice:
        """This choice with every option written out: its own, then `defaults`, then the component's."""
        config = configure(kind, self.name, {**(defaults or {}), **self.options})
        return Choice(name=self.name, **config.model_dump(mode="json"))


def names(kind: str) -> list[str]:
    """The names of all components of a kind, sorted; imports none of them."""
    if kind not in KINDS:
        raise RecipeError(f"no kind of component '{kind}': {nearest(kind, KINDS)}")
    return list(_modules(f"plait.{kind}"))


def samples() -> list[str]:
    """The names of the sample tables, sorted."""
    return list(_modules("plait.samples"))


def find_sample(name: str) -> Any:
    """The module of a sample table: `fetch(cache)`, TARGET, INPUTS, OVERRIDES, ABOUT."""
    return importlib.import_module(f"plait.samples.{name}")


@functools.cache
def _modules(package: str) -> tuple[str, ...]:
    path = importlib.import_module(package).__path__
    return tuple(
        sorted(
            m.name
            for m in pkgutil.iter_modules(path)
            if not (m.ispkg or m.name.startswith("base")) and not m.name.startswith("_")
        )
    )


def find(kind: str, name: str) -> Any:
    """The component class of this kind and name.

    `module:Class` names one outside the package. It must have been allowed by `allow`, which only a
    caller's own code or recipe does: a loaded artifact or a request never makes plait import a module
    of its choosing.

    Raises `RecipeError` with the nearest name when there is none, or with what to install when a
    dependency is missing.
    """
    if ":" in name:
        return _find_external(name)
    known = names(kind)
    if name not in known:
        raise RecipeError(f"no component '{name}' in {kind}: {nearest(name, known)}")
    try:
        return importlib.import_module(f"plait.{kind}.{name}").component
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"'{name}' in {kind} needs the package '{error.name}': pip install {error.name}"
        ) from error


def allow(name: str) -> None:
    """Lets `find` import the component `module:Class` from outside the package, for the rest of this
    process.
    """
    _external.add(name)


def _find_external(name: str) -> Any:
    if name not in _external:
        raise RecipeError(
            f"'{name}' lies outside plait, and loading a model never imports foreign code. "
            f"If you trust it, call plait.recipe.registry.allow({name!r}) first."
        )
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise RecipeError(f"cannot import component '{name}': {error}") from error
    if not hasattr(found, "options"):
        raise RecipeError(f"'{name}' is no component: expected a class with `options`, as in CONTRIBUTING.md")
    return found


def configure(kind: str, name: str, options: dict[str, Any]) -> Any:
    """The component's validated `Config`; a wrong option gets the nearest valid one."""
    config = find(kind, name).options
    try:
        return config(**options)
    except ValidationError as error:
        raise RecipeError(explain(error, config, f"{kind}/{name}")) from error


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error in plait's words: each wrong option with its place, the reason, and the nearest
    valid name.
    """
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if str(part) not in UNION)
        if item["type"] == "extra_forbidden":
            hint = nearest(str(item["loc"][-1]), _fields_at(model, item["loc"][:-1]))
            lines.append(f"{where}: no option '{path}': {hint}")
        else:
            said = item["msg"].removeprefix("Value error, ")
            lines.append(
                f"{where}: option '{path}' is {item['input']!r}: {said.lower()}"
                if path
                else f"{where}: {said}"
            )
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)
