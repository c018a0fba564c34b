"""Find components by name: the file's name is the registered name, and the folder is the kind.

`encoders.find("lstm")` imports `plait/encoders/lstm.py` and takes its `component`. Nothing else is
imported, so a component whose optional dependency is missing fails only when it is asked for.

Each kind has one registry, in the `base.py` of its package.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plait.errors import RecipeError, nearest
from plait.recipe.explain import explain

HOOKS: set[str] = set()  # the full names of methods that `hook` marks

_allowed: set[str] = set()  # components outside plait that this process may import


class Options(BaseModel):
    """The base of every component's `Config`: frozen, and closed to names that it does not declare.

    No number is infinite or NaN: what is computed from one is NaN without an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choice(BaseModel):
    """A component and its options: `{name: lstm, width: 64}`, or just `lstm`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that were stated, by name."""
        return dict(self.model_extra or {})


class Component:
    """The base of all components. `options` is the class of a component's options, its `Config`."""

    options: ClassVar[type[Options]]


Method = TypeVar("Method", bound=Callable[..., object])


def hook(method: Method) -> Method:
    """Mark a method of an abstract base that does what most components need, and that others replace.

    No other method with a body is replaced: a test looks for the mark.
    """
    HOOKS.add(f"{method.__module__}.{method.__qualname__}")
    return method


Kind = TypeVar("Kind", bound=Component, covariant=True)


class Registry(Generic[Kind]):
    """The components of one kind, which lie in the package `plait.<kind>`.

    `short` has names that stand for a component with some of its options, such as that of a model.
    """

    def __init__(self, kind: str, short: Mapping[str, Choice] | None = None) -> None:
        self.kind = kind
        self.short = dict(short or {})

    def names(self) -> list[str]:
        """Return the names of all components, sorted. Import none of them."""
        return list(modules(f"plait.{self.kind}"))

    def find(self, name: str) -> type[Kind]:
        """Return the class of a component.

        `module:Class` names one outside plait. It must have been allowed by `allow`, which only the caller's
        own code or recipe does. A loaded artifact or a request never makes plait import a module.

        Raises `RecipeError` with the nearest name if there is none of this name, or with what to install if
        a dependency is missing.
        """
        if ":" in name:
            external: type[Kind] = _external_class(name)
            return external
        if name in self.short:
            name = self.short[name].name
        names = self.names()
        if name not in names:
            raise RecipeError(f"no component '{name}' in {self.kind}: {nearest(name, [*names, *self.short])}")
        # Some packages draw random numbers when they are imported. The caller's stay as they are.
        of_python = random.getstate()
        try:
            component: type[Kind] = importlib.import_module(f"plait.{self.kind}.{name}").component
        except ModuleNotFoundError as error:
            raise RecipeError(
                f"'{name}' in {self.kind} needs the package '{error.name}': pip install {error.name}"
            ) from error
        finally:
            random.setstate(of_python)
        return component

    def configure(self, name: str, options: Mapping[str, object]) -> Options:
        """Return a component's `Config`, validated.

        Raises `RecipeError` with the nearest valid name for an unknown option.
        """
        if name in self.short:
            options = {**self.short[name].options, **options}
        config = self.find(name).options
        try:
            return config(**options)
        except ValidationError as error:
            raise RecipeError(explain(error, config, f"{self.kind}/{name}")) from error

    def check_names(self, name: str, options: Mapping[str, object]) -> None:
        """Raise `RecipeError` for a name that no component has, or for one that none of its options has.

        Values are not looked at: they may fit only together with options that are stated elsewhere.
        """
        fields = self.find(name).options.model_fields
        for option in options:
            if option not in fields:
                raise RecipeError(f"{self.kind}/{name}: no option '{option}': {nearest(option, fields)}")

    def choose(self, choice: Choice) -> tuple[type[Kind], Options]:
        """Return the component that a choice names, and its options."""
        return self.find(choice.name), self.configure(choice.name, choice.options)

    def resolve(self, choice: Choice, defaults: Mapping[str, object] | None = None) -> Choice:
        """Return a choice with every option stated.

        An option of the choice comes before one of `defaults`, and this before the component's default.
        """
        options = {**(defaults or {}), **choice.options}
        config = self.configure(choice.name, options)
        return Choice(name=choice.name, **config.model_dump(mode="json"))


@functools.cache
def modules(package: str) -> tuple[str, ...]:
    """Return the names of the modules of a package that are components, sorted. Import none of them."""
    folders = importlib.import_module(package).__path__
    names = []
    for module in pkgutil.iter_modules(folders):
        if not module.ispkg and not module.name.startswith(("base", "_")):
            names.append(module.name)
    return tuple(sorted(names))


def allow(name: str) -> None:
    """Let every registry import the component `module:Class`, for the rest of this process."""
    _allowed.add(name)


def _external_class(name: str) -> Any:
    """Import the component `module:Class`. Raises `RecipeError` if it is not allowed, or is none."""
    if name not in _allowed:
        raise RecipeError(
            f"'{name}' lies outside plait, and loading a model never imports foreign code. "
            f"If you trust it, call plait.recipe.registry.allow({name!r}) first."
        )
    module, _, attribute = name.partition(":")
    try:
        component = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise RecipeError(f"cannot import component '{name}': {error}") from error
    if not hasattr(component, "options"):
        raise RecipeError(f"'{name}' is no component: expected a class with `options` (see CONTRIBUTING.md)")
    return component
