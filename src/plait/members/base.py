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
from plait.data.features import Block, Features
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.nn.device import Settings
from plait.recipe.registry import Choice, Component, Registry
from plait.tasks.base_prediction import Prediction

View = tuple[str, Preprocessing]  # its name, and its fitted inputs


@dataclass
class Examples:
    """Rows of a table under every view that members need, in the same order in all; `features` turns
    them into numbers.
    """

    views: dict[str, Dataset]
    features: Features

    @property
    def _first(self) -> Dataset:
        return next(iter(self.views.values()))

    @property
    def prepared(self) -> Prepared:
        """Return the prepared cells of the first view; targets are the same in all views."""
        return self._first.prepared

    @property
    def rows(self) -> Tensor:
        """Return the numbers of these rows in the table."""
        return self._first.rows

    def __len__(self) -> int:
        return len(self._first)

    @cached_property
    def blocks(self) -> list[Block]:
        """Return the features of these rows, one block of numbers for each column."""
        return self.features(self.views)

    def take(self, places: np.ndarray) -> Examples:
        """Some of these rows; `places` count within them."""
        views = {
            name: Dataset(d.prepared, d.preprocessing, d.rows.numpy()[places])
            for name, d in self.views.items()
        }
        taken = Examples(views, self.features)
        if "blocks" in self.__dict__:
            taken.__dict__["blocks"] = [b.take(places) for b in self.blocks]
        return taken

    def target(self, name: str) -> tuple[Tensor, Tensor]:
        """A target and True where there is a label."""
        return self.prepared.batch.targets[name][self.rows], self.prepared.batch.labelled[name][self.rows]


@dataclass(frozen=True)
class Lesson:
    """What a member is fitted with: rows to learn from, rows to know by when to stop, and a plan for
    these rows under the member's view.
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
        """Where `side` has a label, and the target there."""
        found, known = side.target(target)
        return np.flatnonzero(known.numpy()), found[known]


class Member(Component, ABC):
    """One fitted model. All of its state is arrays, JSON and text."""

    @classmethod
    @abstractmethod
    def encoders(cls, config: Any) -> dict[str, Choice] | None:
        """The encoders, by modality, of the view that it learns from, in place of the recipe's; None:
        it learns from features.
        """

    @classmethod
    @abstractmethod
    def light(cls, config: Any) -> bool:
        """Whether that view leaves out the columns whose encoders would have to be trained."""

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, lesson: Lesson) -> Member:
        """Learns the targets that it can. Raises `KeyboardInterrupt` or `Interrupted` when it is stopped."""

    @abstractmethod
    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """For each subset of the columns, all others hidden, the outputs of every target that it has
        learned.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what it has learned into a folder, as files that hold no code."""

    @classmethod
    @abstractmethod
    def load(cls, config: Any, folder: Path, plan: Plan, settings: Settings, view: View) -> Member:
        """The inverse of `save`. A network needs the view."""


members = Registry[Member]("members")


def hidden(blocks: list[Block], subset: Sequence[str]) -> list[Block]:
    """The blocks with all columns hidden that are not in `subset`."""
    return [block.only(subset) for block in blocks]
