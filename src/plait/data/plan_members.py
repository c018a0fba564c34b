"""Fit the members of an ensemble to a table: what would be idle, what repeats the network, what it adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from plait.data.plan_columns import ColumnPlan, recipe_with_encoders, replan_columns
from plait.modalities.base import modalities as modality_registry
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice
from plait.recipe.sections import ColumnRecipe
from plait.table.schema import Schema, origin
from plait.table.table import Source, Table

STEP = 16  # pixels: the sides of small images are rounded up to a multiple


def _no_side(column: str) -> int:
    return 0


@dataclass(frozen=True)
class Inputs:
    """What members can read: the table's columns, as the run's own network reads them.

    `side` returns the median of the longer sides of a column's images, in pixels.
    """

    recipe: Recipe
    schema: Schema
    tasks: Mapping[str, Choice]
    columns: Mapping[str, ColumnPlan] = field(default_factory=dict)
    side: Callable[[str], int] = _no_side

    def of_modality(self, modality: str) -> list[str]:
        """Return the inputs of a modality."""
        return [name for name, column in self.columns.items() if column.modality.name == modality]

    @property
    def has_texts(self) -> bool:
        """Whether there are columns whose n-grams can be counted."""
        for column in self.schema.of("input"):
            modality = self.schema[column].modality
            if modality and modality_registry.find(modality).words:
                return True
        return False


def sides_of(table: Table, rows: np.ndarray, columns: Mapping[str, ColumnPlan]) -> Callable[[str], int]:
    """Return a function that measures the images of a column, in a sample of the rows that train."""

    def side(name: str) -> int:
        """Return the median of their longer sides, in pixels; 0 where cells have none."""
        column = origin(name, table.data.column_names)
        cells = table.column(column).take(pa.array(rows)).drop_null()
        kind = modality_registry.find(columns[name].modality.name)
        return kind.side(cells, Source(name, table.root)) if len(cells) else 0

    return side


def without_idle_options(choice: Choice, inputs: Inputs) -> Choice:
    """Leave out options that do nothing here, so that two members can be seen to be the same."""
    options = choice.options
    if "ngrams" in options and not inputs.has_texts:
        del options["ngrams"]
    return Choice(name=choice.name, **options)


def from_scratch(choice: Choice, inputs: Inputs) -> tuple[Choice | None, str]:
    """Fill in which encoders a member trains from scratch, and return a line that says why, or why not.

    Its option `scratch` has the largest side of images, in pixels, by modality. It is about columns for which
    plait has chosen a frozen encoder. The member is None if there are none, or if their images are larger:
    where an encoder is trained anyway, the run's own network has tried that.
    """
    options = choice.options
    limits: Mapping[str, int] = options.pop("scratch")
    encoders, cells, facts = {}, {}, []
    for modality, largest in limits.items():
        names = [name for name in inputs.of_modality(modality) if _has_chosen_frozen(name, inputs)]
        side = max((inputs.side(name) for name in names), default=0)
        if not names or side > largest:
            continue
        kind = modality_registry.find(modality)
        encoders[modality] = {"name": kind.encoder}
        size = side and -(-side // STEP) * STEP
        usual = kind.options().model_dump().get("size", 0)
        if size and size < usual:
            cells[modality] = {"size": size}
        facts.append(f"{', '.join(names)} ({side} pixels a side)" if side else ", ".join(names))
    if not encoders:
        return None, "there are no images, of that size at most, for which plait has chosen a frozen encoder"
    member = Choice(name=choice.name, **options, encoders=encoders, cells=cells)
    return member, f"{', '.join(facts)}: an encoder is also trained from scratch, and compared out of fold"


def repeats_network(choice: Choice, inputs: Inputs) -> bool:
    """Return whether a member would be the run's own network once more: the same encoders and fusion."""
    options = choice.options
    if not options.get("encoders") or options.get("learning_rate") or not inputs.columns:
        return False
    fusion = Choice.model_validate(options.get("fusion") or inputs.recipe.fusion)
    if fusion.name != inputs.recipe.fusion.name:
        return False
    if options.get("light") and not all(column.frozen or column.light for column in inputs.columns.values()):
        return False

    encoders = {name: Choice.model_validate(encoder) for name, encoder in options["encoders"].items()}
    recipe = recipe_with_encoders(inputs.recipe, encoders, inputs.schema)
    columns = replan_columns(inputs.columns, recipe, inputs.schema, inputs.tasks, encoders)
    for name, column in columns.items():
        own = inputs.columns[name]
        if (column.encoder, column.modality) != (own.encoder, own.modality):
            return False
    return True


def _has_chosen_frozen(name: str, inputs: Inputs) -> bool:
    """Return whether a column has a frozen encoder that the recipe does not name."""
    column = inputs.columns[name]
    stated = inputs.recipe.columns.get(name, ColumnRecipe()).encoder
    return column.frozen and not (stated or inputs.recipe.encoders.get(column.modality.name))
