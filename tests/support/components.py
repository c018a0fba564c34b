"""List the components, so that a new file is tested without being named in a test."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from plait.api.describe import REGISTRIES
from plait.recipe.registry import Component, Registry

KINDS = list(REGISTRIES)


def component_names(kind: str) -> list[str]:
    return REGISTRIES[kind].names()


def component(kind: str, name: str) -> Any:
    return REGISTRIES[kind].find(name)


def configured(kind: str, name: str, options: dict[str, Any] | None = None) -> Any:
    return REGISTRIES[kind].configure(name, options or {})


def variants(registry: Registry[Component]) -> list[tuple[str, dict[str, Any]]]:
    """Return every component of a kind, with its default options and with other ones.

    Other options are those with a choice among words: each other word is one variant.
    """
    components: list[tuple[str, dict[str, Any]]] = []
    for name in registry.names():
        components.append((name, {}))
        for option, field in registry.find(name).options.model_fields.items():
            words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            components += [(name, {option: word}) for word in words if word != field.default]
    return components
