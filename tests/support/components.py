"""Which components of a kind there are, so that a new file is tested without being named in a test."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from plait.recipe.registry import Component, Registry


def variants(registry: Registry[Component]) -> list[tuple[str, dict[str, Any]]]:
    """Every component of a kind: with its default options, and with each other value of an option that is a
    choice among words.
    """
    components: list[tuple[str, dict[str, Any]]] = []
    for name in registry.names():
        components.append((name, {}))
        for option, field in registry.find(name).options.model_fields.items():
            words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            components += [(name, {option: word}) for word in words if word != field.default]
    return components
