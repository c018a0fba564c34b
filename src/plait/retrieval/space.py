"""The space of an alignment: rows as vectors, queries of any of its columns, and what a cell is called
(zero-shot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait.errors import RecipeError, TableError, nearest
from plait.media.cell import Store, is_file
from plait.modalities.base import Modality, modalities
from plait.prediction.answers import chunks
from plait.prediction.predictor import Predictor
from plait.retrieval.index import Score
from plait.table.problems import Problem
from plait.table.read import read
from plait.table.table import Progress, Source, Table
from plait.tasks.base_comparison import Comparison


class Space:
    """The space of the alignment `name` of a trained network. A vector is of length 1, or zero for a
    cell that is missing.
    """

    def __init__(self, network: Predictor, name: str) -> None:
        self.network, self.name = network, name
        task = network.model.task(
            name
        )  # its own copy: the one of `network.tasks` was fitted, but not trained
        assert isinstance(task, Comparison)
        self.task, self.columns = task, task.columns

    @classmethod
    def of(cls, network: Predictor, name: str | None = None) -> Space:
        """The space of an alignment of a network, which is named where there are several. Raises
        `RecipeError` when there is none of that name.
        """
        known = _comparisons(network)
        if not known:
            raise RecipeError("this model aligns no columns; fit one with align=, or --align photo,caption")
        if name is None and len(known) > 1:
            raise RecipeError(
                f"this model has more than one alignment, {', '.join(known)}: say which (alignment=, "
                f"--alignment)"
            )
        if name is not None and name not in known:
            raise RecipeError(f"no alignment '{name}': {nearest(name, known)}")
        return cls(network, name or known[0])

    @property
    def own(self) -> str:
        """What tells it from the network's other alignments: its name, or nothing where there is no other."""
        return self.name if len(_comparisons(self.network)) > 1 else ""

    def modality(self, column: str) -> type[Modality]:
        """Return the modality of a column."""
        return modalities.find(self.network.plan.columns[column].modality.name)

    @property
    def texts(self) -> list[str]:
        """The columns that hold texts."""
        return [column for column in self.columns if self.modality(column).is_text]

    def vectors(
        self, table: Table, store: Store | None = None, progress: Progress = lambda n: None
    ) -> tuple[np.ndarray, list[Problem]]:
        """Vectors of all rows, float32 of shape (rows, columns, width), and the cells that could not be
        read.
        """
        parts, problems = [], []
        for first, part in chunks(table):
            rows = self.network.prepare(part, targets=False, store=store)
            (outputs,) = self.network.outputs(rows, [self.network.columns], progress)
            parts.append(outputs[self.name].numpy())
            problems += [Problem(p.row + first, p.column, p.file, p.reason) for p in rows.prepared.problems]
        width = self.task.width
        return np.concatenate(parts) if parts else np.zeros(
            (0, len(self.columns), width), dtype=np.float32
        ), problems

    def query(
        self, asked: str | Mapping[str, object], root: str | Path | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """The vectors (columns, width) of what is asked for, and the columns that it gives: `{column:
        cell}`, or one cell, which is a file of one of the media columns, or else a text. Raises
        `TableError` when a cell cannot be read or placed.
        """
        row = dict(asked) if isinstance(asked, Mapping) else {self.column_of(asked, root): asked}
        for name in row:
            if name not in self.columns:
                raise TableError(f"no aligned column '{name}': {nearest(name, self.columns)}")
        vectors, problems = self.vectors(read([row], root))
        if problems:
            raise TableError(
                f"the query cannot be read: {problems[0].column}: {problems[0].reason} "
                f"({problems[0].file or row[problems[0].column]})"
            )
        given = [c for c, vector in zip(self.columns, vectors[0], strict=True) if vector.any()]
        if not given:
            raise TableError(f"the query is empty; give a cell of {' or '.join(self.columns)}")
        return vectors[0], given

    def column_of(self, cell: str, root: str | Path | None = None) -> str:
        """The column that a single cell of a query belongs to."""
        base = Path(root) if root is not None else Path()
        of_file = is_file(cell, base)
        if of_file:
            cells, source = pa.chunked_array([pa.array([cell])]), Source("query", base.absolute())
            fitting = [
                c for c in self.columns if self.modality(c).media and self.modality(c).matches(cells, source)
            ]
        else:
            fitting = self.texts or [column for column in self.columns if self.modality(column).is_label]
        if len(fitting) == 1:
            return fitting[0]
        what = f"file '{cell}'" if of_file else "text"
        said = (
            f"could be a cell of {' or '.join(fitting)}"
            if fitting
            else f"is no cell of {', '.join(self.columns)}"
        )
        raise TableError(
            f"the {what} {said}; say which column is asked by, as in {(fitting or self.columns)[0]}=..."
        )

    def gallery(self, column: str | None, given: Sequence[str]) -> str:
        """The column that is searched: the one said, or the only one that the query does not give."""
        if column is not None:
            if column not in self.columns:
                raise TableError(f"no aligned column '{column}' to search: {nearest(column, self.columns)}")
            return column
        others = [c for c in self.columns if c not in given]
        if len(others) != 1:
            raise TableError(f"which column is to be searched? One of {', '.join(others or self.columns)}")
        return others[0]

    def mixed(self, given_KD: np.ndarray) -> np.ndarray:
        return self.task.query(given_KD)

    def score(self, given_KD: np.ndarray, column: str) -> Score | None:
        """Where an objective compares whole rows in a way that no single vector stands for, that score
        of candidates' vectors.
        """
        place = self.columns.index(column)
        if not self.task.compares_whole_rows or int((given_KD != 0).any(1).sum()) < 2:
            return None

        def scored(candidates_ND: np.ndarray) -> np.ndarray:
            rows_NKD = np.repeat(given_KD[None], len(candidates_ND), 0).astype(np.float32)
            rows_NKD[:, place] = candidates_ND
            return self.task.similarity(torch.from_numpy(rows_NKD)).detach().numpy()

        return scored

    def labels(
        self, labels: Sequence[str], templates: Sequence[str], column: str | None = None
    ) -> np.ndarray:
        """A vector for each label, (labels, width): the mean over its templates, of length 1. The text
        column must be said where there are several.
        """
        texts = self.texts
        if column is None and len(texts) != 1:
            raise RecipeError(
                f"labels are texts: say which text column they are like: "
                f"{', '.join(texts) or 'this model aligns none'}"
            )
        column = column or texts[0]
        if wrong := [t for t in templates if "{}" not in t]:
            raise RecipeError(
                f"template '{wrong[0]}': expected {{}} where the label goes, as in 'a photo of {{}}'"
            )
        rows = [{column: template.replace("{}", label)} for label in labels for template in templates]
        vectors, _ = self.vectors(read(rows))
        mean = vectors[:, self.columns.index(column)].reshape(len(labels), len(templates), -1).mean(1)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        if (length == 0).any():
            raise RecipeError(f"label '{labels[int(np.argmin(length))]}' has no word that the model can read")
        unit: np.ndarray = mean / length
        return unit

    def classify(
        self,
        cells_ND: np.ndarray,
        labels: Sequence[str],
        label_LD: np.ndarray,
        thresholds: Mapping[str, float],
    ) -> dict[str, pa.Array]:
        """For each cell the label whose vector is nearest, among those that come up to their threshold
        of the cosine; null where none does or the cell is missing. Beside it the cosine, and each
        label's probability by the learned temperature.
        """
        cosine = cells_ND @ label_LD.T
        absent = ~cells_ND.any(1)
        logits = torch.from_numpy(cosine) * float(self.task.scale.detach())
        probability = logits.softmax(1).numpy().astype(np.float64)
        enough = cosine >= np.array([thresholds.get(label, -np.inf) for label in labels])
        best = np.where(enough, cosine, -np.inf).argmax(1)
        unknown = absent | ~enough.any(1)
        answers = {
            "label": pa.array(
                [None if u else labels[b] for u, b in zip(unknown, best, strict=True)], pa.string()
            ),
            "cosine": pa.array(cosine.max(1).astype(np.float64), mask=absent),
        }
        return answers | {
            f"label_probability_{label}": pa.array(probability[:, i], mask=absent)
            for i, label in enumerate(labels)
        }


def _comparisons(network: Predictor) -> list[str]:
    """Return the names of a network's alignments."""
    return [name for name, task in network.tasks.items() if isinstance(task, Comparison)]
