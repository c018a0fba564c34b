"""A trained model: it predicts, evaluates, embeds, searches, and classifies by labels that it was not
trained for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from plait.console import Screen
from plait.data.prepare import store
from plait.ensemble import ensemble
from plait.ensemble.view import settings_as
from plait.errors import RecipeError, TableError, nearest
from plait.evaluation import scores
from plait.evaluation.scores import Evaluation
from plait.prediction import answers, artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Answering, Predictor, Rows
from plait.retrieval.index import About, Index, exists, plain_columns
from plait.retrieval.space import Space
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.read import folder_of_files, read
from plait.table.schema import origin
from plait.table.table import Table


class Model:
    """A trained model.

    `folder` is where it lies, `recipe` what was asked for, `plan` what was decided, `record` its scores.
    `network` predicts with the recipe's own network, `answering` with all members of an ensemble.
    """

    def __init__(self, trained: Artifact, folder: Path, quiet: bool = False) -> None:
        self.folder, self.record = folder, trained.record
        self.plan, self.recipe, self.schema = trained.plan, trained.plan.recipe, trained.plan.schema
        self.artifact = trained
        self._screen = Screen(quiet)
        settings = settings_as(trained.record.get("environment", {}), trained.plan, trained.preprocessing)
        self.network = Predictor(trained.model, trained.preprocessing, settings, trained.plan)
        self.answering: Answering = ensemble.load(folder, trained, self.network) or self.network

    def answer_with(self, answering: Answering) -> None:
        """Answer with an ensemble from now on."""
        self.answering = answering

    @property
    def targets(self) -> list[str]:
        return self.plan.targets

    @property
    def alignments(self) -> dict[str, list[str]]:
        """The columns that each alignment has put into one space."""
        return self.plan.alignments

    @property
    def inputs(self) -> list[str]:
        return list(self.plan.columns)

    def predict(self, data: object, root: str | Path | None = None, keep: bool = False) -> pa.Table:
        """An answer for each row of a table (see `plait.fit` for what a table can be), one dict or a
        list of dicts. With `keep` the table's own columns come first, so that the answers can be
        another model's inputs; an answer whose name they have is called `<name>_answer`.

        Returns the same number of rows in the same order: id columns as they came, then for each target
        its answer under its own name and more about it (`label_probability_cat`), then `problem`: null,
        or which cells could not be read; those count as missing. Any subset of the inputs will do.
        Raises `TableError` when none of them is there.
        """
        table = read(data, root)
        with self._screen.bar("predicting", len(table)) as bar, store(self._screen, table) as cells:
            answered, problems = answers.predict(
                self.answering, self.schema, table, self._screen.warn, bar.advance, cells
            )
        check.tell(problems, self._screen.warn)
        return answers.beside(table.data, answered, self.schema.of("id")) if keep else answered

    def embed(
        self,
        data: object,
        root: str | Path | None = None,
        column: str | None = None,
        alignment: str | None = None,
    ) -> np.ndarray:
        """The network's fused vector of each row, float32 of shape (rows, width); or, of a model that
        aligns columns, with `column` that column's vectors in their space, of length 1, zero where the
        row lacks it. A model without a target gives the mean of a row's vectors, of length 1, when no
        column is named. `alignment` says which, where the model has several, here and below.
        """
        table = read(data, root)
        if column is None and alignment is None and self.targets:
            with store(self._screen, table) as cells:
                return answers.embed(self.network, table, self._screen.warn, cells)
        space = Space.of(self.network, alignment)
        vectors, _ = self._vectors(space, table)
        if column is not None:
            return vectors[:, space.columns.index(space.gallery(column, ()))]
        return np.stack([space.mixed(row) for row in vectors]) if len(vectors) else vectors[:, 0]

    def index(
        self,
        data: object = None,
        place: str | Path | None = None,
        root: str | Path | None = None,
        alignment: str | None = None,
    ) -> Index:
        """The index that lies in `place`, a folder or an address such as `s3://...` (by default `index`
        in the model's folder), with the rows of `data` added to it; it is made when there is none. A
        row whose id is there already takes that row's place. Raises `TableError` for an index that
        another model made, or another alignment of this one.
        """
        space = Space.of(self.network, alignment)
        names = [part for part in ("index", space.own) if part]
        place, model = (
            place or self.folder / "-".join(names),
            ":".join([artifact.identity(self.folder), *names[1:]]),
        )
        if data is None:
            return Index.open(place, model)
        table = read(data, root)
        opened = Index.open(place, model) if exists(place) else None
        vectors, _ = self._vectors(space, table)
        plain = plain_columns(table.data)
        if opened is None:
            ids = [c for c in self.schema.of("id") if c in plain.column_names]
            about = About(model, tuple(space.columns), space.task.width, ids[0] if ids else None)
            opened = Index.create(place, about, plain.schema)
        total = opened.add(plain, vectors)
        rough = opened.settle()
        how = ", ".join(f"{c} {opened.recall(c):.2f}" for c in space.columns) if rough else ""
        how = (
            f"approximate: of the ten nearest, the share that is found, by 20 rows: {how}"
            if rough
            else "exact"
        )
        self._screen.say(
            f"{len(table):,} rows added to {place}: {total:,} rows, searched by {', '.join(space.columns)}; "
            f"{how}"
        )
        return opened

    def search(
        self,
        query: str | Mapping[str, object],
        k: int = 10,
        column: str | None = None,
        where: str | None = None,
        index: str | Path | Index | None = None,
        root: str | Path | None = None,
        exact: bool = False,
        alignment: str | None = None,
    ) -> pa.Table:
        """The `k` rows of an index (see `index`) whose cell in `column` goes best with the query: a
        text, a file's path, or `{column: cell}` with one or more cells. `score` comes first, the larger
        the better, then the rows' own columns.

        `where` is a condition on these (SQL, as in "price < 10"). Large indices are searched
        approximately unless `exact`.
        """
        space = Space.of(self.network, alignment)
        given_KD, given = space.query(query, root)
        wanted = space.gallery(column, given)
        opened = index if isinstance(index, Index) else self.index(place=index, alignment=alignment)
        return opened.search(space.mixed(given_KD), wanted, k, where, exact, space.score(given_KD, wanted))

    def asked(self, texts: Sequence[str], alignment: str | None = None) -> str | dict[str, str]:
        """A query as the command line has it: one cell, or `column=cell` for each of some."""
        columns = Space.of(self.network, alignment).columns
        parts = [text.partition("=") for text in texts]
        if all(sign and name in columns for name, sign, _ in parts):
            return {name: cell for name, _, cell in parts}
        if len(texts) > 1:
            raise RecipeError(
                f"expected one text or file, or column=cell for each, with columns among "
                f"{', '.join(columns)}; got {' '.join(texts)}"
            )
        return texts[0]

    def classify(
        self,
        data: object,
        labels: Sequence[str],
        column: str | None = None,
        templates: Sequence[str] = ("{}",),
        thresholds: Mapping[str, float] | float | None = None,
        text: str | None = None,
        root: str | Path | None = None,
        alignment: str | None = None,
    ) -> pa.Table:
        """Which of some labels fits each cell of `column` best, though none was trained for: the label
        whose text, in each of the `templates` ("a photo of {}"), lies nearest to it. `data` is a table,
        or a folder of files.

        Returns ids, `label` (null where the cosine is below `thresholds`, one for all or by label),
        `cosine`, each label's probability, and `problem`. `text` names the text column that labels are
        like, where there are several.
        """
        space = Space.of(self.network, alignment)
        column = space.gallery(column, space.texts)
        folder = Path(data) if isinstance(data, (str, Path)) and Path(data).is_dir() else None
        table = folder_of_files(folder, column) if folder else read(data, root)
        table.column(origin(column, table.data.column_names))
        label_LD = space.labels(labels, templates, text)
        wanted = (
            dict.fromkeys(labels, float(thresholds))
            if isinstance(thresholds, (int, float))
            else dict(thresholds or {})
        )
        if wrong := [label for label in wanted if label not in labels]:
            raise RecipeError(f"a threshold for '{wrong[0]}': {nearest(wrong[0], labels)}")
        vectors, problems = self._vectors(space, table, columns=[column])
        classified = space.classify(vectors[:, space.columns.index(column)], labels, label_LD, wanted)
        shown = {column: table.data.column(column)} if folder else {}
        return answers.assemble({**shown, **classified}, problems, self.schema, table)

    def _vectors(
        self, space: Space, table: Table, columns: Sequence[str] = ()
    ) -> tuple[np.ndarray, list[Problem]]:
        """Vectors of all rows in the space of an alignment, and the cells that could not be read, which
        are warned of. Only `columns` are expected to be there, if any are named.
        """
        if not columns:
            answers.check_columns(self.network, table, self._screen.warn)
        with self._screen.bar("computing vectors", len(table)) as bar, store(self._screen, table) as cells:
            vectors, problems = space.vectors(table, cells, bar.advance)
        check.tell(problems, self._screen.warn)
        return vectors, problems

    def evaluate(self, data: object, root: str | Path | None = None, subsets: bool = True) -> Evaluation:
        """Metrics with 95 % bootstrap intervals on labelled rows, beside the best guess without inputs,
        and the main metric for every subset of the inputs (with more than four, for each alone and all
        but each; with more than 50, all numbers, categories and dates count as one).

        Raises `TableError` when the table has no target column, or no labelled row.
        """
        table = read(data, root)
        labels = list(self.plan.labels.values())
        if not self.alignments and not any(c in table.data.column_names for c in labels):
            table.column(labels[0])
        given = answers.check_columns(self.answering, table, self._screen.warn)
        with (
            self._screen.bar("reading cells", len(table) * len(self.inputs)) as bar,
            store(self._screen, table) as cells,
        ):
            rows = self.answering.prepare(table, store=cells, progress=bar.advance)
        check.tell(rows.prepared.problems, self._screen.warn)
        return self.score(self.answering, rows, table.name, subsets, given)

    def score(
        self,
        answering: Answering,
        rows: Rows,
        name: str,
        subsets: bool = True,
        given: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score what answers on rows that are prepared already; see `evaluate`."""
        labels = rows.prepared.batch.labelled
        if not any(bool(labels[t][rows.rows].any()) for t in labels):
            raise TableError(f"{name}: no row has a label of {' or '.join(labels)} that the model knows")
        plain = {c for c, modality in self.artifact.preprocessing.inputs.items() if modality.tabular}
        with self._screen.bar("evaluating", len(rows)) as bar:
            return scores.evaluate(
                answering, rows, self.record["priors"], name, subsets, bar.advance, given, plain
            )


def thresholds(texts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """`0.2` for all labels, `a cat=0.3` for one; the later word counts. Raises `RecipeError`."""
    found: dict[str, float] = {}
    for text in texts:
        label, _, number = text.rpartition("=")
        try:
            found |= {label: float(number)} if label else dict.fromkeys(labels, float(number))
        except ValueError:
            raise RecipeError(f"threshold '{text}': expected a number, or label=number") from None
    return found


def load(folder: str | Path, quiet: bool = False) -> Model:
    """The trained model in a folder. Runs no code from it. Raises `ArtifactError` when it is none."""
    return Model(artifact.load(folder), Path(folder), quiet)
