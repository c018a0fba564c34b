"""The convention of each column of a table, by its cells, the recipe and the table's other columns."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

import numpy as np
import pyarrow as pa
from babel import Locale, UnknownLocaleError

from plait.errors import RecipeError
from plait.modalities.base import modalities
from plait.recipe.parse import quote
from plait.recipe.recipe import Recipe
from plait.recipe.sections import ColumnRecipe
from plait.table.conventions.base import Convention, Recognised, Style, evenly, is_text, percent, shown
from plait.table.conventions.date import Date
from plait.table.conventions.infer import NEARLY, SAMPLE, AnyConvention, infer_convention
from plait.table.conventions.number import Number
from plait.table.conventions.plain import Plain
from plait.table.table import Table
from plait.tasks.base import tasks

Accepted = tuple[type[Convention], ...]

# How a convention says which option gives a column its second reading.
HINT = re.compile(r"(?P<readings>.*)set (?P<option>\w+): '(?P<word>.*)'", re.DOTALL)


@dataclass(frozen=True)
class Conventions:
    """The conventions of columns, how each looks (for the user), and what is worth a warning, by column."""

    by_column: dict[str, AnyConvention] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)

    def only(self, columns: Collection[str]) -> Conventions:
        """Return those of some columns, and all warnings about them."""
        by_column = {name: convention for name, convention in self.by_column.items() if name in columns}
        warnings = {name: warning for name, warning in self.warnings.items() if name in columns}
        return Conventions(by_column, self.reasons, warnings)

    def with_others(self, others: Conventions) -> Conventions:
        """Return these and other columns' conventions."""
        return Conventions(
            self.by_column | others.by_column,
            self.reasons | others.reasons,
            self.warnings | others.warnings,
        )


def infer_conventions(
    table: Table,
    columns: Mapping[str, Accepted],
    recipe: Recipe,
    rows: np.ndarray | None = None,
    as_numbers: Mapping[str, str] = MappingProxyType({}),
) -> Conventions:
    """Infer the convention of each of `columns` from the cells of `rows`, by default of all rows.

    `columns` says which conventions each may have; any if it names none. Where a column has two readings, the
    recipe's `locale` decides, or else what the table's clear columns have in common. `as_numbers` has the
    options by which targets of words would be numbers, for warnings.
    """
    style = style_of(recipe.locale)
    cells = {}
    for name in columns:
        column = table.column(name)
        cells[name] = column if rows is None else column.take(pa.array(rows))

    recognised = {}
    for name, accepted in columns.items():
        recognised[name] = _recognise(cells[name], accepted, recipe.columns.get(name), style)
    # One clear column tells the style of all: a program writes every number of a table by one locale.
    common_style = _in_common(recognised.values(), style)
    for name, column in recognised.items():
        if column.other:
            recipe_column = recipe.columns.get(name)
            recognised[name] = _recognise(cells[name], columns[name], recipe_column, common_style)

    conventions: dict[str, AnyConvention] = {}
    reasons = {}
    warnings = {}
    for name, column in recognised.items():
        conventions[name] = cast(AnyConvention, column.convention)
        reasons[name] = column.reason
        if column.other:
            warnings[name] = f"column '{name}': {_as_option(column.other, name)}"
        elif not columns[name] and (doubt := _nearly_numbers(cells[name], column)):
            # An input may not have so many bad cells.
            option = (
                f"--set {shlex.quote(as_numbers[name])}" if name in as_numbers else "empty them in the table"
            )
            warnings[name] = f"column '{name}': {doubt}, {option}"
    return Conventions(conventions, reasons, warnings)


def _nearly_numbers(cells: pa.ChunkedArray, recognised: Recognised) -> str:
    """Say that words are numbers but for a few cells, which may be slips; nothing of other columns."""
    is_code = bool(recognised.reason)
    if recognised.convention != Plain() or is_code or not is_text(cells.type):
        return ""
    numbers = Number.recognise(evenly(cells, SAMPLE), Style(), NEARLY)
    numbers = numbers and Number.recognise(cells, Style(), NEARLY)
    if not numbers:
        return ""
    reading = numbers.convention.read(cells)
    slip = shown(cells[next(iter(reading.bad))].as_py())
    return (
        f"{percent(numbers.share)} of the cells are numbers, and {slip} is none, so all are taken for words; "
        f"if such cells may count as missing"
    )


def _as_option(hint: str, column: str) -> str:
    """Return how to have the second reading of a column, with the option of the command line for it."""
    parts = HINT.fullmatch(hint)
    assert parts is not None  # conventions end each hint so
    name, word = parts["option"], parts["word"]
    option = name if name == "locale" else f"columns.{quote(column)}.{name}"
    override = shlex.quote(f"{option}={word}")
    return f"{parts['readings']}--set {override}"


def of_input(recipe: ColumnRecipe | None) -> Accepted:
    """Return the conventions that an input may have; any if the recipe names no modality."""
    if recipe is None or recipe.modality is None:
        return ()
    return modalities.find(recipe.modality.name).conventions


def of_target(task: str) -> Accepted:
    """Return the conventions that the labels of a task may have; any if `task` is empty."""
    return tasks.find(task).conventions if task else ()


def style_of(locale: str) -> Style:
    """Return the decimal mark and the order of dates of a locale such as `de` or `en_GB`.

    Raises `RecipeError` for a locale that Unicode's CLDR does not have.
    """
    if not locale:
        return Style()
    try:
        parsed = Locale.parse(locale, sep="-" if "-" in locale else "_")
    except (UnknownLocaleError, ValueError) as error:
        raise RecipeError(f"recipe: no locale '{locale}'; expected one such as de, en_GB or pt_BR") from error
    date_pattern = parsed.date_formats["short"].pattern.lower()
    day_first = date_pattern.index("d") < date_pattern.index("m")
    has_comma = parsed.number_symbols["latn"]["decimal"] == ","
    return Style("," if has_comma else ".", day_first)


def _recognise(
    cells: pa.ChunkedArray, accepted: Accepted, recipe: ColumnRecipe | None, style: Style
) -> Recognised:
    """Return the convention of a column. What the recipe says of it comes before its cells' evidence."""
    if recipe and recipe.format:
        return Recognised(Date(format=recipe.format), reason=f"read as {recipe.format}")
    if recipe and recipe.decimal:
        style = Style(recipe.decimal, style.day_first)
    recognised = infer_convention(cells, style)
    if not accepted or isinstance(recognised.convention, accepted):
        return recognised
    # The recipe asks for something else than most cells are: what does not fit is listed as a problem.
    convention = accepted[0]
    fitting = convention.recognise(cells, style, 0.0) if is_text(cells.type) else None
    return fitting or Recognised(convention())


def _in_common(recognised: Iterable[Recognised], style: Style) -> Style:
    """Return the style, filled in with what all clear columns agree on."""
    decimals, orders = set(), set()
    for column in recognised:
        decimals.add(column.evidence.decimal)
        orders.add(column.evidence.day_first)
    decimals.discard(None)
    orders.discard(None)

    decimal, day_first = style.decimal, style.day_first
    if decimal is None and len(decimals) == 1:
        decimal = decimals.pop()
    # Who writes a decimal comma writes the day first, in all locales but one of Unicode's CLDR (Anii).
    if decimal == "," and not orders:
        orders.add(True)
    if day_first is None and len(orders) == 1:
        day_first = orders.pop()
    return Style(decimal, day_first)
