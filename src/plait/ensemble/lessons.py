"""The lessons of members: the rows that each fit learns from, and the fold that it holds out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.prepare import store
from plait.data.split import folds, split
from plait.ensemble.views import feature_columns
from plait.members.base import Examples, Lesson
from plait.prediction.predictor import Predictor
from plait.prediction.view import View
from plait.recipe.sections import OWN_NETWORK
from plait.runs.deadline import NO_LIMIT, Deadline, OutOfTime
from plait.table.table import Table
from plait.tasks.base_prediction import Prediction, predictions

PREPARING = 1 / 3  # the share of the members' time that is for preparing cells in other ways


@dataclass
class Fitting:
    """All that training an ensemble needs: the plan, the table, and the network that is trained already."""

    plan: Plan
    table: Table
    network: Predictor
    data: Dataset
    folder: Path
    screen: Screen
    deadline: Deadline = NO_LIMIT

    @property
    def tasks(self) -> dict[str, Prediction]:
        """The task of each target."""
        return predictions(self.data.preprocessing.tasks)


@dataclass
class CrossFitting:
    """What all members are fitted with.

    `examples` are the training and validation rows, under the `views` that could be prepared in time.
    `repeats` has the folds that are held out in turn, for each repeat, as places among the examples.
    """

    fitting: Fitting
    views: dict[str, View]
    examples: Examples
    repeats: list[list[np.ndarray]]

    @classmethod
    def prepare(cls, fitting: Fitting, views: dict[str, View]) -> CrossFitting:
        """Prepare the table under every view, and cut the training and validation rows into folds."""
        sides = fitting.plan.split
        prepared = _prepare_views(fitting, views)
        views = {name: view for name, view in views.items() if name in prepared}
        features = Features.fit(prepared, feature_columns(views), sides.train)

        # Members are weighed by rows that they predict out of fold, so validation rows may train them too.
        pool = np.sort(np.concatenate([sides.train, sides.valid]))
        datasets = {}
        for name, dataset in prepared.items():
            datasets[name] = Dataset(dataset.prepared, dataset.preprocessing, pool)
        examples = Examples(datasets, features, fitting.data.prepared)
        return cls(fitting, views, examples, _folds(fitting, pool))

    @property
    def stacking_folds(self) -> list[np.ndarray]:
        """The folds that members are weighed by: their own, or the validation rows cut into as many."""
        first_repeat = self.repeats[0]
        if len(first_repeat) > 1:
            return first_repeat
        cut = np.array_split(first_repeat[0], self.fitting.plan.ensemble.folds)
        return [fold for fold in cut if len(fold)]

    @cached_property
    def tasks(self) -> dict[str, Prediction]:
        """The tasks that members learn: those with a label outside of each fold.

        Groups are not cut. So one fold may hold out all labels of a target that has few of them.
        """
        tasks = {}
        for target, task in self.fitting.tasks.items():
            _, labelled = self.examples.target(target)
            has_label = [bool(labelled[self._others(fold)].any()) for folds in self.repeats for fold in folds]
            if all(has_label):
                tasks[target] = task
        return tasks

    def lesson(self, view_name: str, repeat: int, number: int, deadline: Deadline) -> Lesson:
        """Return the lesson that holds out one fold of a repeat."""
        fold = self.repeats[repeat][number]
        return self._lesson(view_name, self._others(fold), fold, self._seed(repeat, number), deadline)

    def earlier_lesson(self, view_name: str, repeat: int, deadline: Deadline) -> Lesson:
        """Return a lesson that holds out the last of the training rows, where the split goes by time.

        There is only one fold then, which must not choose for itself. This lesson chooses for it.
        """
        options = self.fitting.plan.recipe.split.model_copy(update={"test": 0.0})
        train = self._others(self.repeats[repeat][0])
        rows = self.examples.rows.numpy()[train]
        seed = self._seed(repeat, 0)
        sides = split(self.fitting.table.take(rows), options, "", seed)
        return self._lesson(view_name, train[sides.train], train[sides.valid], seed, deadline)

    def _others(self, fold: np.ndarray) -> np.ndarray:
        """Return the places of all examples that are not in a fold."""
        return np.setdiff1d(np.arange(len(self.examples)), fold)

    def _seed(self, repeat: int, number: int) -> int:
        """Return a seed for a fit. No two have the same, as long as a repeat has 31 folds at most."""
        return self.fitting.plan.seed * 1009 + repeat * 31 + number

    def _lesson(
        self, view_name: str, train_places: np.ndarray, held_out_places: np.ndarray, seed: int, end: Deadline
    ) -> Lesson:
        """Return what a fit is trained with that learns from some of the examples, and holds out others."""
        fitting, examples = self.fitting, self.examples
        view = self.views[view_name or OWN_NETWORK]
        train = examples.take(train_places)
        held_out = examples.take(held_out_places)
        return Lesson(
            train=train,
            held_out=held_out,
            view=view_name,
            plan=view.plan.for_fold(train.rows.numpy(), held_out.rows.numpy(), seed),
            settings=view.settings,
            tasks=self.tasks,
            seed=seed,
            folder=fitting.folder,
            deadline=end,
        )


def _prepare_views(fitting: Fitting, views: dict[str, View]) -> dict[str, Dataset]:
    """Prepare all rows of the table under every view. The run has prepared them under its own already.

    A view that takes too long is left out, so that the others keep most of the time.
    """
    table, screen = fitting.table, fitting.screen
    deadline = fitting.deadline.part(PREPARING)
    prepared = {OWN_NETWORK: Dataset(fitting.data.prepared, fitting.data.preprocessing)}
    new_views = {name: view for name, view in views.items() if name not in prepared}

    inputs = sum(len(view.preprocessing.inputs) for view in new_views.values())
    with store(screen, table) as cache, screen.bar("preparing for members", len(table) * inputs) as bar:
        advance = deadline.interrupting(bar.advance)

        # What computes no embeddings is prepared first: it takes little time.
        for name, view in sorted(new_views.items(), key=lambda item: len(item[1].plan.frozen_columns)):
            with suppress(OutOfTime):
                prepared[name] = view.prepare(table, True, cache, advance)
    return prepared


def _folds(fitting: Fitting, pool: np.ndarray) -> list[list[np.ndarray]]:
    """Return the folds that are held out in turn, for each repeat, as places in the pool.

    Where the split goes by time, the only fold is the validation rows.
    """
    plan = fitting.plan
    options = plan.recipe.split
    if options.time:  # other folds would be predicted from later rows
        return [[validation_places(fitting, pool)]]

    repeats = []
    for repeat in range(plan.ensemble.repeats):
        seed = plan.seed * 101 + repeat
        stratify = plan.split.stratify
        repeats.append(folds(fitting.table, pool, plan.ensemble.folds, options.group, stratify, seed))
    return repeats


def validation_places(fitting: Fitting, pool: np.ndarray) -> np.ndarray:
    """Return the places of the validation rows in the pool."""
    return np.flatnonzero(np.isin(pool, fitting.plan.split.valid))
