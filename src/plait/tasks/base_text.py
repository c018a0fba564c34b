"""What tasks have in common whose answers are texts. B rows, L steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.base import TaskOptions
from plait.tasks.base_writing import Writing
from plait.tasks.writing.metrics import TextRows
from plait.tasks.writing.spelling import NOTHING, Form, Spelling, Units, plain

ABSENT = -1  # the first id of a row that has nothing to be read from: its answer is null


class TextOptions(TaskOptions):
    """`units` are what is written one after the other: `characters`, or `subwords`, of which there are
    at most `vocabulary`. `form` is what is kept of the texts: all that is `written`, or what can be
    heard of them when they are `spoken`. Texts of more than `longest` units are not learned from, which
    is said.
    """

    units: Units = Field("subwords", description="what is written one after the other")
    form: Form = Field("written", description="what is kept of texts: all, or what can be heard of them")
    vocabulary: int = Field(500, ge=10, description="pieces of words, at most")
    longest: int = Field(512, ge=1, description="units; longer texts are not learned from")


class TextTask(Writing):
    """A target whose cells are texts: ids as its `spelling` has them, (B, L), and `NOTHING` behind a
    text's end.
    """

    options = TextOptions

    def __init__(self, config: TextOptions, spelling: Spelling) -> None:
        super().__init__()
        self.config, self.spelling = config, spelling

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        return None

    @classmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray, name: str) -> TextTask:
        found = [t for t in _strings(cells, name) if t and plain(t, config.form)]
        if not found:
            raise TrainingError(f"target '{name}': expected texts in the training rows, found none")
        made = cls(config, Spelling.fit(found, config.units, config.form, config.vocabulary))
        made.study(made.spelled(cells, name))
        return made

    def spelled(self, cells: pa.ChunkedArray, name: str) -> list[list[int]]:
        """The texts that are learned from, as ids."""
        texts = [self.spelling.encode(t) for t in _strings(cells, name) if t]
        return [ids for ids in texts if 0 < len(ids) <= self.config.longest]

    def study(self, texts: list[list[int]]) -> None:
        """Learns what else there is to know of the training rows' texts."""
        return

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        texts, problems, found = _strings(cells, source.column), [], []
        for row, text in enumerate(texts):
            ids = [] if text is None else self.spelling.encode(text)
            if len(ids) > self.config.longest:
                limit = f"at most {self.config.longest:,} are learned from (longest)"
                reason = f"a text of {len(ids):,} {self.config.units}, and {limit}"
                problems.append(Problem(row, source.column, "", reason))
                ids = []
            found.append(ids)
        target = torch.full((len(found), max(max(map(len, found), default=0), 1)), NOTHING, dtype=torch.int32)
        for row, ids in enumerate(found):
            target[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return target, target[:, 0] != NOTHING, problems

    def text(self, ids: Sequence[int]) -> str | None:
        """None where there was nothing to read from."""
        return None if len(ids) and int(ids[0]) == ABSENT else self.spelling.decode(int(i) for i in ids)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        return {"": pa.array([self.text(row) for row in output.tolist()], pa.string())}

    @abstractmethod
    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> TextRows:
        """Compare each answer with its label."""

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> TextRows:
        return self.compare(self._texts(output), self._texts(target))

    def _texts(self, ids_BL: np.ndarray) -> list[str]:
        return [self.text(ids) or "" for ids in ids_BL.astype(int).tolist()]

    def baseline(self, target: Tensor) -> Tensor:
        """The text that is there most often; the first of them in the order of ids."""
        texts, counts = torch.unique(target, dim=0, return_counts=True)
        return texts[counts.argmax()].long()

    def baseline_loss(self, target: Tensor) -> float:
        """The mean surprise of a unit to one who knows how often each occurs, in nats."""
        counts = torch.bincount(target[target != NOTHING].long()).double()
        share = counts[counts > 0] / counts.sum()
        return float(-(share * share.log()).sum())

    def state(self) -> dict[str, Any]:
        return {"spelling": self.spelling.state()}

    @classmethod
    def from_state(cls, config: Any, state: dict[str, Any]) -> TextTask:
        return cls(config, Spelling.from_state(state["spelling"]))


def _strings(cells: pa.ChunkedArray, name: str) -> list[str | None]:
    if not is_text(cells):
        if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
            raise TrainingError(f"target '{name}': expected texts, the column holds {cells.type}")
        cells = pc.cast(cells, pa.string())
    return cells.to_pylist()
