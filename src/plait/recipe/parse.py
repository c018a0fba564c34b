"""Read the text of a recipe: YAML within bounds, and overrides such as `training.epochs=5`."""

from __future__ import annotations

import re

import yaml

MAX_VALUES = 20_000  # of a recipe, with each alias written out
MAX_LEVELS = 50  # that values may be nested
_TOO_DEEP = f"expected at most {MAX_LEVELS} levels of values in values"

# A name in a path such as columns."a.b".role, and what ends it. Quotes keep dots and signs of equality.
QUOTED = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)')\s*(?=[.=]|$)""")
BARE = re.compile(r"[^.=]*")

NO_YAML = ("%", ",", "@", "`")  # no value in YAML begins with one of these marks


def parse(text: str) -> object:
    """Return what a text in YAML holds. Raises `ValueError` with a reason if it is not valid, or too large.

    An alias stands for a copy of other values, so a few lines could stand for more than memory holds. Values
    are counted before any is made.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _extent(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_value(text: str) -> object:
    """Return the value of an override: YAML, or the text itself where no YAML begins so.

    `%d/%m/%Y` is a format and `,` a decimal mark, which a shell hands over without quotes.
    """
    stripped = text.strip()
    return stripped if stripped.startswith(NO_YAML) else parse(text)


def _extent(node: yaml.Node, extents: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values a node stands for, and how many levels they have.

    `extents` holds the nodes that were met before, and None for those that this one lies in.
    """
    if id(node) in extents:
        extent = extents[id(node)]
        if extent is None:
            raise ValueError("a value lies within itself")
        return extent

    extents[id(node)] = None
    values, levels = 1, 1
    _check_names(node)
    for child in _children(node):
        child_values, child_levels = _extent(child, extents)
        values += child_values
        levels = max(levels, child_levels + 1)
    if values > MAX_VALUES:
        raise ValueError(f"expected at most {MAX_VALUES:,} values, with all aliases written out")
    if levels > MAX_LEVELS:
        raise ValueError(_TOO_DEEP)
    extents[id(node)] = values, levels
    return values, levels


def _check_names(node: yaml.Node) -> None:
    """Raise `ValueError` if a name is given twice: YAML would keep the last value, and tell nobody."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for name, _ in node.value:
        if not isinstance(name, yaml.ScalarNode):
            continue
        line = name.start_mark.line + 1
        if name.value in lines:
            raise ValueError(f"'{name.value}' is given twice, in line {lines[name.value]} and in line {line}")
        lines[name.value] = line


def _children(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes within a node: the items of a list, or names and values."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            children += [name, value]
    return children


def split_override(text: str) -> tuple[list[str], str | None]:
    """Return the names of an option such as `columns."a.b".role=id`, and the text of its value.

    The text is None without a sign of equality. A name with a dot or such a sign in it stands in quotes.
    """
    names = []
    rest = "." + text
    while rest.startswith("."):
        name, rest = _first_name(rest[1:])
        names.append(name)
    return names, rest[1:] if rest else None


def split_column(text: str) -> tuple[str, str | None]:
    """Return the name of a column and the word for it, of a text such as `price=number` or `"a=b"=number`.

    The word is None without a sign of equality.
    """
    quoted = QUOTED.match(text)
    if quoted is not None and not text[quoted.end() :].startswith("."):
        name, rest = _first_name(text)
        return name, rest[1:] if rest else None
    name, sign, word = text.partition("=")
    return name, word if sign else None


def quote(name: str) -> str:
    """Return a name as an override writes it: in quotes if it has a dot or a sign of equality."""
    if not re.search(r"[.=\"']", name):
        return name
    return f"'{name}'" if '"' in name else f'"{name}"'


def _first_name(text: str) -> tuple[str, str]:
    """Return the first name of a path, without quotes, and the rest, which a dot or `=` begins."""
    quoted = QUOTED.match(text)
    if quoted is not None:
        double, single = quoted.groups()
        return (single if double is None else double), text[quoted.end() :]
    bare = BARE.match(text)
    assert bare is not None  # it matches nothing as well
    return bare.group().strip(), text[bare.end() :]
