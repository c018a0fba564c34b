"""How each input enters the model: its modality and its encoder, with every option filled in."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from plait.data.plan_encoders import Texts, choose_encoder
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError, nearest
from plait.modalities.base import modalities as modality_registry
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice, Options
from plait.recipe.sections import ColumnRecipe
from plait.table.schema import Schema
from plait.tasks.base import tasks as task_registry


class ColumnPlan(Options):
    """One input column.

    `frozen` says that its encoder is not trained, so that each cell is encoded once. It is decided here, by
    the encoder's options; all other code reads it. `light` says that its encoder is
    trained in no time, as those of numbers, categories, dates and vectors are. `reason` says why the column
    has this encoder, and `remedy` what to install for a better one; both are empty where nothing was chosen.
    """

    modality: Choice
    encoder: Choice
    frozen: bool
    light: bool
    reason: str = ""
    remedy: str = ""

    @property
    def label(self) -> str:
        """The encoder's name, with the name of its pretrained model if it has one."""
        return " ".join([self.encoder.name, *filter(None, [self.encoder.options.get("model")])])


def plan_columns(
    recipe: Recipe, schema: Schema, tasks: Mapping[str, Choice], texts: Texts
) -> dict[str, ColumnPlan]:
    """Choose modality and encoder of each input. `tasks` may ask for others than the usual ones.

    `texts` gives a sample of a column's texts.

    Raises `RecipeError` for a column that the table lacks, or an encoder that cannot be had.
    """
    names = {column.name for column in schema}
    for name in recipe.columns:
        if name not in names:
            raise RecipeError(f"recipe: no column '{name}' in the table: {nearest(name, names)}")

    columns = {}
    for name in schema.of("input"):
        columns[name] = _plan_column(recipe, name, schema, _readers(name, tasks), texts)
    return columns


def replan_columns(
    columns: Mapping[str, ColumnPlan],
    recipe: Recipe,
    schema: Schema,
    tasks: Mapping[str, Choice],
    modalities: Collection[str],
) -> dict[str, ColumnPlan]:
    """Choose the encoders of the columns of some modalities anew; the recipe names them. Keep the others."""
    replanned = {}
    for name, column in columns.items():
        if column.modality.name in modalities:
            column = _plan_column(recipe, name, schema, _readers(name, tasks), lambda name: ())
        replanned[name] = column
    return replanned


def _readers(column: str, tasks: Mapping[str, Choice]) -> list[Choice]:
    """Return the tasks that read a column. A task that names no inputs reads all of them."""
    readers = []
    for task in tasks.values():
        inputs = task.options.get("inputs")
        if not inputs or column in inputs:
            readers.append(task)
    return readers


def recipe_with_encoders(recipe: Recipe, encoders: Mapping[str, Choice], schema: Schema) -> Recipe:
    """Ask for these encoders, by modality, in place of all others.

    Options of these modalities are left out: they were meant for another encoder.
    """
    columns = dict(recipe.columns)
    for name in schema.of("input"):
        modality = schema[name].modality
        if name in columns and modality in encoders:
            columns[name] = ColumnRecipe(role="input", modality=Choice(name=modality))

    modalities = {name: options for name, options in recipe.modalities.items() if name not in encoders}
    return recipe.model_copy(
        update={
            "columns": columns,
            "modalities": modalities,
            "encoders": {**recipe.encoders, **encoders},
        }
    )


def _plan_column(
    recipe: Recipe, name: str, schema: Schema, readers: list[Choice], texts: Texts
) -> ColumnPlan:
    """Choose the encoder of a column, then the options of its modality, for which the encoder may ask."""
    modality = schema[name].modality
    assert modality is not None  # of every input
    column_recipe = recipe.columns.get(name, ColumnRecipe())

    chosen = choose_encoder(recipe, name, modality, readers, texts)
    encoder, options = encoder_registry.choose(chosen.choice)
    config = encoder.settled(options, modality, schema.rows)

    # later options replace earlier ones: the recipe has the last word, and the encoder comes before the tasks
    defaults: dict[str, object] = {}
    for reader in readers:
        defaults |= task_registry.find(reader.name).cells.get(modality, {})
    defaults |= encoder.asks(config, modality)
    defaults |= recipe.modalities.get(modality, {})

    return ColumnPlan(
        modality=modality_registry.resolve(_modality_choice(column_recipe, modality), defaults),
        encoder=Choice(name=chosen.choice.name, **config.model_dump(mode="json")),
        frozen=encoder.frozen(config),
        light=encoder.light,
        reason=chosen.reason,
        remedy=chosen.remedy,
    )


def _modality_choice(column: ColumnRecipe, modality: str) -> Choice:
    """Return the column's own options of its modality; none if they were meant for another modality."""
    if column.modality is not None and column.modality.name == modality:
        return column.modality
    return Choice(name=modality)
