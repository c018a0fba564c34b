"""Gradient-boosted trees on features (LightGBM, Ke et al. 2017), saved and answered as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse
from torch import Tensor

from plait.data.features import FeatureBlock
from plait.data.plan import Plan
from plait.members.base import Examples, Lesson, Member, View, hidden
from plait.members.base_trees import KINDS, Forest
from plait.nn.device import Settings
from plait.recipe.registry import Options
from plait.runs import files
from plait.table.json import JSON

FILE = "trees.safetensors"
FREQUENT = 500  # n-grams of a text column that trees see: the most frequent ones
PATIENCE = 20  # rounds without a better score on the held-out rows before boosting stops


class Config(Options):
    """LightGBM's parameters. `colsample` is the share of features that each tree sees."""

    rounds: int = Field(400, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    leaves: int = Field(7, ge=2)
    least: int = Field(5, ge=1, description="rows in a leaf")
    colsample: float = Field(0.1, gt=0, le=1)
    subsample: float = Field(0.8, gt=0, le=1)
    l2: float = Field(1.0, ge=0)


class Trees(Member):
    """One booster or more for each target, whose raw scores are its output.

    A target that trees cannot learn is left out.
    """

    options = Config

    def __init__(
        self,
        forests: dict[str, list[Forest]],
        frequent: list[np.ndarray | None],
        scalar: set[str],
        width: int,
    ) -> None:
        """Take the trees of each target's boosters.

        `frequent` has the columns of each block that trees see, all if None. `scalar` names the targets of
        one number, whose outputs are (rows,). `width` is how many numbers a row has.
        """
        self.forests = forests
        self.frequent = frequent
        self.scalar = scalar
        self.width = width

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
        member = cls({}, frequent, set(), x.shape[1])
        for target, task in lesson.tasks.items():
            rows, y = lesson.labelled(target, lesson.train)
            held_rows, held_y = lesson.labelled(target, lesson.valid)
            forests = []
            # a task may need several boosters, such as one for each of its labels
            for job, held_job in zip(task.boosting(y), task.boosting(held_y), strict=True):
                parameters, labels = job
                _, held_labels = held_job
                train = (x[rows], _array(labels))
                held_out = (held_x[held_rows], _array(held_labels))
                forests.append(_boost({**defaults, **parameters}, config.rounds, train, held_out))

            if forests:
                member.forests[target] = forests
            if forests and not task.baseline(y).ndim:
                member.scalar.add(target)
        return member

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the raw scores of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            x = _matrix(hidden(examples.blocks, subset), self.frequent)
            outputs.append({target: self._scores(target, x) for target in self.forests})
        return outputs

    def _scores(self, target: str, x: np.ndarray) -> Tensor:
        """Return the raw scores of a target's boosters side by side."""
        scores = [forest(x) for forest in self.forests[target]]
        output = torch.from_numpy(np.concatenate(scores, 1)).float()
        return output[:, 0] if target in self.scalar else output

    def save(self, folder: Path) -> None:
        """Write the trees and the columns that they see into `trees.safetensors`."""
        tensors: dict[str, Tensor] = {}
        outputs: dict[str, list[int]] = {}
        # names hold numbers: a target may have any name
        for number, (target, forests) in enumerate(self.forests.items()):
            outputs[target] = [forest.outputs for forest in forests]
            for i, forest in enumerate(forests):
                for name, tensor in forest.tensors().items():
                    tensors[f"trees/{number}/{i}/{name}"] = tensor
        for number, indices in enumerate(self.frequent):
            if indices is not None:
                tensors[f"frequent/{number}"] = torch.from_numpy(indices)

        saved = _Saved(
            scalar=sorted(self.scalar), outputs=outputs, blocks=len(self.frequent), width=self.width
        )
        files.write_tensors(folder / FILE, tensors, {"trees": saved.model_dump_json()})

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Trees:
        """Invert `save`. Raises `ArtifactError` unless the file holds trees."""
        path = folder / FILE
        tensors, metadata = files.read_tensors(path)
        return files.load_part(f"'{path}'", lambda: cls._from_tensors(tensors, metadata["trees"]))

    @classmethod
    def _from_tensors(cls, tensors: dict[str, Tensor], text: str) -> Trees:
        """Invert `save`. Raises `KeyError` or `ValueError` for what cannot be trees."""
        saved = _Saved.model_validate_json(text)
        member = cls({}, [], set(saved.scalar), saved.width)
        for number, (target, outputs) in enumerate(saved.outputs.items()):
            forests = []
            for i, count in enumerate(outputs):
                arrays = {name: tensors[f"trees/{number}/{i}/{name}"] for name in KINDS}
                forests.append(Forest.from_tensors(arrays, count, saved.width))
            member.forests[target] = forests

        for number in range(saved.blocks):
            indices = tensors.get(f"frequent/{number}")
            if indices is not None and (
                indices.ndim != 1 or indices.dtype != torch.int64 or (indices < 0).any()
            ):
                raise ValueError(f"block {number} has wrong columns")
            member.frequent.append(None if indices is None else indices.numpy())
        return member


class _Saved(BaseModel):
    """What is saved beside the trees: the outputs of each target's boosters, and the form of the rows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scalar: list[str]
    outputs: dict[str, list[int]]
    blocks: int = Field(ge=0, le=100_000)
    width: int = Field(ge=0)


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
) -> Forest:
    """Return the trees of a booster for rows and labels: those of the best round on held-out rows, if any."""
    data = lightgbm.Dataset(*train, free_raw_data=True)
    if not len(held_out[1]):
        return Forest.of_text(lightgbm.train(parameters, data, rounds).model_to_string())
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    held_data = lightgbm.Dataset(*held_out, reference=data)
    booster = lightgbm.train(parameters, data, rounds, valid_sets=[held_data], callbacks=[stop])
    return Forest.of_text(booster.model_to_string(num_iteration=booster.best_iteration))


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
