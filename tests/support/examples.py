"""Examples of a small table of numbers, and members that answer without having learned anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.ensemble.ensemble import Bag
from plait.ensemble.out_of_fold import CrossFit
from plait.members.base import Examples, Fit, Member
from plait.recipe.recipe import load
from plait.recipe.registry import Choice, Options
from plait.table.table import Table


def numbers(rows: int, targets: Sequence[str] = ("y",)) -> Examples:
    """One input, and targets with a label in every row."""
    rng = np.random.default_rng(0)
    columns = {name: pa.array(rng.normal(size=rows)) for name in ("x", *targets)}
    table = Table(pa.table(columns), Path(), "numbers")
    tasks = dict.fromkeys(targets, "regression")
    plan = Plan.make(table, load({"tasks": tasks, "split": {"valid": 0}}), list(targets))
    preprocessing = Preprocessing.fit(table, plan, np.arange(rows))
    prepared = preprocessing.prepare(table)
    return Examples({"network": Dataset(prepared, preprocessing)}, Features([]), prepared)


class Constant(Member):
    """Answers the same number in every row, for each of its targets."""

    options = Options

    def __init__(self, answers: dict[str, float]) -> None:
        self.answers = answers

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        outputs = {target: torch.full((len(examples),), answer) for target, answer in self.answers.items()}
        return [outputs for _ in subsets]

    @classmethod
    def encoders(cls, config: Any) -> None:
        return None

    @classmethod
    def light(cls, config: Any) -> bool:
        return False

    @classmethod
    def fit(cls, config: Any, lessons: Any, advance: Any) -> list[Fit]:
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, config: Any, folder: Path, view: Any) -> Constant:
        raise NotImplementedError


def constants(
    name: str, answers: Sequence[float], held_out: list[list[list[int]]], targets: Sequence[str] = ("y",)
) -> CrossFit:
    """A cross-fitted member whose fits answer these numbers. `held_out` has rows by repeat and fold."""
    folds: list[Member] = [Constant(dict.fromkeys(targets, answer)) for answer in answers]
    repeats = []
    for repeat in held_out:
        repeats.append([np.array(rows, dtype=np.int64) for rows in repeat])
    return CrossFit(Bag(name, Choice(name="constant"), "", folds), folds, repeats)
