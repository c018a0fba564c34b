"""Gradient-boosted trees on features (LightGBM, Ke et al. 2017), saved and answered as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from plait.data.target_statistics import TargetStatistics
from plait.members.base import Examples, Fit, Lesson, Member, best_rounds, feature_matrix, hidden
from plait.members.base_lightgbm import Booster, Dataset
from plait.members.base_statistics import Described, described
from plait.members.base_trees import KINDS, Forest
from plait.prediction.view import View
from plait.recipe.bounds import MAX_INT32, MAX_RATE, MAX_ROUNDS
from plait.recipe.registry import Options
from plait.runs import files
from plait.runs.deadline import Deadline
from plait.table.json import JSON
from plait.tasks.base_prediction import Prediction

FILE = "trees.safetensors"
MANY = 1000  # rows, from which on trees are held back more
PATIENCE = 30  # rounds without a better score on the held-out rows before boosting stops


class Config(Options):
    """LightGBM's parameters.

    `colsample` is the share of features that each tree sees. Where one number says most, all trees must see
    it; where many say a little, trees of few features are better together. `random_thresholds` draws the
    thresholds of each split at random, and takes the best of them (Geurts et al. 2006, "Extremely randomized
    trees"). Such trees differ more from each other, so that smaller steps pay.

    Options that are null depend on the table. A round grows one tree for each class: where there are several,
    rounds are fewer and trees smaller. From `MANY` rows on, leaves are larger and their values smaller.
    """

    rounds: int = Field(1000, ge=1, le=MAX_ROUNDS, description="trees, at most")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=MAX_RATE,
        description="of boosting; null: 0.05, with random thresholds 0.03, or 0.1 for three classes or "
        "several labels",
    )
    leaves: int | None = Field(
        None, ge=2, le=131072, description="of a tree; null: 15, or 7 for three classes or several labels"
    )
    least: int | None = Field(
        None, ge=1, le=MAX_INT32, description="rows in a leaf; null: 5, or 10 from 1,000 rows on"
    )
    colsample: float = Field(1.0, gt=0, le=1, description="share of the features that each tree sees")
    colsample_split: float = Field(
        1.0, gt=0, le=1, description="share of these that each split of a tree sees"
    )
    random_thresholds: bool = Field(
        False, description="draw one threshold of each feature at random, in place of the best one"
    )
    subsample: float = Field(0.8, gt=0, le=1, description="share of the rows that each tree sees")
    l2: float | None = Field(
        None,
        ge=0,
        le=1000000000.0,
        description="penalty on the leaves' values; null: 1, or 10 from 1,000 rows on",
    )
    statistics: bool = Field(
        True, description="describe many categories and short texts by the labels of rows that have them"
    )


class Trees(Member):
    """One booster or more for each target, whose raw scores are its output.

    A target that trees cannot learn is left out.
    """

    options = Config

    def __init__(
        self,
        forests: dict[str, list[Forest]],
        scalar: set[str],
        statistics: dict[str, TargetStatistics],
        widths: dict[str, int],
    ) -> None:
        """Take the trees of each target's boosters, and the statistics that they read beside the features.

        `scalar` names the targets of one number, whose outputs are (rows,). `widths` says how many numbers a
        row has.
        """
        self.forests = forests
        self.scalar = scalar
        self.statistics = statistics
        self.widths = widths

    @classmethod
    def fit(cls, config: Config, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Train the boosters of every target; held-out rows decide when boosting stops."""
        served = [cls({}, set(), {}, {}) for _ in lessons]
        out_of_fold = [cls({}, set(), {}, {}) for _ in lessons]
        for target in lessons[0].tasks:
            _fit_target(config, lessons, target, served, out_of_fold)
        for _ in lessons:
            advance()
        return [Fit(*members) for members in zip(served, out_of_fold, strict=True)]

    def begin(self, target: str, fold: _Fold) -> None:
        """Take what a target's rows are described by, and whether it is one number."""
        if not fold.task.baseline(fold.y).ndim:
            self.scalar.add(target)
        self.statistics[target] = fold.statistics
        self.widths[target] = fold.width
        self.forests[target] = []

    def take(self, target: str, booster: Booster, rounds: int) -> None:
        """Take the first rounds of a target's booster."""
        text = booster.model_to_string(num_iteration=rounds)
        self.forests[target].append(Forest.of_text(text))

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the raw scores of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            blocks = hidden(examples.blocks(), subset)
            by_target = {}
            for target in self.forests:
                x = feature_matrix(self.statistics[target](blocks))
                by_target[target] = self._scores(target, x)
            outputs.append(by_target)
        return outputs

    def _scores(self, target: str, x: np.ndarray) -> Tensor:
        """Return the raw scores of a target's boosters side by side."""
        scores = [forest(x) for forest in self.forests[target]]
        output = torch.from_numpy(np.concatenate(scores, 1)).float()
        return output[:, 0] if target in self.scalar else output

    def save(self, folder: Path) -> None:
        """Write the trees into `trees.safetensors`."""
        tensors: dict[str, Tensor] = {}
        outputs: dict[str, list[int]] = {}
        # Names hold numbers: a target may have any name.
        for number, (target, forests) in enumerate(self.forests.items()):
            outputs[target] = [forest.outputs for forest in forests]
            tensors |= files.prefixed(_statistics(number), self.statistics[target].tensors())
            for i, forest in enumerate(forests):
                for name, tensor in forest.tensors().items():
                    tensors[f"trees/{number}/{i}/{name}"] = tensor
        saved = _Saved(scalar=sorted(self.scalar), outputs=outputs, widths=self.widths)
        files.write_tensors(folder / FILE, tensors, {"trees": saved.model_dump_json()})

    @classmethod
    def load(cls, config: Config, folder: Path, view: View | None) -> Trees:
        """Invert `save`. Raises `ArtifactError` unless the file holds trees."""
        path = folder / FILE
        tensors, metadata = files.read_tensors(path)
        return files.load_part(f"'{path}'", lambda: cls._from_tensors(tensors, metadata["trees"]))

    @classmethod
    def _from_tensors(cls, tensors: dict[str, Tensor], text: str) -> Trees:
        """Invert `save`. Raises `KeyError` or `ValueError` for what cannot be trees."""
        saved = _Saved.model_validate_json(text)
        member = cls({}, set(saved.scalar), {}, saved.widths)
        for number, (target, outputs) in enumerate(saved.outputs.items()):
            forests = []
            for i, count in enumerate(outputs):
                arrays = {name: tensors[f"trees/{number}/{i}/{name}"] for name in KINDS}
                forests.append(Forest.from_tensors(arrays, count, saved.widths[target]))
            member.forests[target] = forests
            of_target = files.under_prefix(_statistics(number), tensors)
            member.statistics[target] = TargetStatistics.from_tensors(of_target)
        return member


class _Saved(BaseModel):
    """What is saved beside the trees: the outputs of each target's boosters, and the widths of rows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scalar: list[str]
    outputs: dict[str, list[int]]
    widths: dict[str, int]


component = Trees


def _statistics(number: int) -> str:
    """Return where the statistics of a target are. A target may have any name, so it is numbered."""
    return f"statistics/{number}/"


def _parameters(config: Config, rows: int, width: int, outputs: int, seed: int) -> JSON:
    """Return LightGBM's parameters for rows of so many numbers, and a target of so many outputs."""
    one_output_rate = 0.03 if config.random_thresholds else 0.05
    learning_rate, leaves = (one_output_rate, 15) if outputs == 1 else (0.1, 7)
    least, l2 = (5, 1.0) if rows < MANY else (10, 10.0)
    colsample = max(config.colsample, min(1.0, 10 / max(width, 1)))
    return {
        "learning_rate": config.learning_rate or learning_rate,
        "num_leaves": config.leaves or leaves,
        "min_data_in_leaf": config.least or least,
        "lambda_l2": l2 if config.l2 is None else config.l2,
        "feature_fraction": colsample,  # at least ten numbers, or all of a table that has fewer
        "feature_fraction_bynode": config.colsample_split,
        "extra_trees": config.random_thresholds,
        "bagging_fraction": max(config.subsample, min(1.0, 2 / max(rows, 1))),  # LightGBM needs a row
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


@dataclass
class _Fold:
    """The labelled rows of one target when a fold is held out, and the booster that learns from them."""

    y: Tensor
    held_y: Tensor
    task: Prediction
    parameters: JSON
    statistics: TargetStatistics
    width: int
    train: Dataset
    held_out: Dataset
    booster: Booster | None = None

    @classmethod
    def of(cls, config: Config, task: Prediction, rows: Described, seed: int) -> _Fold:
        """Bin the rows of a lesson that have a label."""
        y, held_y = rows.train.y, rows.held_out.y
        x = feature_matrix(rows.train.blocks)
        outputs = task.baseline(y).numel()
        parameters = _parameters(config, len(y), x.shape[1], outputs, seed)

        train = Dataset(x, params=parameters)
        held_out = Dataset(feature_matrix(rows.held_out.blocks), reference=train, params=parameters)
        return cls(y, held_y, task, parameters, rows.statistics, x.shape[1], train, held_out)

    @property
    def jobs(self) -> int:
        """The number of boosters of this target."""
        return len(self.task.boosting(self.y))

    @property
    def held_out_rows(self) -> int:
        """The number of labelled rows that are held out."""
        return len(self.held_y)

    def begin(self, job: int) -> None:
        """Begin with one of the target's boosters."""
        parameters, labels = self.task.boosting(self.y)[job]
        _, held_labels = self.task.boosting(self.held_y)[job]
        self.train.set_label(_array(labels))
        self.booster = Booster({**self.parameters, **parameters}, self.train)
        if self.held_out_rows:
            self.held_out.set_label(_array(held_labels))
            self.booster.add_valid(self.held_out, "held out")

    def boost(self) -> float:
        """Train one more round. Return the loss on held-out rows; NaN without any."""
        assert self.booster is not None
        self.booster.update()
        if not self.held_out_rows:
            return float("nan")
        ((_, _, loss, _),) = self.booster.eval_valid()
        return float(loss)


def _fit_target(
    config: Config, lessons: Sequence[Lesson], target: str, served: list[Trees], out_of_fold: list[Trees]
) -> None:
    """Train the boosters of a target on each lesson, and give them to the members of its fold."""
    task = lessons[0].tasks[target]
    folds = []
    for lesson, rows in zip(lessons, described(lessons, target, config.statistics), strict=True):
        folds.append(_Fold.of(config, task, rows, lesson.seed))
    if not folds[0].jobs or not all(task.may_boost(fold.y) for fold in folds):
        return
    for members in (served, out_of_fold):
        for member, fold in zip(members, folds, strict=True):
            member.begin(target, fold)

    # A task may need several boosters, such as one for each of its labels.
    for job in range(folds[0].jobs):
        deadline = lessons[0].deadline.part(1 / (folds[0].jobs - job))
        rounds = _boost(folds, job, config.rounds, deadline)
        for number, fold in enumerate(folds):
            served[number].take(target, fold.booster, rounds[-1])
            out_of_fold[number].take(target, fold.booster, rounds[number])


def _boost(folds: list[_Fold], job: int, rounds: int, deadline: Deadline) -> list[int]:
    """Train a booster of each fold, all at once, round by round.

    Return the best round for each fold, by the other folds, and then by all. Boosting stops once all of
    these are final. Where the folds have no labelled row, it goes on to the last round.
    """
    held_out_rows = np.array([fold.held_out_rows for fold in folds])
    bests = best_rounds(held_out_rows, rounds, PATIENCE)
    for fold in folds:
        fold.begin(job)

    # Without any held-out row there is nothing to stop by.
    can_stop = held_out_rows.any()
    for number in range(1, rounds + 1):
        losses = np.array([fold.boost() for fold in folds])
        for best in bests:
            best.see(number, losses, held_out_rows)
        if deadline.is_over or (can_stop and all(best.final for best in bests)):
            break
    return [best.round for best in bests]
