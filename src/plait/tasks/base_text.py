"""Base of the tasks whose answers are texts. B rows, L units of a text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor

from plait.errors import TrainingError
from plait.recipe.bounds import MAX_IDS, MAX_TOKENS
from plait.table.conventions.plain import Plain
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.base import TaskOptions
from plait.tasks.base_writing import Writing
from plait.tasks.writing.metrics import TextRows
from plait.tasks.writing.spelling import ABSENT, NOTHING, Form, Spelling, Units, plain


class TextOptions(TaskOptions):
    """A model writes `units` one by one: `characters`, or at most `vocabulary` different `subwords`.

    `form` says which characters count: all (`written`), or those that can be heard (`spoken`). Texts of
    more than `longest` units are not learned from; they are listed as problems.
    """

    units: Units = Field("subwords", description="units of a text, written one by one")
    form: Form = Field(
        "written", description="which characters of texts count: all, or those that can be heard"
    )
    vocabulary: int = Field(500, ge=10, le=MAX_IDS, description="number of subwords, at most")
    longest: int = Field(512, ge=1, le=MAX_TOKENS, description="units; longer texts are not learned from")


class TextTask(Writing):
    """A target whose cells are texts.

    The target holds ids of its `spelling`, (B, L), and `NOTHING` behind a text's end.
    """

    options = TextOptions
    conventions = (Plain,)

    def __init__(self, config: TextOptions, spelling: Spelling) -> None:
        super().__init__()
        self.config = config
        self.spelling = spelling

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return ids (B, L), which rows have a text, and the texts that are too long."""
        texts: list[list[int]] = []
        problems = []
        for row, text in enumerate(_strings(cells, source.column)):
            ids = [] if text is None else self.spelling.encode(text)
            if len(ids) > self.config.longest:
                limit = f"at most {self.config.longest:,} are learned from (longest)"
                reason = f"a text of {len(ids):,} {self.config.units}, and {limit}"
                problems.append(Problem(row, source.column, "", reason))
                ids = []
            texts.append(ids)

        # One unit at least, so that `target[:, 0]` exists even if all texts are empty.
        longest = max(map(len, texts), default=0)
        units = max(longest, 1)
        target = torch.full((len(texts), units), NOTHING, dtype=torch.int32)
        for row, ids in enumerate(texts):
            target[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        labelled_B = target[:, 0] != NOTHING
        return target, labelled_B, problems

    def text(self, ids: Sequence[int]) -> str | None:
        """Return the text of ids; None if the row's input is missing."""
        is_absent = len(ids) > 0 and int(ids[0]) == ABSENT
        if is_absent:
            return None
        return self.spelling.decode(int(unit) for unit in ids)

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the texts; null where the row's input is missing."""
        texts = [self.text(ids) for ids in output.tolist()]
        return {"": pa.array(texts, pa.string())}

    @abstractmethod
    def compare(self, answers: Sequence[str], labels: Sequence[str]) -> TextRows:
        """Compare each answer with its label."""

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> TextRows:
        """Compare the texts of both. `output` has ids (B, L), as `decode` returns them."""
        answers, labels = self._texts(output), self._texts(target)
        return self.compare(answers, labels)

    def _texts(self, ids_BL: np.ndarray) -> list[str]:
        """Return the text of each row, empty if the row's input is missing."""
        return [self.text(ids) or "" for ids in ids_BL.astype(int).tolist()]

    def baseline(self, target: Tensor) -> Tensor:
        """Return the most frequent text, as ids. Of several, the first one in the order of ids."""
        texts, counts = torch.unique(target, dim=0, return_counts=True)
        most_frequent = texts[counts.argmax()]
        return most_frequent.long()

    def baseline_loss(self, target: Tensor) -> float:
        """Return the entropy of the units' frequencies, in nats."""
        # The loss is per unit, and so is that of the best answer without inputs.
        units = target[target != NOTHING].long()
        counts = torch.bincount(units).double()
        share = counts[counts > 0] / counts.sum()
        entropy = -(share * share.log()).sum()
        return float(entropy)


def learned_spelling(config: TextOptions, cells: pa.ChunkedArray, name: str) -> Spelling:
    """Learn the spelling of the training texts of the target `name`.

    Raises `TrainingError` if there are no texts, or the cells hold something else.
    """
    texts = []
    for text in _strings(cells, name):
        # Nothing may be left of a text in its form, as of "!" in what is spoken.
        if text and plain(text, config.form):
            texts.append(text)
    if not texts:
        raise TrainingError(f"target '{name}': expected texts in the training rows, found none")
    return Spelling.fit(texts, config.units, config.form, config.vocabulary)


def spelled(spelling: Spelling, longest: int, cells: pa.ChunkedArray, name: str) -> list[list[int]]:
    """Return the ids of the texts that are learned from: neither empty nor too long."""
    texts = []
    for text in _strings(cells, name):
        ids = spelling.encode(text) if text else []
        if 0 < len(ids) <= longest:
            texts.append(ids)
    return texts


def _strings(cells: pa.ChunkedArray, name: str) -> list[str | None]:
    """Return cells as strings. Raises `TrainingError` if they are lists, or bytes that are not UTF-8."""
    if is_text(cells):
        return cells.to_pylist()
    is_refused = pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type)
    if not is_refused:
        with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pc.cast(cells, pa.string()).to_pylist()
    raise TrainingError(f"target '{name}': expected texts, the column holds {cells.type}")
