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

from plait.data.features import FeatureBlock
from plait.data.plan import Plan
from plait.members.base import Examples, Lesson, Member, View, hidden
from plait.nn.device import Settings
from plait.recipe.registry import Options
from plait.table.json import JSON

FREQUENT = 500  # n-grams of a text column that trees see: the most frequent ones
PATIENCE = 20  # rounds without a better score on the held-out rows before boosting stops


class Config(Options):
    """LightGBM's parameters. `colsample` is the share of features that each tree sees."""

    rounds: int = Field(400, ge=1, description="trees, at most")
    learning_rate: float = Field(0.1, gt=0, description="of boosting")
    leaves: int = Field(7, ge=2, description="of a tree")
    least: int = Field(5, ge=1, description="rows in a leaf")
    colsample: float = Field(0.1, gt=0, le=1, description="share of the features that each tree sees")
    subsample: float = Field(0.8, gt=0, le=1, description="share of the rows that each tree sees")
    l2: float = Field(1.0, ge=0, description="penalty on the leaves' values")


class Trees(Member):
    """One booster or more for each target, whose raw scores are its output.

    A target that trees cannot learn is left out.
    """

    options = Config

    def __init__(
        self,
        boosters: dict[str, list[lightgbm.Booster]],
        frequent: list[np.ndarray | None],
        scalar: set[str],
    ) -> None:
        """Take the boosters of each target.

        `frequent` has the columns of each block that trees see, all if None. `scalar` names the targets of
        one number, whose outputs are (rows,).
        """
        self.boosters = boosters
        self.frequent = frequent
        self.scalar = scalar

    @classmethod
    def encoders(cls, config: Config) -> None:
        """Return None: trees learn from features."""

    @classmethod
    def light(cls, config: Config) -> bool:
        """Return False: there is no view to leave columns out of."""
        return False

    @classmethod
    def fit(cls, config: Config, lesson: Lesson) -> Trees:
        """Train the boosters of every target; held-out rows decide when boosting stops."""
        frequent = [_frequent(block) for block in lesson.train.blocks]
        x = _matrix(lesson.train.blocks, frequent)
        held_x = _matrix(lesson.valid.blocks, frequent)
        defaults = _parameters(config, x.shape[1], lesson.seed)
        member = cls({}, frequent, set())
        for target, task in lesson.tasks.items():
            rows, y = lesson.labelled(target, lesson.train)
            held_rows, held_y = lesson.labelled(target, lesson.valid)
            boosters = []
            # a task may need several boosters, such as one for each of its labels
            for job, held_job in zip(task.boosting(y), task.boosting(held_y), strict=True):
                parameters, labels = job
                _, held_labels = held_job
                train = (x[rows], _array(labels))
                held_out = (held_x[held_rows], _array(held_labels))
                boosters.append(_boost({**defaults, **parameters}, config.rounds, train, held_out))

            if boosters:
                member.boosters[target] = boosters
            if boosters and not task.baseline(y).ndim:
                member.scalar.add(target)
        return member

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the raw scores of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            x = _matrix(hidden(examples.blocks, subset), self.frequent)
            outputs.append({target: self._scores(target, x) for target in self.boosters})
        return outputs

    def _scores(self, target: str, x: np.ndarray) -> Tensor:
        """Return the raw scores of a target's boosters side by side."""
        scores = []
        for booster in self.boosters[target]:
            score = np.asarray(booster.predict(x, raw_score=True))
            scores.append(score.reshape(x.shape[0], -1))
        output = torch.from_numpy(np.concatenate(scores, 1)).float()
        return output[:, 0] if target in self.scalar else output

    def save(self, folder: Path) -> None:
        """Write each booster in LightGBM's text format, and `trees.json`."""
        files: dict[str, list[str]] = {}
        # files are numbered: a target may have any name
        for number, (target, boosters) in enumerate(self.boosters.items()):
            files[target] = []
            for i, booster in enumerate(boosters):
                name = f"trees-{number}-{i}.txt"
                (folder / name).write_text(booster.model_to_string(), encoding="utf-8")
                files[target].append(name)

        columns: list[list[int] | None] = []
        for indices in self.frequent:
            columns.append(None if indices is None else indices.tolist())
        saved = _Saved(scalar=sorted(self.scalar), kept=columns, boosters=files)
        (folder / "trees.json").write_text(saved.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Trees:
        """Invert `save`."""
        saved = _Saved.model_validate_json((folder / "trees.json").read_text(encoding="utf-8"))
        boosters: dict[str, list[lightgbm.Booster]] = {}
        for target, names in saved.boosters.items():
            boosters[target] = []
            for name in names:
                path = folder / Path(name).name  # so that no name leads out of the folder
                text = path.read_text(encoding="utf-8")
                boosters[target].append(lightgbm.Booster(model_str=text))

        frequent: list[np.ndarray | None] = []
        for indices in saved.kept:
            frequent.append(None if indices is None else np.array(indices, dtype=np.int64))
        return cls(boosters, frequent, set(saved.scalar))


class _Saved(BaseModel):
    """What is saved beside the boosters: `kept` has the columns of each block, None for all."""

    scalar: list[str]
    kept: list[list[int] | None]
    boosters: dict[str, list[str]]


component = Trees


def _parameters(config: Config, width: int, seed: int) -> JSON:
    """Return LightGBM's parameters for a table of so many numbers a row."""
    colsample = max(config.colsample, min(1.0, 10 / max(width, 1)))
    return {
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.least,
        "lambda_l2": config.l2,
        "feature_fraction": colsample,  # at least ten numbers, or all of a table that has fewer
        "bagging_fraction": config.subsample,
        "bagging_freq": 1,
        "max_bin": 63,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }


def _array(labels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(labels.numpy())


def _boost(
    parameters: JSON,
    rounds: int,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
) -> lightgbm.Booster:
    """Train a booster on rows and labels. The best iteration on the held-out rows counts, if any."""
    data = lightgbm.Dataset(*train, free_raw_data=True)
    if not len(held_out[1]):
        return lightgbm.train(parameters, data, rounds)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    held_data = lightgbm.Dataset(*held_out, reference=data)
    booster = lightgbm.train(parameters, data, rounds, valid_sets=[held_data], callbacks=[stop])
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _frequent(block: FeatureBlock) -> np.ndarray | None:
    """Return the columns of a sparse block that trees see: the most frequent ones; None for a dense block."""
    if not sparse.issparse(block.x):
        return None
    counts = np.bincount(block.x.indices, minlength=block.x.shape[1])
    number = min(FREQUENT, int((counts > 1).sum()))  # nothing is learned from what one row has
    by_frequency = np.argsort(-counts, kind="stable")
    return np.sort(by_frequency[:number])


def _matrix(blocks: list[FeatureBlock], frequent: list[np.ndarray | None]) -> np.ndarray:
    """Put all blocks side by side, NaN where an input is missing: (rows, numbers), float32."""
    xs: list[np.ndarray] = []
    for block, columns in zip(blocks, frequent, strict=True):
        x = block.x
        if columns is not None:
            x = sparse.csr_array(x)[:, columns].toarray()
        x = np.asarray(x, dtype=np.float32)
        xs.append(np.where(block.present[:, None], x, np.float32("nan")))
    return np.concatenate(xs, 1)
