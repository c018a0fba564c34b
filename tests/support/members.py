"""A small table with four targets, and what a member is fitted with."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.members.base import Examples, Fit, Lesson, Member
from plait.nn import device
from plait.recipe.recipe import load
from plait.table.table import Table
from support.components import component, configured

ROWS, SEEN = 90, 60
TARGETS = {"kind": "classification", "warm": "classification", "price": "regression", "tags": "multilabel"}
SMALL = {"rounds": 20, "estimators": 2}  # options that make a member faster


def table(targets: dict[str, str]) -> Table:
    """Return numbers with missing cells, vectors, words and texts, and these of the four targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    words = np.where(x[:, 1] > 0, "a warm sunny day", "a cold rainy night")
    tags = [[tag for tag, is_on in zip("pq", row[:2] > 0, strict=True) if is_on] for row in x]
    columns = {
        "a": pa.array(x[:, 0], mask=rng.random(ROWS) < 0.1),
        "v": pa.array(x[:, 1:].tolist(), pa.list_(pa.float32(), 2)),
        "shop": pa.array(np.where(x[:, 2] > 0, "north", "south")),
        "text": pa.array([f"{word} number {i}" for i, word in enumerate(words)]),
        "kind": pa.array(np.array(["low", "middle", "high"])[np.digitize(x[:, 0], [-0.5, 0.5])]),
        "warm": pa.array(x[:, 1] > 0).cast(pa.int64()),
        "price": pa.array(x @ np.array([2.0, -1.0, 0.5])),
        "tags": pa.array(tags),
    }
    for target in set(TARGETS) - set(targets):
        del columns[target]
    return Table(pa.table(columns), Path.cwd(), "t")


def make(targets: dict[str, str], epochs: int = 1) -> tuple[Examples, Plan]:
    """Return the rows of the table, fitted on the first 60, and the plan for them."""
    training = {"epochs": epochs, "precision": "fp32", "channels_last": "off", "allocator": "off"}
    recipe = {
        "training": training,
        "columns": {"text": {"modality": "text"}},
        "split": {"valid": 0},
        "tasks": targets,
    }
    rows = table(targets)
    plan = Plan.make(rows, load(recipe), targets)
    preprocessing = Preprocessing.fit(rows, plan, np.arange(SEEN))
    prepared = preprocessing.prepare(rows)
    views = {"network": Dataset(prepared, preprocessing)}
    features = Features.fit(views, {"network": list(preprocessing.inputs)}, np.arange(SEEN))
    return Examples(views, features, prepared), plan


def lesson(examples: Examples, plan: Plan, folder: Path) -> Lesson:
    """Return a lesson: the first 60 rows to learn from, and the others to know when to stop."""
    dataset = examples.views["network"]
    settings = device.settings(plan.recipe.training, False)
    train = examples.take(np.arange(SEEN))
    held_out = examples.take(np.arange(SEEN, ROWS))
    return Lesson(train, held_out, "network", plan, settings, dataset.preprocessing.tasks, 0, folder)


def fold_lessons(examples: Examples, plan: Plan, folder: Path) -> list[Lesson]:
    """Return three lessons, each of which holds out a third of the rows."""
    of = lesson(examples, plan, folder)
    lessons = []
    for fold in np.array_split(np.arange(ROWS), 3):
        train = examples.take(np.setdiff1d(np.arange(ROWS), fold))
        lessons.append(replace(of, train=train, held_out=examples.take(fold)))
    return lessons


def shuffled(examples: Examples, target: str) -> Examples:
    """Return the same rows, with their labels of a target in another order."""
    batch = examples.prepared.batch
    labels = batch.targets[target].clone()
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    labels[examples.rows] = labels[examples.rows[order]]
    prepared = replace(examples.prepared, batch=replace(batch, targets={**batch.targets, target: labels}))
    return replace(examples, prepared=prepared)


def member_config(name: str) -> Any:
    """Return the options of a member, with settings that make it fast."""
    fields = component("members", name).options.model_fields
    small: dict[str, object] = {option: setting for option, setting in SMALL.items() if option in fields}
    if name == "tabicl":
        small |= {"classifier": tabicl_checkpoint(10), "regressor": tabicl_checkpoint(0)}
    return configured("members", name, small)


def fit_member(name: str, of: Lesson) -> Member:
    fit: Fit
    (fit,) = component("members", name).fit(member_config(name), [of], lambda: None)
    return fit.served


@cache
def tabicl_checkpoint(classes: int) -> str:
    """Write a checkpoint of TabICL with random weights, for so many classes or with 0 for numbers."""
    from tabicl._model.tabicl import TabICL

    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "num_quantiles": 9, "col_num_inds": 4}
    blocks = {"col_num_blocks": 1, "row_num_blocks": 1, "icl_num_blocks": 1}
    heads = {"col_nhead": 2, "row_nhead": 2, "icl_nhead": 2}
    config = {"max_classes": classes, "row_num_cls": 2, **sizes, **blocks, **heads}
    model = TabICL(**config)
    # Its last layers begin at zero.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = Path(tempfile.mkdtemp()) / f"{classes}.ckpt"
    torch.save({"config": config, "state_dict": model.state_dict()}, path)
    return str(path)
