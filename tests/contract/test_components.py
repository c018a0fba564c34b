"""The contract of all components of every kind. A new file is tested as soon as it exists."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from plait.api.describe import RECIPE
from plait.tasks.base import TaskOptions
from support.components import KINDS, component, component_names
from support.options import alternatives

COMPONENTS = [(kind, name) for kind in KINDS for name in component_names(kind)]


SECTIONS = [("recipe", name) for name in RECIPE]
TOO_LARGE = {int: 10**12, float: 1e30}


def options_of(kind: str, name: str) -> Any:
    return RECIPE[name] if kind == "recipe" else component(kind, name).options


def sources(*classes: type) -> str:
    """The source of the modules of these classes and their bases."""
    modules = set()
    for cls in classes:
        modules |= {inspect.getmodule(base) for base in cls.__mro__ if base.__module__.startswith("plait.")}
    return "\n".join(inspect.getsource(module) for module in modules if module is not None)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_says_what_it_computes(kind: str, name: str) -> None:
    assert inspect.getdoc(component(kind, name)), "say what it computes, with its source"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_option_has_a_description(kind: str, name: str) -> None:
    for option, field in component(kind, name).options.model_fields.items():
        assert field.description, f"describe the option '{option}' by Field(..., description=...)"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_options_are_frozen_and_closed(kind: str, name: str) -> None:
    options = component(kind, name).options
    with pytest.raises(ValidationError):
        options(no_such_option=1)
    config = options()
    for field in options.model_fields:
        with pytest.raises(ValidationError):
            setattr(config, field, 1)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_option_is_read_by_its_component(kind: str, name: str) -> None:
    cls = component(kind, name)
    source = sources(cls, cls.options)
    of_every_task = set(TaskOptions.model_fields)  # read by those who make tasks
    for option in set(cls.options.model_fields) - of_every_task:
        assert f".{option}" in source or f'"{option}"' in source, f"nothing reads the option '{option}'"


@pytest.mark.parametrize(("kind", "name"), [*COMPONENTS, *SECTIONS])
def test_numbers_that_can_only_be_mistakes_are_refused(kind: str, name: str) -> None:
    """A number without bounds fills memory, or runs for ever, or ends in an error of another library."""
    options = options_of(kind, name)
    for option, field in options.model_fields.items():
        for annotation in alternatives(field.annotation):
            if annotation in TOO_LARGE:
                with pytest.raises(ValidationError, match=option):
                    options(**{option: TOO_LARGE[annotation]})
            if annotation is float:
                with pytest.raises(ValidationError, match=option):
                    options(**{option: float("nan")})
            if annotation == tuple[int, ...]:
                for widths in ([], [0], [10**12]):
                    with pytest.raises(ValidationError, match=option):
                        options(**{option: widths})
