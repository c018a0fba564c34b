"""The conditions that searches may have: comparisons of columns, without functions that make large values.

The index computes a condition in the process of the service. SQL has functions such as `repeat`, of which a
few letters take all memory, or minutes.
"""

from __future__ import annotations

import re

from plait.serving.refusals import Refusal

# What may stand before a bracket: words of SQL, and functions whose results are no larger than their cells.
WORDS = ("and", "or", "not", "in", "between", "like", "ilike", "is", "case", "when", "then", "else")
FUNCTIONS = ("abs", "coalesce", "contains", "length", "lower", "round", "starts_with", "trim", "upper")

QUOTED = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|`[^`]*`""")
CALL = re.compile(r"(\w+)\s*\(")
COMMENT = re.compile(r"--|/\*")
ESCAPES = re.compile(r"[\\$]")  # begin strings that do not end where others would


def check_condition(where: str) -> None:
    """Raise `Refusal` for a condition that calls other functions.

    Comments are refused too: they could hide a call.
    """
    # Texts in quotes may hold anything. Where it is not sure what is quoted, nothing counts as quoted.
    bare = where if ESCAPES.search(where) else QUOTED.sub(" quoted ", where)
    if COMMENT.search(bare):
        raise Refusal(422, "where: comments are not allowed")
    for name in CALL.findall(bare):
        if name.lower() not in WORDS + FUNCTIONS:
            allowed = ", ".join(FUNCTIONS)
            raise Refusal(422, f"where: the function '{name[:40]}' is not allowed; these are: {allowed}")
