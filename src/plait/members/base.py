"""What a member of an ensemble is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.features import FeatureBlock, Features
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.modalities.base import modalities
from plait.nn.device import Settings
from plait.recipe.registry import Choice, Component, Registry
from plait.recipe.sections import EnsembleRecipe
from plait.tasks.base_prediction import Prediction

View = tuple[str, Preprocessing]  # the view's name, and its fitted inputs


@dataclass
class Examples:
    """Rows of a table under every view that members need, in the same order in all views.

    `features` turns them into numbers. `taken_from` has the examples that these are some of, and their places
    in them.
    """

    views: dict[str, Dataset]
    features: Features
    taken_from: tuple[Examples, np.ndarray] | None = None

    @property
    def _first(self) -> Dataset:
        """The first view: any will do for what is the same in all views."""
        return next(iter(self.views.values()))

    @property
    def prepared(self) -> Prepared:
        """The prepared cells of the first view. Targets are the same in all views."""
        return self._first.prepared

    @property
    def rows(self) -> Tensor:
        """The numbers of these rows in the table."""
        return self._first.rows

    def __len__(self) -> int:
        return len(self._first)

    @cached_property
    def blocks(self) -> list[FeatureBlock]:
        """The features of these rows, one block for each input of each view."""
        if self.taken_from is None:
            return self.features(self.views)

        # every fold of every member takes its rows from features that are computed once
        examples, places = self.taken_from
        return [block.take(places) for block in examples.blocks]

    def take(self, places: np.ndarray) -> Examples:
        """Return some of these rows. `places` count within them."""
        views = {}
        for name, view in self.views.items():
            rows = view.rows.numpy()[places]
            views[name] = Dataset(view.prepared, view.preprocessing, rows)
        return Examples(views, self.features, taken_from=(self, places))

    def target(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a target for each row, and a mask that is True where there is a label."""
        batch = self.prepared.batch
        return batch.targets[name][self.rows], batch.labelled[name][self.rows]


@dataclass(frozen=True)
class Lesson:
    """What a member is fitted with.

    It learns from the rows `train`, and stops by its loss on the rows `valid`. `plan` is for these rows and
    the view. `view` is the view's name, and empty for a member that learns from features.
    """

    train: Examples
    valid: Examples
    view: str
    plan: Plan
    settings: Settings
    tasks: dict[str, Prediction]
    seed: int
    folder: Path

    def labelled(self, target: str, side: Examples) -> tuple[np.ndarray, Tensor]:
        """Return the places in `side` that have a label of a target, and these labels."""
        labels, labelled = side.target(target)
        return np.flatnonzero(labelled.numpy()), labels[labelled]


class Member(Component, ABC):
    """One fitted model. All of its state is arrays, JSON and text, so that loading it runs no code."""

    @classmethod
    @abstractmethod
    def encoders(cls, config: Any) -> dict[str, Choice] | None:
        """Return the encoders of the view that it learns from, by modality, in place of the recipe's.

        None if it learns from features.
        """

    @classmethod
    @abstractmethod
    def light(cls, config: Any) -> bool:
        """Return whether that view leaves out the columns whose encoders would have to be trained."""

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, lesson: Lesson) -> Member:
        """Learn the targets that it can. Raises `KeyboardInterrupt` or `Interrupted` when it is stopped."""

    @abstractmethod
    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of every target that it has learned, for each subset of the columns.

        The other columns are hidden.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what it has learned into a folder, as files that hold no code."""

    @classmethod
    @abstractmethod
    def load(cls, config: Any, folder: Path, plan: Plan, settings: Settings, view: View) -> Member:
        """Invert `save`. A network needs the view."""


members = Registry[Member]("members")


def check_members(ensemble: EnsembleRecipe | None) -> None:
    """Raise `RecipeError` for a member with a wrong option, long before it is trained."""
    for name, choice in (ensemble.members if ensemble else {}).items():
        try:
            kind, config = members.choose(choice)
            for modality, encoder in (kind.encoders(config) or {}).items():
                modalities.find(modality)
                encoder_registry.choose(encoder)
        except RecipeError as error:
            raise RecipeError(f"member '{name}': {error}") from error


def hidden(blocks: list[FeatureBlock], subset: Sequence[str]) -> list[FeatureBlock]:
    """Hide all columns that are not in `subset`."""
    return [block.only(subset) for block in blocks]
