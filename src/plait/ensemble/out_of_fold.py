"""Out-of-fold answers: each row is answered by the members that did not learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.ensemble.ensemble import Bag, Weights, mean, weighed
from plait.members.base import Examples
from plait.tasks.base_prediction import Prediction


@dataclass
class Fold:
    """A bag, and for each of its folds the places of the rows that were held out."""

    bag: Bag
    held: list[np.ndarray]
    known: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.known = np.unique(np.concatenate(self.held))


class Unseen:
    """Answers (see `prediction.Answering`) each row by the members that did not learn from it. `rows`
    of `outputs` are those of `known`, all of which every bag with a share has an answer for.
    """

    def __init__(
        self, bags: list[Fold], weights: dict[str, Weights], tasks: dict[str, Prediction], columns: list[str]
    ) -> None:
        self.bags, self.weights, self.tasks, self.columns = bags, weights, tasks, columns
        self._whole: dict[str, list[dict[str, Tensor]]] = {}

    def prepare(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError("knows only the rows that it was trained on")

    def known(self, examples: Examples) -> np.ndarray:
        """The places of the rows that some bag has an answer for."""
        self._examples = examples
        self._places = np.unique(np.concatenate([b.known for b in self.bags]))
        return self._places

    def answers(self, bag: Fold, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """A bag's outputs for all rows of the examples, for each subset of the columns; zeros where it
        has none.
        """
        rounds: list[list[dict[str, Tensor]]] = [[{} for _ in subsets] for _ in range(_rounds(bag))]
        turn = len(bag.held) // len(rounds)
        for number, (member, held) in enumerate(zip(bag.bag.folds, bag.held, strict=True)):
            found = member.outputs(self._examples.take(held), subsets)
            for into, one in zip(rounds[number // turn], found, strict=True):
                for target, output in one.items():
                    place = into.setdefault(target, torch.zeros(len(self._examples), *output.shape[1:]))
                    place[torch.from_numpy(held)] = output
        return [
            {t: mean(self.tasks[t], [r[i][t] for r in rounds]) for t in rounds[0][i]}
            for i in range(len(subsets))
        ]

    def whole(self, bag: Fold) -> dict[str, Tensor]:
        """The same with no column hidden, computed once."""
        if bag.bag.name not in self._whole:
            self._whole[bag.bag.name] = self.answers(bag, [self.columns])
        return self._whole[bag.bag.name][0]

    def outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Any = lambda n: None
    ) -> list[dict[str, Tensor]]:
        needed = set().union(*(w.needs() for w in self.weights.values()))
        given = {b.bag.name: self.answers(b, subsets) for b in self.bags if b.bag.name in needed}
        progress(len(rows))
        found = weighed(self.weights, self.tasks, given, len(subsets))
        return [{t: output[torch.from_numpy(self._places)] for t, output in one.items()} for one in found]


def _rounds(bag: Fold) -> int:
    """How often each row was held out."""
    return max(sum(len(h) for h in bag.held) // max(len(bag.known), 1), 1)
