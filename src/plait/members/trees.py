"""Gradient-boosted trees on features (LightGBM, Ke et al. 2017), saved in its own text format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np
import torch
from pydantic import BaseModel, Field
from scipy import sparse
from torch import Tensor

from plait.data.features import Block
from plait.data.plan import Plan
from plait.members.base import Examples, Lesson, Member, View, hidden
from plait.nn.device import Settings
from plait.recipe.registry import Options
from plait.table.json import JSON

FREQUENT = 500  # n-grams of a text column that trees see: the most frequent ones


PATIENCE = 20  # rounds without a better score on the held-out rows before boosting stops


class Config(Options):
    """LightGBM's own parameters, with its names. `colsample` is the share of features that each tree sees."""

    rounds: int = Field(400, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    leaves: int = Field(7, ge=2)
    least: int = Field(5, ge=1, description="rows in a leaf")
    colsample: float = Field(0.1, gt=0, le=1)
    subsample: float = Field(0.8, gt=0, le=1)
    l2: float = Field(1.0, ge=0)


class Trees(Member):
    """For each target one booster or more, whose raw scores are its output; a target that trees cannot
    learn is left out.
    """

    options = Config

    def __init__(
        self, boosters: dict[str, list[lightgbm.Booster]], kept: list[np.ndarray | None], scalar: set[str]
    ) -> None:
        self.boosters, self.kept, self.scalar = boosters, kept, scalar

    @classmethod
    def encoders(cls, config: Config) -> None:
        return None

    @classmethod
    def light(cls, config: Config) -> bool:
        return False

    @classmethod
    def fit(cls, config: Config, lesson: Lesson) -> Trees:
        kept = [_frequent(block) for block in lesson.train.blocks]
        x, held = _matrix(lesson.train.blocks, kept), _matrix(lesson.valid.blocks, kept)
        member = cls({}, kept, set())
        for target, task in lesson.tasks.items():
            rows, y = lesson.labelled(target, lesson.train)
            held_rows, held_y = lesson.labelled(target, lesson.valid)
            jobs, held_jobs = task.boosting(y), task.boosting(held_y)
            if jobs and not task.baseline(y).ndim:
                member.scalar.add(target)
            for (parameters, wanted), (_, held_wanted) in zip(jobs, held_jobs, strict=True):
                about = {**_parameters(config, x.shape[1], lesson.seed), **parameters}
                booster = _boost(
                    about, config.rounds, x[rows], _plain(wanted), held[held_rows], _plain(held_wanted)
                )
                member.boosters.setdefault(target, []).append(booster)
        return member

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        found = []
        for subset in subsets:
            x = _matrix(hidden(examples.blocks, subset), self.kept)
            found.append({target: self._scores(target, x) for target in self.boosters})
        return found

    def _scores(self, target: str, x: np.ndarray) -> Tensor:
        scores = [
            np.asarray(b.predict(x, raw_score=True)).reshape(x.shape[0], -1) for b in self.boosters[target]
        ]
        output = torch.from_numpy(np.concatenate(scores, 1)).float()
        return output[:, 0] if target in self.scalar else output

    def save(self, folder: Path) -> None:
        files = {}
        for number, (target, boosters) in enumerate(self.boosters.items()):
            files[target] = [f"trees-{number}-{i}.txt" for i in range(len(boosters))]
            for name, booster in zip(files[target], boosters, strict=True):
                (folder / name).write_text(booster.model_to_string(), encoding="utf-8")
        columns = [None if k is None else k.tolist() for k in self.kept]
        saved = _Saved(scalar=sorted(self.scalar), kept=columns, boosters=files)
        (folder / "trees.json").write_text(saved.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Trees:
        saved = _Saved.model_validate_json((folder / "trees.json").read_text(encoding="utf-8"))
        boosters: dict[str, list[lightgbm.Booster]] = {}
        for target, names in saved.boosters.items():
            texts = [(folder / Path(name).name).read_text(encoding="utf-8") for name in names]
            boosters[target] = [lightgbm.Booster(model_str=text) for text in texts]
        columns = [None if k is None else np.array(k, dtype=np.int64) for k in saved.kept]
        return cls(boosters, columns, set(saved.scalar))


class _Saved(BaseModel):
    """What is saved beside the boosters: `kept` has the columns of each block, None for all."""

    scalar: list[str]
    kept: list[list[int] | None]
    boosters: dict[str, list[str]]


component = Trees


def _parameters(config: Config, width: int, seed: int) -> JSON:
    return {
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.least,
        "lambda_l2": config.l2,
        "feature_fraction": max(
            config.colsample, min(1.0, 10 / max(width, 1))
        ),  # a table of a few columns is seen whole
        "bagging_fraction": config.subsample,
        "bagging_freq": 1,
        "max_bin": 63,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }


def _plain(wanted: Tensor) -> np.ndarray:
    return np.ascontiguousarray(wanted.numpy())


def _boost(
    parameters: JSON, rounds: int, x: np.ndarray, y: np.ndarray, held: np.ndarray, held_y: np.ndarray
) -> lightgbm.Booster:
    data = lightgbm.Dataset(x, y, free_raw_data=True)
    if not len(held_y):
        return lightgbm.train(parameters, data, rounds)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(
        parameters,
        data,
        rounds,
        valid_sets=[lightgbm.Dataset(held, held_y, reference=data)],
        callbacks=[stop],
    )
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _frequent(block: Block) -> np.ndarray | None:
    """The columns of a sparse block that trees see; None for all of a dense one."""
    if not sparse.issparse(block.x):
        return None
    counted = np.bincount(block.x.indices, minlength=block.x.shape[1])
    return np.sort(np.argsort(-counted, kind="stable")[: min(FREQUENT, int((counted > 1).sum()))])


def _matrix(blocks: list[Block], kept: list[np.ndarray | None]) -> np.ndarray:
    """All blocks side by side, NaN where an input is missing."""
    parts: list[np.ndarray] = []
    for block, columns in zip(blocks, kept, strict=True):
        x = block.x if columns is None else sparse.csr_array(block.x)[:, columns].toarray()
        x = np.asarray(x, dtype=np.float32)
        parts.append(np.where(block.present[:, None], x, np.float32("nan")))
    return np.concatenate(parts, 1)
