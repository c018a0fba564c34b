"""Connect to LanceDB, and say in plait's words what it raises."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from plait.errors import RecipeError, TableError, nearest

if TYPE_CHECKING:
    from lancedb import DBConnection

NAME = "rows"  # of the table in the database

# What LanceDB says of a wrong condition, and what is meant.
REASONS = {
    "could not convert to literal": "a value is not of its column's type, such as a text beside numbers",
    "does not return a boolean": "it is neither true nor false of a row",
}


def exists(address: str | Path) -> bool:
    """Return whether there is an index in a folder or under an address."""
    if "://" not in str(address) and not Path(address).is_dir():
        return False
    _, has_index = connect(address)
    return has_index


def connect(address: str | Path) -> tuple[DBConnection, bool]:
    """Connect to the database in a folder or under an address. Return also whether it holds an index.

    Raises `TableError` if it cannot be reached, `RecipeError` if LanceDB is not installed.
    """
    try:
        lancedb = importlib.import_module("lancedb")
    except ModuleNotFoundError as error:
        raise RecipeError("an index needs the package lancedb: pip install 'plait[retrieval]'") from error
    try:
        database = lancedb.connect(str(address))
        return database, NAME in database.list_tables().tables
    except (ValueError, RuntimeError, OSError) as error:
        # Object stores answer in XML or in a structure, of which only the message is for people.
        messages = re.findall(r"<Message>(.*?)</Message>|message: \"(.*?)\"", str(error))
        reason = "; ".join(in_xml or in_structure for in_xml, in_structure in messages)
        if not reason:
            reason = str(error)[:300]
        raise TableError(
            f"'{address}' cannot be reached: {reason}. Object stores are told their keys and endpoint by the "
            f"environment, as in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, where it is not "
            f"Amazon's, AWS_ENDPOINT"
        ) from error


@contextmanager
def explained_conditions(where: str | None, columns: Sequence[str]) -> Iterator[None]:
    """Raise `TableError` in place of what LanceDB raises for a wrong condition. It names the `columns`."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if not where:
            raise
        reason = _reason(str(error), columns).rstrip(".?")
        raise TableError(
            f'where "{where}" cannot be used: {reason}. The index has the columns '
            f"{', '.join(columns)}. Texts stand in single quotes, names with blanks in backquotes, as in "
            f"style = 'photo' AND `unit price` < 10."
        ) from error


def _reason(message: str, columns: Sequence[str]) -> str:
    """Say in plait's words why LanceDB refuses a condition."""
    unknown = re.search(r"No field named \W*([^.\s`\"]+)", message)
    if unknown:
        return f"there is no column '{unknown[1]}': {nearest(unknown[1], columns)}".rstrip(".")
    function = re.search(r"Invalid function '([^']*)'", message)
    if function:
        return f"there is no function '{function[1]}'"
    for sign, reason in REASONS.items():
        if sign in message:
            return reason
    return "it is no condition of SQL"
