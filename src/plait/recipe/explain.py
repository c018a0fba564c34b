"""Say in plait's words what is wrong with options, where pydantic found it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from plait.errors import nearest

KEY = "[key]"  # pydantic's name for a key of a mapping, as opposed to its value
MAX_SHOWN = 80  # characters of a wrong value

# What pydantic says of these types of errors is about Python. Recipes are read by people who write YAML.
REASONS = {
    "model_type": "expected names and values, as in {{name: value}}",
    "dict_type": "expected names and values, as in {{name: value}}",
    "tuple_type": "expected a list, as in [a, b]",
    "list_type": "expected a list, as in [a, b]",
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    "too_short": "expected {min_length} items or more",
    "too_long": "expected {max_length} items or fewer",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:,}",
    "greater_than_equal": "expected {ge:,} or more",
    "less_than": "expected less than {lt:,}",
    "less_than_equal": "expected {le:,} or less",
}


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Say a pydantic error in plait's words, one line for each wrong option.

    A line has the option's place and the reason, or the nearest valid name. `model` is what was validated,
    and `where` names it.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for detail in error.errors():
        path, siblings = _place(model, detail["loc"])
        start, reason = _line(detail, path, siblings)
        # an option of several types has an error for each of them
        lines.setdefault((path, f"{where}: {start}"), []).append(reason)

    return "\n".join(start + _either(reasons) for (_, start), reasons in lines.items())


def _either(reasons: list[str]) -> str:
    """Join the reasons of all types that an option may have: `expected a finite number, or 'auto'`."""
    first, *others = dict.fromkeys(reasons)
    return ", or ".join([first, *(other.removeprefix("expected ") for other in others)])


def _line(detail: ErrorDetails, path: str, siblings: list[str]) -> tuple[str, str]:
    """Return the beginning of a line, which names the option, and the reason."""
    kind, location, wrong = detail["type"], detail["loc"], _shown(detail["input"])
    last = str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        return f"no option '{path}': ", nearest(last, siblings)
    if kind == "invalid_key" or last == KEY:
        return f"option '{path}': ", f'a name is a text, so write it in quotes: "{path.split(".")[-1]}"'
    if kind == "missing":
        parent = path.removesuffix(last).removesuffix(".")
        start = f"option '{parent}' is {wrong}: " if parent else f"options {wrong}: "
        return start, f"the option '{last}' is missing"
    if not path:
        return "", _reason(detail)
    return f"option '{path}' is {wrong}: ", _reason(detail)


def _reason(detail: ErrorDetails) -> str:
    """Return why a value is wrong."""
    if detail["type"] in REASONS:
        bounds = {name: _whole(bound) for name, bound in detail.get("ctx", {}).items()}
        return REASONS[detail["type"]].format(**bounds)
    reason = detail["msg"].removeprefix("Value error, ")
    reason = reason.replace("Input should be", "expected", 1)
    return reason[:1].lower() + reason[1:]


def _whole(bound: object) -> object:
    """Return a bound that is a whole number without decimals."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _shown(wrong: object) -> str:
    return shortened(repr(wrong))


def shortened(text: str) -> str:
    """Return the beginning of a text that is too long for a message."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Return the dotted name of an option, and the names of the options beside it."""
    annotation: object = model
    names: list[str] = []
    siblings: list[str] = []
    for step in location:
        members = _members(annotation)
        if len(members) > 1:
            # pydantic names the member of a union, which users do not write
            annotation = _named(members, str(step))
            continue
        if step == KEY:
            continue
        names.append(str(step))
        siblings, annotation = _inside(members[0], step)
    return ".".join(names), siblings


def _inside(annotation: object, step: int | str) -> tuple[list[str], object]:
    """Return the names of the options that a type has, and the type of one of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        field = fields.get(str(step))
        return list(fields), field.annotation if field else object
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [], arguments[-1]
    return [], arguments[0] if arguments else object


def _members(annotation: object) -> list[object]:
    """Return the types that a value may have, apart from None."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    members = []
    for member in get_args(annotation):
        if member is not NoneType:
            members += _members(member)
    return members


def _named(members: list[object], tag: str) -> object:
    """Return the member of a union that pydantic means by a tag, such as `function-after[_f(), Between]`."""
    words = re.findall(r"\w+", tag)
    for member in members:
        if getattr(member, "__name__", "") in words:
            return member
    return members[0]
