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
from plait.encoders.base import Encoder
from plait.fusion.concat import Concat
from plait.model.column import ColumnEncoder
from plait.model.fused import Fuser, blocks_of
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Values
from plait.table.table import Table
from plait.tasks.base import Widths

PRESENT = {
    "one": torch.tensor([1, 1, 1, 0, 1, 0, 1, 1]).bool(),
    "two": torch.tensor([1, 1, 0, 1, 1, 1, 0, 1]).bool(),
}


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
    return model, replace(batch, present=batch.present | PRESENT)


def build_around(encoder: Encoder, values: Values, several: bool = False) -> tuple[MultimodalModel, Batch]:
    """Return a model whose second column has this encoder, and eight rows, two of which lack these values.

    With `several`, the cells of that column are lists.
    """
    model, batch = build()
    of_two = ColumnEncoder("two", encoder, "learned", several)
    widths = {"one": model.encoder("one").width, "two": of_two.width}
    fusion = Concat(widths, (16,), 0.0)
    fuser = Fuser(widths, fusion, blocks_of(list(widths), ["one"]), unimodal=True)

    task = model.task("label")
    task.build(Widths(fuser.width, widths, list(fuser.blocks), late_fusion=True))
    encoders = {"one": model.encoder("one"), "two": of_two}
    around = MultimodalModel(list(widths), encoders, None, {tuple(widths): fuser}, {"label": task})
    return around.eval(), replace(batch, values={**batch.values, "two": values})
