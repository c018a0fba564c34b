"""Classes are abstract or final: only hooks of abstract bases have a body that others replace."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType

import plait
from plait.recipe.registry import HOOKS

# Classes that replace methods of a class that is not abstract.
REPLACING = {"plait.media.loading.Held"}  # values that are put into one tensor only when it is needed


def full_name(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"


def our_classes() -> dict[str, type]:
    classes: dict[str, type] = {}
    for module in pkgutil.walk_packages(plait.__path__, "plait."):
        if module.name.endswith("__main__"):
            continue
        for member in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(member) and member.__module__.startswith("plait."):
                classes[full_name(member)] = member
    return classes


def function_of(attribute: object) -> FunctionType | None:
    """The function of a method, a class method or a property; None of anything else."""
    for name in ("__func__", "fget", "func"):
        attribute = getattr(attribute, name, attribute)
    return attribute if isinstance(attribute, FunctionType) else None


def replaced_methods(owner: type) -> Iterator[str]:
    """Yield the full names of our own methods with a body that a class replaces."""
    for name, attribute in vars(owner).items():
        if name.startswith("__") or function_of(attribute) is None:
            continue
        for base in owner.__mro__[1:]:
            method = function_of(vars(base).get(name))
            if method is None or not base.__module__.startswith("plait."):
                continue
            is_abstract = getattr(method, "__isabstractmethod__", False)
            if not is_abstract and not getattr(base, "_is_protocol", False):
                yield f"{full_name(base)}.{name}"
            break


def test_no_method_with_a_body_is_replaced() -> None:
    for name, owner in our_classes().items():
        if name not in REPLACING:
            replaced = set(replaced_methods(owner)) - HOOKS
            assert not replaced, f"{name} replaces {sorted(replaced)}"


def test_hooks_belong_to_abstract_bases() -> None:
    classes = our_classes()
    for method in HOOKS:
        owner, _, _ = method.rpartition(".")
        assert inspect.isabstract(classes[owner]), method
