"""Build a tiny model that is not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.table.table import Table


def build(kinds: tuple[str, ...] = ("number", "vector")) -> tuple[MultimodalModel, Batch]:
    """Return a model of one target, and a batch of eight rows in which cells are missing.

    By default, the first column has numbers and the second has vectors.
    """
    inputs = dict(zip(("one", "two", "three"), kinds, strict=False))
    rng = np.random.default_rng(0)
    cells = {}
    for column, kind in inputs.items():
        if kind == "number":
            cells[column] = pa.array(rng.normal(size=8))
        else:
            cells[column] = pa.array(rng.normal(size=(8, 3)).tolist())
    cells["label"] = pa.array(list("abcabcab"))

    table = Table(pa.table(cells), Path(), "t")
    recipe = recipe_from({"split": {"valid": 0}}, columns=inputs)
    plan = Plan.make(table, recipe, "label")
    preprocessing = Preprocessing.fit(table, plan, plan.split.train)
    torch.manual_seed(0)
    model = MultimodalModel.build(plan, preprocessing).eval()
    batch = preprocessing.transform(preprocessing.prepare(table).batch)
    present = {
        "one": torch.tensor([1, 1, 1, 0, 1, 0, 1, 1]).bool(),
        "two": torch.tensor([1, 1, 0, 1, 1, 1, 0, 1]).bool(),
    }
    return model, replace(batch, present=batch.present | present)
