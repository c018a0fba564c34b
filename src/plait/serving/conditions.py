"""The conditions that searches may have: comparisons of columns, without functions that make large values.

The index computes a condition in the process of the service. SQL has functions such as `repeat`, of which a
few letters take all memory, or minutes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from plait.errors import nearest
from plait.serving.refusals import Refusal

WORDS = (
    "and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false",
    "case", "when", "then", "else", "end", "date", "timestamp",
)  # fmt: skip

# functions whose results are no larger than their cells
FUNCTIONS = ("abs", "coalesce", "contains", "length", "lower", "round", "starts_with", "trim", "upper")

TEXT = re.compile(r"'(?:[^']|'')*'")
QUOTED = re.compile(r"`([^`]*)`|\"([^\"]*)\"")
CALL = re.compile(r"(\w+)\s*\(")
NAME = re.compile(r"[^\W\d]\w*")
COMMENT = re.compile(r"--|/\*")
ESCAPES = re.compile(r"[\\$]")  # begin strings that do not end where others would


def check_condition(where: str, columns: Collection[str]) -> None:
    """Raise `Refusal` for a condition that calls other functions, or names other columns than these.

    Comments are refused too: they could hide a call.
    """
    # Texts in quotes may hold anything. Where it is not sure what is quoted, nothing counts as quoted.
    bare = where if ESCAPES.search(where) else TEXT.sub(" ", where)
    if COMMENT.search(bare):
        raise Refusal(422, "where: comments are not allowed")
    names = ["".join(groups) for groups in QUOTED.findall(bare)]
    bare = QUOTED.sub(" ", bare)
    for name in CALL.findall(bare):
        if name.lower() not in WORDS + FUNCTIONS:
            allowed = ", ".join(FUNCTIONS)
            raise Refusal(422, f"where: the function '{name[:40]}' is not allowed; these are: {allowed}")
    names += [name for name in NAME.findall(bare) if name.lower() not in WORDS + FUNCTIONS]
    allowed_names = {column.lower() for column in columns}
    for name in names:
        if name.lower() not in allowed_names:
            raise Refusal(422, f"where: no column '{name[:40]}': {nearest(name[:40], columns)}")
