"""Which components there are, so that a new file is tested without being named in a test."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from plait.recipe import registry

KINDS = registry.KINDS


def component_names(kind: str) -> list[str]:
    return registry.names(kind)


def component(kind: str, name: str) -> Any:
    return registry.find(kind, name)


def configured(kind: str, name: str, options: dict[str, Any] | None = None) -> Any:
    return registry.configure(kind, name, options or {})


def variants(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every component of a kind: with its default options, and with each other value of an option that is a
    choice among words.
    """
    components: list[tuple[str, dict[str, Any]]] = []
    for name in component_names(kind):
        components.append((name, {}))
        for option, field in component(kind, name).options.model_fields.items():
            words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            components += [(name, {option: word}) for word in words if word != field.default]
    return components
