"""Gradient-boosted trees on features (LightGBM, Ke et al. 2017), saved in its own text format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import torch
from pydantic import BaseModel, Field
from scipy import sparse
from torch import Tensor

from plait.data.features import FeatureBlock
from plait.members.base import Examples, Fit, Lesson, Member, choosing_folds, hidden, mean_loss
from plait.prediction.view import View
from plait.recipe.bounds import MAX_INT32, MAX_RATE, MAX_ROUNDS
from plait.recipe.registry import Options
from plait.table.json import JSON
from plait.tasks.base_prediction import Prediction

FREQUENT = 500  # n-grams of a text column that trees see: the most frequent ones
PATIENCE = 20  # rounds without a better score on the held-out rows before boosting stops


class Config(Options):
    """LightGBM's parameters. `colsample` is the share of features that each tree sees."""

    rounds: int = Field(400, ge=1, le=MAX_ROUNDS, description="trees, at most")
    learning_rate: float = Field(0.1, gt=0, le=MAX_RATE, description="of boosting")
    leaves: int = Field(7, ge=2, le=131072, description="of a tree")
    least: int = Field(5, ge=1, le=MAX_INT32, description="rows in a leaf")
    colsample: float = Field(0.1, gt=0, le=1, description="share of the features that each tree sees")
    subsample: float = Field(0.8, gt=0, le=1, description="share of the rows that each tree sees")
    l2: float = Field(1.0, ge=0, le=1000000000.0, description="penalty on the leaves' values")


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
    def fit(cls, config: Config, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Train the boosters of every target; held-out rows decide when boosting stops."""
        served = []
        out_of_fold = []
        for lesson in lessons:
            frequent = [_frequent(block) for block in lesson.train.blocks()]
            served.append(cls({}, frequent, set()))
            out_of_fold.append(cls({}, frequent, set()))

        for target, task in lessons[0].tasks.items():
            folds = []
            for lesson, member in zip(lessons, served, strict=True):
                folds.append(_Fold.of(config, lesson, target, member.frequent))
            # a task may need several boosters, such as one for each of its labels
            for job in range(folds[0].jobs):
                rounds = _boost(folds, job, config.rounds)
                for fold, trained in enumerate(folds):
                    served[fold]._take(target, trained.booster, rounds[-1])
                    out_of_fold[fold]._take(target, trained.booster, rounds[fold])
            for member in (*served, *out_of_fold):
                if target in member.boosters and not task.baseline(folds[0].y).ndim:
                    member.scalar.add(target)

        for _ in lessons:
            advance()
        return [Fit(*members) for members in zip(served, out_of_fold, strict=True)]

    def _take(self, target: str, booster: lightgbm.Booster, rounds: int) -> None:
        """Take the first rounds of a booster."""
        text = booster.model_to_string(num_iteration=rounds)
        self.boosters.setdefault(target, []).append(lightgbm.Booster(model_str=text))

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the raw scores of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            x = _matrix(hidden(examples.blocks(), subset), self.frequent)
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
    def load(cls, config: Config, folder: Path, view: View | None) -> Trees:
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


@dataclass
class _Fold:
    """The labelled rows of one target when a fold is held out, and the booster that learns from them."""

    y: Tensor
    held_y: Tensor
    task: Prediction
    parameters: JSON
    train: lightgbm.Dataset
    held_out: lightgbm.Dataset
    booster: lightgbm.Booster | None = None

    @classmethod
    def of(cls, config: Config, lesson: Lesson, target: str, frequent: list[np.ndarray | None]) -> _Fold:
        """Bin the rows of a lesson that have a label."""
        task = lesson.tasks[target]
        rows, y = lesson.labelled(target, lesson.train)
        held_rows, held_y = lesson.labelled(target, lesson.held_out)
        x = _matrix(lesson.train.blocks(), frequent)
        held_x = _matrix(lesson.held_out.blocks(), frequent)
        parameters = _parameters(config, x.shape[1], lesson.seed)

        train = lightgbm.Dataset(x[rows], params=parameters)
        held_out = lightgbm.Dataset(held_x[held_rows], reference=train, params=parameters)
        return cls(y, held_y, task, parameters, train, held_out)

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
        self.booster = lightgbm.Booster({**self.parameters, **parameters}, self.train)
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


@dataclass
class _Best:
    """The best round by some folds. Once it is `final`, later rounds change nothing."""

    folds: list[int]
    round: int = 0
    loss: float = float("inf")
    final: bool = False

    def see(self, number: int, losses: np.ndarray, rows: np.ndarray) -> None:
        """Compare a round, counted from 1, by the losses of all folds."""
        if self.final:
            return
        loss = float(mean_loss(losses, rows, self.folds))
        if loss < self.loss:
            self.round = number
            self.loss = loss
        self.final = number - self.round >= PATIENCE


def _boost(folds: list[_Fold], job: int, rounds: int) -> list[int]:
    """Train a booster of each fold, all at once, round by round.

    Return the best round for each fold, by the other folds, and then by all. Boosting stops once all of
    these are final. Where the folds have no labelled row, it goes on to the last round.
    """
    held_out_rows = np.array([fold.held_out_rows for fold in folds])
    bests = []
    for chosen_by in choosing_folds(len(folds)):
        has_rows = held_out_rows[chosen_by].any()
        bests.append(_Best(chosen_by) if has_rows else _Best([], rounds, final=True))
    for fold in folds:
        fold.begin(job)

    # without any held-out row there is nothing to stop by
    is_blind = not held_out_rows.any()
    for number in range(1, rounds + 1):
        losses = np.array([fold.boost() for fold in folds])
        for best in bests:
            best.see(number, losses, held_out_rows)
        if not is_blind and all(best.final for best in bests):
            break
    return [best.round for best in bests]


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
