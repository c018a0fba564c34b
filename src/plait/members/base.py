"""What a member of an ensemble is, and what it is fitted with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.features import FeatureBlock, Features
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.modalities.base import modalities
from plait.nn.device import Settings
from plait.prediction.view import View
from plait.recipe.registry import Choice, Component, Registry, hook
from plait.recipe.sections import EnsembleRecipe
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.tasks.base_prediction import Prediction


@dataclass
class Examples:
    """Rows of a table under every view that members need, in the same order in all views.

    `prepared` has the labels of the table's rows, and the problems of all views: a view may have no targets.
    `features` turns the rows into numbers. `taken_from` has the examples that these are some of, and their
    places in them.
    """

    views: dict[str, Dataset]
    features: Features
    prepared: Prepared
    taken_from: tuple[Examples, np.ndarray] | None = None

    @property
    def rows(self) -> Tensor:
        """The numbers of these rows in the table."""
        first_view = next(iter(self.views.values()))  # all views have the same rows
        return first_view.rows

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> list[FeatureBlock]:
        """Return the features of these rows, one block for each input of each view."""
        if self.taken_from is None:
            return self._all_blocks

        # Every fold of every member takes its rows from features that are computed once.
        examples, places = self.taken_from
        return [block.take(places) for block in examples.blocks()]

    @cached_property
    def _all_blocks(self) -> list[FeatureBlock]:
        """The features of examples that are not taken from others."""
        return self.features(self.views)

    def take(self, places: np.ndarray) -> Examples:
        """Return some of these rows. `places` count within them."""
        views = {}
        for name, view in self.views.items():
            rows = view.rows.numpy()[places]
            views[name] = Dataset(view.prepared, view.preprocessing, rows)
        return Examples(views, self.features, self.prepared, taken_from=(self, places))

    def target(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a target for each row, and a mask that is True where there is a label."""
        batch = self.prepared.batch
        return batch.targets[name][self.rows], batch.labelled[name][self.rows]


@dataclass(frozen=True)
class Lesson:
    """What a member learns from when a fold is held out: the rows `train`. The rows `held_out` are the fold.

    `plan` is for these rows and the view. `view` is the view's name, and empty for a member that learns from
    features. All lessons of a member have the same `deadline`, until which it should have learned from all.
    """

    train: Examples
    held_out: Examples
    view: str
    plan: Plan
    settings: Settings
    tasks: dict[str, Prediction]
    seed: int
    folder: Path
    deadline: Deadline = NO_LIMIT

    def labelled(self, target: str, side: Examples) -> tuple[np.ndarray, Tensor]:
        """Return the places in `side` that have a label of a target, and these labels."""
        labels, labelled = side.target(target)
        return np.flatnonzero(labelled.numpy()), labels[labelled]


@dataclass(frozen=True)
class Fit:
    """What a member has learned from one lesson.

    `served` answers new rows. `out_of_fold` answers the rows of the fold, so no label of the fold may have
    chosen anything about it, such as the number of trees. It is the same member if nothing is chosen.
    """

    served: Member
    out_of_fold: Member


class Fitted(ABC):
    """A fitted model that an ensemble asks for answers."""

    @abstractmethod
    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of every target that it has learned, for each subset of the columns.

        The other columns are hidden.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what it has learned into a folder, as files that hold no code."""


class Member(Fitted, Component):
    """One fitted model. All of its state is arrays, JSON and text, so that loading it runs no code.

    `chooses` says whether it chooses something by held-out rows.
    """

    chooses: ClassVar[bool] = True

    @classmethod
    @hook
    def check(cls, config: Any) -> None:
        """Raise `RecipeError` if it cannot be fitted on this machine."""

    @classmethod
    @hook
    def check_tasks(cls, config: Any, tasks: Mapping[str, Prediction], labels: Mapping[str, Tensor]) -> None:
        """Raise `RecipeError` if it lacks on this machine what these tasks need.

        `labels` are those of the training rows. It is called before the network trains.
        """

    @classmethod
    @hook
    def encoders(cls, config: Any) -> dict[str, Choice] | None:
        """Return the encoders of the view that it learns from, by modality, in place of the recipe's.

        None if it learns from features, as most members do.
        """
        return None

    @classmethod
    @hook
    def light(cls, config: Any) -> bool:
        """Return whether that view leaves out the columns whose encoders would have to be trained."""
        return False

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Learn the targets that it can, from each lesson, and call `advance` after each.

        The lessons hold out different folds. Raises `KeyboardInterrupt` or `Interrupted` when it is stopped,
        and may raise `OutOfTime` where it cannot end before their deadline.
        """

    @classmethod
    @abstractmethod
    def load(cls, config: Any, folder: Path, view: View | None) -> Member:
        """Invert `save`. `view` is that which it learns from; None if it learns from features."""


