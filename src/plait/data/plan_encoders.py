"""Which encoder a column gets where the recipe names none, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from plait.encoders.base import Offer
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.modalities.base import modalities as modality_registry
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice
from plait.recipe.sections import ColumnRecipe
from plait.table.schema import TEXT, origin
from plait.table.table import Table
from plait.table.values import is_list, is_text, items, sample
from plait.tasks.base import tasks as task_registry

Texts = Callable[[str], Sequence[str]]  # a sample of a column's texts, by its name


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder and why a column has it. `remedy` installs what it would have got instead."""

    choice: Choice
    reason: str
    remedy: str = ""


def choose_encoder(
    recipe: Recipe, name: str, modality: str, readers: Sequence[Choice], texts: Texts
) -> EncoderChoice:
    """Choose the encoder of a column: the recipe's, that of a task that reads it, or the best one here.

    The best one is a frozen pretrained network. Without one the modality's own is trained from scratch.
    """
    column = recipe.columns.get(name, ColumnRecipe())
    stated = column.encoder or recipe.encoders.get(modality)
    if stated:
        return EncoderChoice(stated, "set in the recipe")

    for reader in readers:
        task, config = task_registry.choose(reader)
        options = task.encoder_for(config, modality)
        if options:
            return EncoderChoice(Choice(**options), f"the encoder of {reader.name}")

    kind = modality_registry.find(modality)
    scratch = Choice(name=kind.encoder)
    if not kind.pretrained or recipe.pretrained == "off":
        return EncoderChoice(scratch, "")
    cells = texts(name) if kind.is_text else ()
    offer = _offer(recipe, column, modality, kind.pretrained, cells)
    if offer.options is None:
        return EncoderChoice(scratch, offer.reason, offer.remedy)
    return EncoderChoice(Choice(name=kind.pretrained, **offer.options), offer.reason)


def texts_of(table: Table, rows: np.ndarray) -> Texts:
    """Return a function that takes a sample of a column's texts from the rows that train."""

    def texts(name: str) -> Sequence[str]:
        """Return none for a column whose cells are no texts, or have not been read out of images yet."""
        if name not in table.data.column_names and name.endswith(TEXT):
            return []
        column = table.column(origin(name, table.data.column_names))
        cells = column.take(pa.array(rows)).drop_null()
        if is_list(cells):
            cells = items(cells)
        return sample(cells) if is_text(cells) else []

    return texts


def _offer(recipe: Recipe, column: ColumnRecipe, modality: str, encoder: str, texts: Sequence[str]) -> Offer:
    """Return what the pretrained encoder offers, unless the recipe asks for cells that it cannot read."""
    kind = encoder_registry.find(encoder)
    offer = kind.offer(modality, texts)
    if offer.options is None:
        return offer

    try:
        config = kind.settled(encoder_registry.configure(encoder, offer.options), modality)
        needed = kind.asks(config, modality)
    except RecipeError as error:
        return Offer(None, str(error))
    stated: Mapping[str, object] = recipe.modalities.get(modality, {})
    if column.modality is not None:
        stated = {**stated, **column.modality.options}
    for option, value in stated.items():
        if option in needed and option not in offer.free and value != needed[option]:
            return Offer(None, f"the recipe sets {option}={value}, a pretrained network {needed[option]}")
    return offer
