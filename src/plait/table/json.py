"""JSON: its types, and values of a known type out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from pydantic import TypeAdapter

JSONValue: TypeAlias = "bool | int | float | str | Sequence[JSONValue] | Mapping[str, JSONValue] | None"
JSON: TypeAlias = "dict[str, JSONValue]"

T = TypeVar("T")


def read_as(kind: type[T], value: JSONValue) -> T:
    """Return a value as this type, such as `list[float]`. Raises `ValueError` if it is something else."""
    return TypeAdapter(kind).validate_python(value)


def read_object(value: JSONValue) -> JSON:
    """Return a value as names and values. Raises `ValueError` if it is something else."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected names and values, came {type(value).__name__}")
    return dict(value)


def read_list(value: JSONValue) -> list[JSONValue]:
    """Return a value as a list. Raises `ValueError` if it is something else."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"expected a list, came {type(value).__name__}")
    return list(value)
