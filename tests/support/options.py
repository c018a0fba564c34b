"""Find other values of a component's options from their types."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic.fields import FieldInfo

from plait.errors import RecipeError
from plait.recipe.registry import Choice, Options
from support.components import component, component_names, configured

FILLED_IN = "filled in"  # begins the description of an option that plait sets itself


def options_of(kind: str, base: type[Options] = Options) -> list[tuple[str, str]]:
    """Return every option of every component of a kind.

    Leave out those of `base`, which all components share, and those that plait fills in.
    """
    options = []
    for name in component_names(kind):
        for option, field in component(kind, name).options.model_fields.items():
            is_filled_in = (field.description or "").startswith(FILLED_IN)
            if option not in base.model_fields and not is_filled_in:
                options.append((name, option))
    return options


def assert_option_matters(
    kind: str, name: str, option: str, outcome: Callable[[dict[str, Any]], Sequence[object]]
) -> None:
    """Fail if `outcome` is the same whatever the value of an option.

    It is called with options until they make a difference. It may raise `RecipeError` for a value that
    means nothing to it.
    """
    settings = list(settings_to_try(kind, name, option))
    assert settings, f"tests/support/options.py knows no other value of the option '{option}'"
    for before, after in settings:
        try:
            pairs = zip(outcome(before), outcome(after), strict=True)
        except RecipeError:
            continue
        if not all(is_same(outcome_before, outcome_after) for outcome_before, outcome_after in pairs):
            return
    raise AssertionError(f"the option '{option}' changes nothing in {len(settings)} trials")


def is_same(before: object, after: object) -> bool:
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return before.shape == after.shape and torch.allclose(before, after)
    return before == after


def settings_to_try(kind: str, name: str, option: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield pairs of settings that differ in one option.

    The other options have their defaults, or one of them has another setting, because an option may mean
    nothing without another one.
    """
    fields = component(kind, name).options.model_fields
    contexts: list[dict[str, Any]] = [{}]
    for other, field in fields.items():
        if other != option:
            contexts += [{other: setting} for setting in other_values(field)]
    for context in contexts:
        for setting in other_values(fields[option]):
            changed = {**context, option: setting}
            if is_valid(kind, name, context) and is_valid(kind, name, changed):
                yield context, changed


def is_valid(kind: str, name: str, options: dict[str, Any]) -> bool:
    try:
        configured(kind, name, options)
    except RecipeError:
        return False
    return True


def other_values(field: FieldInfo) -> list[Any]:
    """Return values of an option's type other than its default, whether they are valid or not."""
    default = field.default
    values: list[Any] = []
    for annotation in alternatives(field.annotation):
        if get_origin(annotation) is Literal:
            values += get_args(annotation)
        elif annotation is bool:
            values += [True, False]
        elif annotation is int:
            values += [1, 2, 4]
            if isinstance(default, int) and default:
                values += [default * 2, default // 2, default + 2]
        elif annotation is float:
            values += [0.9, 0.5, 3.0]
        elif annotation is str:
            values += ["/"] if len(str(default)) == 1 else []
        elif annotation is Choice and default is not None:
            values += _other_choices(default)
        elif get_origin(annotation) is tuple and isinstance(default, tuple):
            values += [default[:1], default[-2:]]
            if int in get_args(annotation):
                values.append((4,))
    return [setting for setting in values if setting != default]


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an option may have."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _other_choices(default: Choice) -> list[Choice]:
    """Return the same component with one of its options changed."""
    choices = []
    for option, setting in default.options.items():
        if isinstance(setting, (list, tuple)):
            choices.append(Choice(name=default.name, **{option: list(setting)[:1]}))
    return choices
