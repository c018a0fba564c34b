"""The space of an alignment: vectors of rows and of queries, and labels for cells (zero-shot).

Shape letters: N rows, K columns, L labels, D width.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from plait.errors import RecipeError, TableError, nearest
from plait.media.cell import Store, is_file
from plait.modalities.base import Modality, modalities
from plait.prediction.answers import chunks, shifted
from plait.prediction.predictor import Predictor
from plait.retrieval.index import Score
from plait.table.problems import Problem
from plait.table.read import read
from plait.table.table import Progress, Source, Table


class Space:
    """The space of the alignment `name` of a trained network.

    A vector has length 1, or is zero for a cell that is missing. `cells` is the store of prepared cells that
    queries and labels are looked up in; None if there is none.
    """

    def __init__(self, network: Predictor, name: str, cells: Store | None = None) -> None:
        self.network = network
        self.name = name
        self.cells = cells
        self.task = network.model.comparisons[name]
        self.columns = self.task.columns

    @classmethod
    def of(cls, network: Predictor, name: str | None = None, cells: Store | None = None) -> Space:
        """Return the space of the alignment of this name, or of a network's only alignment.

        Raises `RecipeError` if there is none of that name, or if several alignments need a name.
        """
        alignments = list(network.model.comparisons)
        if not alignments:
            raise RecipeError("this model aligns no columns; fit one with align=, or --align photo,caption")
        if name is None and len(alignments) > 1:
            raise RecipeError(
                f"this model has more than one alignment, {', '.join(alignments)}: say which (alignment=, "
                f"--alignment)"
            )
        if name is not None and name not in alignments:
            raise RecipeError(f"no alignment '{name}': {nearest(name, alignments)}")
        return cls(network, name or alignments[0], cells)

    @property
    def suffix(self) -> str:
        """The alignment's name if the network has several; else an empty string."""
        if len(self.network.model.comparisons) < 2:
            return ""
        return self.name

    def modality(self, column: str) -> type[Modality]:
        """Return the modality of a column."""
        column_plan = self.network.plan.columns[column]
        return modalities.find(column_plan.modality.name)

    @property
    def texts(self) -> list[str]:
        """The aligned columns that hold texts."""
        return [column for column in self.columns if self.modality(column).is_text]

    def vectors(
        self, table: Table, store: Store | None = None, progress: Progress = lambda n: None
    ) -> tuple[np.ndarray, list[Problem]]:
        """Return the vectors of all rows (rows, columns, width), float32, and the cells that are problems."""
        # A table without rows has no chunks, and there must be something to concatenate.
        no_rows = np.zeros((0, len(self.columns), self.task.width), dtype=np.float32)
        vectors = [no_rows]
        problems: list[Problem] = []
        for first, chunk in chunks(table):
            rows = self.network.prepare(chunk, targets=False, store=store)
            outputs = self.network.outputs(rows, progress)
            vectors.append(outputs[self.name].numpy())
            problems += shifted(rows.prepared.problems, first)
        return np.concatenate(vectors), problems

    def query(
        self, query: str | Mapping[str, object], root: str | Path | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """Return the vectors (columns, width) of a query, and the columns that it has a cell of.

        A query is `{column: cell}`, or one cell: a file of one of the media columns, or else a text. Raises
        `TableError` if a cell cannot be read, or could be of several columns.
        """
        if isinstance(query, Mapping):
            row = dict(query)
        else:
            column = self.column_of(query, root)
            row = {column: query}
        for column in row:
            if column not in self.columns:
                raise TableError(f"no aligned column '{column}': {nearest(column, self.columns)}")

        vectors, problems = self.vectors(read([row], root), self.cells)
        if problems:
            problem = problems[0]
            raise TableError(f"the query cannot be read: {problem.column}: {problem.described()}")

        query_KD = vectors[0]
        has_cell_K = query_KD.any(1)
        query_columns = []
        for column, has_cell in zip(self.columns, has_cell_K, strict=True):
            if has_cell:
                query_columns.append(column)
        if not query_columns:
            raise TableError(f"the query is empty; give a cell of {' or '.join(self.columns)}")
        return query_KD, query_columns

    def column_of(self, cell: str, root: str | Path | None = None) -> str:
        """Return the column that a single cell of a query belongs to.

        Raises `TableError` if no column or more than one fits.
        """
        base = Path(root) if root is not None else Path()
        if is_file(cell, base):
            kind = f"file '{cell}'"
            columns = self._media_columns(cell, base)
        else:
            if _names_media(cell):
                raise TableError(
                    f"no file '{cell}' in {base.absolute()}; to search by it as a text, name the text's "
                    f"column, as in {self.texts[0] if self.texts else 'column'}={cell}"
                )
            kind = "text"
            labels = [column for column in self.columns if self.modality(column).is_label]
            columns = self.texts or labels
        if len(columns) == 1:
            return columns[0]

        if columns:
            reason = f"could be a cell of {' or '.join(columns)}"
            example = columns[0]
        else:
            reason = f"is no cell of {', '.join(self.columns)}"
            example = self.columns[0]
        raise TableError(f"the {kind} {reason}; say which column is asked by, as in {example}=...")

    def _media_columns(self, file: str, base: Path) -> list[str]:
        """Return the media columns that read such a file."""
        cells = pa.chunked_array([pa.array([file])])
        source = Source("query", base.absolute())
        columns = []
        for column in self.columns:
            modality = self.modality(column)
            if modality.media and modality.matches(cells, source):
                columns.append(column)
        return columns

    def gallery(self, column: str | None, query_columns: Sequence[str]) -> str:
        """Return the column that is searched: `column`, or the only one that the query has no cell of.

        Raises `TableError` for an unknown column, or if more than one could be searched.
        """
        if column is not None:
            if column not in self.columns:
                raise TableError(f"no aligned column '{column}' to search: {nearest(column, self.columns)}")
            return column
        candidates = [name for name in self.columns if name not in query_columns]
        if len(candidates) != 1:
            names = ", ".join(candidates or self.columns)
            raise TableError(f"which column is to be searched? One of {names}")
        return candidates[0]

    def mixed(self, query_KD: np.ndarray) -> np.ndarray:
        """Return one vector (D,) for the vectors of a query's K columns, zeros where it has none."""
        return self.task.query(query_KD)

    def score(self, query_KD: np.ndarray, column: str) -> Score | None:
        """Return a score of candidates' vectors in `column`, or None where the cosine is the score.

        If the objective compares complete rows, no single vector stands for a query of two cells or more.
        """
        cells = int((query_KD != 0).any(1).sum())
        if not self.task.compares_whole_rows or cells < 2:
            return None
        number = self.columns.index(column)

        def score_candidates(candidates_ND: np.ndarray) -> np.ndarray:
            """Return the similarity (N,) of the query's cells with each candidate."""
            rows_NKD = np.repeat(query_KD[None], len(candidates_ND), 0).astype(np.float32)
            rows_NKD[:, number] = candidates_ND
            similarity_N = self.task.similarity(torch.from_numpy(rows_NKD))
            return similarity_N.detach().numpy()

        return score_candidates

    def labels(
        self, labels: Sequence[str], templates: Sequence[str], column: str | None = None
    ) -> np.ndarray:
        """Return a vector of length 1 for each label (labels, width): the mean over its templates.

        `column` names the text column if there are several. Raises `RecipeError` for a template without `{}`,
        for a label that the model cannot read, and where there are no labels or templates.
        """
        if not labels or not templates:
            raise RecipeError("expected one label or more, and one template or more")
        column = self._text_column(column)
        for template in templates:
            if "{}" not in template:
                raise RecipeError(
                    f"template '{template}': expected {{}} where the label goes, as in 'a photo of {{}}'"
                )

        # One row for each label and template: all texts are encoded at once.
        rows = []
        for label in labels:
            for template in templates:
                text = template.replace("{}", label)
                rows.append({column: text})
        vectors, _ = self.vectors(read(rows), self.cells)

        number = self.columns.index(column)
        by_template = vectors[:, number].reshape(len(labels), len(templates), -1)
        mean_LD = by_template.mean(1)
        length_L1 = np.linalg.norm(mean_LD, axis=1, keepdims=True)
        if (length_L1 == 0).any():
            unreadable = labels[int(np.argmin(length_L1))]
            raise RecipeError(f"label '{unreadable}' has no word that the model can read")
        unit_LD: np.ndarray = mean_LD / length_L1
        return unit_LD

    def _text_column(self, column: str | None) -> str:
        """Return the text column that labels are encoded as. Raises `RecipeError` if it must be named."""
        texts = self.texts
        if column is None and len(texts) != 1:
            names = ", ".join(texts) or "this model aligns none"
            raise RecipeError(f"labels are texts: say which text column they are like: {names}")
        if column is not None and column not in texts:
            raise RecipeError(f"no aligned text column '{column}': {nearest(column, texts)}")
        return column or texts[0]

    def classify(
        self,
        cells_ND: np.ndarray,
        labels: Sequence[str],
        label_LD: np.ndarray,
        thresholds: Mapping[str, float],
    ) -> dict[str, pa.Array]:
        """Return the nearest label of each cell, of those labels whose cosine reaches their threshold.

        `label` is null where none does, or where the cell is missing. `cosine` is that of the nearest label.
        `label_probability_<label>` is a softmax of the cosines, at the temperature that training learned.
        """
        cosine_NL = cells_ND @ label_LD.T
        is_absent_N = ~cells_ND.any(1)
        logits_NL = torch.from_numpy(cosine_NL) * float(self.task.scale.detach())
        probability_NL = logits_NL.softmax(1).numpy().astype(np.float64)

        # The most probable label may miss its threshold while another one reaches a lower one.
        threshold_L = np.array([thresholds.get(label, -np.inf) for label in labels])
        reaches_NL = cosine_NL >= threshold_L
        best_N = np.where(reaches_NL, cosine_NL, -np.inf).argmax(1)
        has_no_label_N = is_absent_N | ~reaches_NL.any(1)
        label_N = np.array(labels, dtype=object)[best_N]

        max_cosine_N = cosine_NL.max(1).astype(np.float64)
        answers = {
            "label": pa.array(label_N, pa.string(), mask=has_no_label_N),
            "cosine": pa.array(max_cosine_N, mask=is_absent_N),
        }
        for number, label in enumerate(labels):
            probability_N = probability_NL[:, number]
            answers[f"label_probability_{label}"] = pa.array(probability_N, mask=is_absent_N)
        return answers


def _names_media(text: str) -> bool:
    """Return whether a text ends as the names of media files do: `image/png` is of the modality image."""
    media_type, _ = mimetypes.guess_type(text)
    kind = (media_type or "").split("/")[0]
    return kind in modalities.names() and modalities.find(kind).media
