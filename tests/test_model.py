"""What training adds to the loss of whole rows, term by term."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait import recipe
from plait.batch import Batch
from plait.model import MultimodalModel
from plait.preprocessing import Preprocessing
from plait.schema import Column, Schema
from plait.table.read import Table


def build() -> tuple[MultimodalModel, Batch]:
    """Two number columns with holes, one target, eight rows."""
    names = ("one", "two")
    columns = (*(Column(name=c, role="input", modality="number") for c in names), Column(name="label", role="target"))
    chosen = recipe.load(None).resolve(Schema(columns=columns, rows=8), {"label": "classification"})
    rng = np.random.default_rng(0)
    cells = {c: pa.array(rng.normal(size=8)) for c in names} | {"label": pa.array(list("abcabcab"))}
    table = Table(pa.table(cells), Path(), "t")
    preprocessing = Preprocessing.fit(table, chosen, np.arange(8))
    torch.manual_seed(0)
    model = MultimodalModel.build(chosen, preprocessing).eval()
    batch = preprocessing.transform(preprocessing.prepare(table).batch)
    present = {"one": torch.tensor([1, 1, 1, 0, 1, 0, 1, 1]).bool(), "two": torch.tensor([1, 1, 0, 1, 1, 1, 0, 1]).bool()}
    return model, replace(batch, present=present)


def test_the_loss_of_whole_rows_is_all_when_nothing_is_added() -> None:
    model, batch = build()
    assert torch.equal(model.training_loss(batch), model.loss(model(batch), batch))


def test_each_column_alone_adds_the_mean_of_the_losses_of_the_rows_that_have_it() -> None:
    model, batch = build()
    encoded, own = model.encode(batch), []
    for c in model.columns:
        has = batch.present[c]
        found = model.task("label")(model.solo[f"of_{c}"](encoded[c].pooled_BD()), encoded)
        own.append(torch.nn.functional.cross_entropy(found[has], batch.targets["label"][has].long()))
    whole = model.loss(model(batch), batch)
    assert torch.allclose(model.training_loss(batch, 0.5), whole + 0.5 * (own[0] + own[1]) / 2)
