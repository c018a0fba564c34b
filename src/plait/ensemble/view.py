"""Ways to prepare one table: each a resolved recipe's inputs, fitted, with the vectors of its frozen
encoders in place of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from plait.data import frozen as embedding
from plait.data.dataset import Dataset
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder
from plait.media.cell import Store
from plait.model.column import build_encoder
from plait.nn import device
from plait.nn.device import Settings
from plait.recipe.recipe import Recipe
from plait.table.table import Progress, Table


@dataclass
class View:
    recipe: Recipe
    preprocessing: Preprocessing
    settings: Settings

    @classmethod
    def fit(cls, recipe: Recipe, table: Table, train: np.ndarray) -> View:
        """The view of a resolved recipe, its state fitted on the rows `train`."""
        preprocessing = Preprocessing.fit(table, recipe, train)
        return cls(recipe, preprocessing, device.settings(recipe.training, preprocessing.convolves(recipe)))

    @cached_property
    def frozen(self) -> dict[str, Encoder]:
        """The frozen encoders, by column."""
        built = {
            c: build_encoder(m, self.recipe.columns[c].encoder, c)
            for c, m in self.preprocessing.inputs.items()
        }
        return {c: encoder for c, encoder in built.items() if hasattr(encoder, "embed")}

    def dataset(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Dataset:
        """All rows of a table."""
        prepared = self.preprocessing.prepare(table, targets, progress, store)
        embedding.embed(prepared, self.preprocessing, self.frozen, self.recipe, self.settings, store)
        return Dataset(prepared, self.preprocessing)

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
            "settings": {"precision": self.settings.precision, "frozen": self.settings.frozen},
            "state": self.preprocessing.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> View:
        recipe = Recipe(**state["recipe"])
        preprocessing = Preprocessing.from_state(recipe, state["state"])
        return cls(recipe, preprocessing, settings_as(state["settings"], recipe, preprocessing))


def settings_as(trained: Mapping[str, Any], recipe: Recipe, preprocessing: Preprocessing) -> Settings:
    """This machine's settings, in the precisions that a model was trained in: bf16 only where it is
    fast here too.
    """
    here = device.settings(recipe.training, preprocessing.convolves(recipe))
    bf16 = device.bf16_is_fast(here.device)
    kept: dict[str, Any] = {
        k: trained[k] if trained[k] != "bf16" or bf16 else "fp32"
        for k in ("precision", "frozen")
        if k in trained
    }
    return replace(here, **kept)