class IndependentMember(Member):
    """A member that learns from each lesson by itself, and uses no held-out row."""

    chooses = False

    @classmethod
    @abstractmethod
    def learn(cls, config: Any, lesson: Lesson) -> Member:
        """Learn the targets that it can. Raises `KeyboardInterrupt` or `Interrupted` when it is stopped."""

    @classmethod
    def fit(cls, config: object, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Learn from each lesson."""
        fits = []
        for number, lesson in enumerate(lessons):
            in_time = lesson.deadline.part(1 / (len(lessons) - number))
            member = cls.learn(config, replace(lesson, deadline=in_time))
            fits.append(Fit(served=member, out_of_fold=member))
            advance()
        return fits


members = Registry[Member]("members")


def mean_loss(losses: np.ndarray, rows: np.ndarray, folds: Sequence[int]) -> np.ndarray:
    """Average the losses (folds, ...) of some folds over their held-out rows; zero if they have none.

    `rows` counts the labelled rows of each fold. A loss that is no number is the worst of all.
    """
    with_rows = [fold for fold in folds if rows[fold]]
    if not with_rows:
        return np.zeros(losses.shape[1:])
    worst = np.where(np.isnan(losses[with_rows]), np.inf, losses[with_rows])
    return np.average(worst, axis=0, weights=rows[with_rows])


def choosing_folds(count: int) -> list[list[int]]:
    """Return the folds whose rows choose for each of `count` folds, the other ones, and then for all.

    If a fold chose for itself, its out-of-fold predictions would be too good (Cawley & Talbot 2010, "On
    over-fitting in model selection").
    """
    numbers = range(count)
    by_fold = []
    for fold in numbers:
        by_fold.append([number for number in numbers if number != fold])
    return [*by_fold, list(numbers)]


@dataclass
class BestRound:
    """The best round by the losses of some folds. Once it is `final`, later rounds change nothing."""

    folds: list[int]
    patience: int
    round: int = 0
    loss: float = float("inf")
    final: bool = False

    def see(self, number: int, losses: np.ndarray, rows: np.ndarray) -> None:
        """Compare a round, counted from 1, by the losses of all folds and their labelled held-out rows."""
        if self.final:
            return
        loss = float(mean_loss(losses, rows, self.folds))
        if loss < self.loss:
            self.round = number
            self.loss = loss
        self.final = number - self.round >= self.patience


def best_rounds(held_out_rows: np.ndarray, rounds: int, patience: int) -> list[BestRound]:
    """Return what follows the best round for each fold, by the others, and for all, before the first round.

    Without labelled rows to choose by, `folds` is empty, and the last of all rounds is the best.
    """
    bests = []
    for chosen_by in choosing_folds(len(held_out_rows)):
        has_rows = held_out_rows[chosen_by].any()
        bests.append(
            BestRound(chosen_by, patience) if has_rows else BestRound([], patience, rounds, final=True)
        )
    return bests


def check_members(ensemble: EnsembleRecipe | None) -> None:
    """Raise `RecipeError` for a member with a wrong option or without its files, before any is trained."""
    for name, choice in (ensemble.members if ensemble else {}).items():
        try:
            kind, config = members.choose(choice)
            kind.check(config)
            for modality, encoder in (kind.encoders(config) or {}).items():
                modalities.find(modality)
                encoder_registry.choose(encoder)
        except RecipeError as error:
            raise RecipeError(f"member '{name}': {error}") from error


def check_member_tasks(
    chosen: Mapping[str, Choice], tasks: Mapping[str, Prediction], labels: Mapping[str, Tensor]
) -> None:
    """Raise `RecipeError` for a member that lacks what these tasks need, before any is trained."""
    for name, choice in chosen.items():
        kind, config = members.choose(choice)
        try:
            kind.check_tasks(config, tasks, labels)
        except RecipeError as error:
            raise RecipeError(f"member '{name}': {error}") from error


def hidden(blocks: list[FeatureBlock], subset: Sequence[str]) -> list[FeatureBlock]:
    """Hide all columns that are not in `subset`."""
    return [block.only(subset) for block in blocks]


def feature_matrix(blocks: list[FeatureBlock]) -> np.ndarray:
    """Put all blocks side by side, NaN where an input is missing: (rows, numbers), float32."""
    xs = []
    for block in blocks:
        xs.append(np.where(block.present[:, None], block.reduced, np.float32("nan")))
    return np.concatenate(xs, 1)
