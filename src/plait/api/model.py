"""A trained model, as users hold it: it predicts, evaluates, embeds, searches and classifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from plait.console import Screen, escaped_cell
from plait.data.image_texts import with_image_texts
from plait.data.prepare import store
from plait.ensemble import ensemble
from plait.errors import RecipeError, TableError, count, nearest
from plait.evaluation import scores
from plait.evaluation.scores import Evaluation, Inputs
from plait.media.cell import Store
from plait.modalities.base import modalities
from plait.nn import device
from plait.prediction import answers, artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Answering, AnsweringTables, Predictor, Rows
from plait.retrieval.database import exists
from plait.retrieval.index import About, Index
from plait.retrieval.rows import CONTENT, FOLDER, content_ids, plain_columns
from plait.retrieval.seal import Seal
from plait.retrieval.space import Space
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.read import FILES, FOLDER_COLUMNS, folder_of_files, read
from plait.table.schema import origin
from plait.table.table import Table


class Model:
    """A trained model.

    `folder` is where it lies, `recipe` what was asked for, `plan` what was decided, `record` its scores.
    `network` predicts with the recipe's own network, `answering` with all members of an ensemble. `cells` is
    the store of prepared media and embeddings; None for the user's cache on the disk.
    """

    def __init__(self, trained: Artifact, folder: Path, quiet: bool = False) -> None:
        self.folder = folder
        self.artifact = trained
        self.record = trained.record
        self.plan = trained.plan
        self.recipe = trained.plan.recipe
        self.schema = trained.plan.schema
        self.cells: Store | None = None
        self._screen = Screen(quiet)
        self.network = _network(trained)
        self.answering: AnsweringTables = ensemble.load(folder, trained, self.network) or self.network

    def __repr__(self) -> str:
        """Say what it answers from what, how well, and where it lies."""
        return f"<plait.Model {escaped_cell(repr(str(self.folder)))}: {self.summary}>"

    @property
    def summary(self) -> str:
        """What it answers from what, and how well, in one line."""
        answers = [*self.targets]
        for name, columns in self.alignments.items():
            answers.append(f"{name} ({' ~ '.join(columns)})")
        inputs = f"{count(len(self.inputs), 'input')} ({scores.listed(self.inputs, ', ')})"
        rows = count(self.record.get("rows", {}).get("train", 0), "training row")
        facts = [f"{', '.join(dict.fromkeys(answers))} from {inputs}", rows, *self._main_scores()]
        return escaped_cell("; ".join(facts))

    def _main_scores(self) -> list[str]:
        """Return the main score of each target, on test rows, or else on validation rows."""
        evaluation = self.record.get("evaluation", {})
        side = "test" if "test" in evaluation else "validation"
        described = []
        for target, target_scores in evaluation.get(side, {}).get("targets", {}).items():
            metric = target_scores["score"]
            value = target_scores["metrics"][metric]["value"]
            described.append(f"{target}: {metric} {value:.3f} on {side} rows")
        return described

    def answer_with(self, answering: AnsweringTables) -> None:
        """Answer with an ensemble from now on."""
        self.answering = answering

    @property
    def targets(self) -> list[str]:
        """The names of the targets."""
        return self.plan.targets

    @property
    def alignments(self) -> dict[str, list[str]]:
        """The columns that each alignment has put into one space."""
        return self.plan.alignments

    @property
    def inputs(self) -> list[str]:
        """The names of the input columns."""
        return list(self.plan.columns)

    def _table(self, data: object, root: str | Path | None) -> Table:
        """Read a table, and warn of how it was read. Files of a folder are cells of the only media column."""
        table = read(data, root)
        for note in table.notes:
            self._screen.warn(note)
        column = self._column_of_files(table.data.column_names)
        if column is None:
            return table
        names = [column if name == FILES else name for name in table.data.column_names]
        return replace(table, data=table.data.rename_columns(names))

    def _column_of_files(self, columns: Sequence[str]) -> str | None:
        """Return the input that a folder's files are cells of; None for a table that is no folder."""
        is_folder = FILES in columns and set(columns) <= set(FOLDER_COLUMNS)
        if not is_folder or FILES in self.plan.columns:
            return None
        names = self.plan.table_columns
        media = set()
        for name, column in self.plan.columns.items():
            if modalities.find(column.modality.name).media:
                media.add(origin(name, names))
        return media.pop() if len(media) == 1 else None

    def predict(self, data: object, root: str | Path | None = None, keep: bool = False) -> pa.Table:
        """Answer each row of a table (see `plait.fit` for what a table can be), one dict or a list of dicts.

        Return the same number of rows in the same order. Id columns come first, as they came. Then comes for
        each target its answer under the target's name, and more about it (`label_probability_cat`). Last
        comes `problem`: null, or which cells could not be read and count as missing.

        Any subset of the inputs will do. With `keep` the table's columns come first, so that the answers can
        be another model's inputs. An answer whose name is that of a column is called `<name>_answer`.

        Raises `TableError` when none of the inputs is there.
        """
        raw = self._table(data, root)
        answered, problems = self.answer(self.typed(raw))
        check.tell(problems, self._screen.warn)
        if not keep:
            return answered
        return answers.beside(raw.data, answered, self.schema.of("id"))

    def answer(self, table: Table) -> tuple[pa.Table, list[Problem]]:
        """Answer each row of a typed table as `predict` does. Return the cells that are problems too."""
        with self._screen.bar("predicting", len(table)) as bar, self._store(table) as cells:
            return answers.predict(self.answering, self.schema, table, self._screen.warn, bar.advance, cells)

    def embed(
        self,
        data: object,
        root: str | Path | None = None,
        column: str | None = None,
        alignment: str | None = None,
    ) -> np.ndarray:
        """Return the network's fused vector of each row, float32 of shape (rows, width).

        For a model that aligns columns, `column` asks for that column's vectors in their space: of length 1,
        or zero where the row lacks it. A model without a target returns the mean of a row's vectors, of
        length 1, if no column is named. `alignment` names one of several alignments, here and below.
        """
        table = self.typed(self._table(data, root))
        if column is None and alignment is None and self.targets:
            with self._store(table) as cells:
                return answers.embed(self.network, table, self._screen.warn, cells)

        space = Space.of(self.network, alignment, self.cells)
        vectors_NKD, _ = self._vectors(space, table)
        if column is not None:
            place = space.columns.index(space.gallery(column, ()))
            return vectors_NKD[:, place]
        if not len(vectors_NKD):
            return vectors_NKD[:, 0]
        return np.stack([space.mixed(row_KD) for row_KD in vectors_NKD])

    def index(
        self,
        data: object = None,
        place: str | Path | None = None,
        root: str | Path | None = None,
        alignment: str | None = None,
    ) -> Index:
        """Add the rows of `data` to an index, which is created if there is none, and return it.

        The index lies in `place`, a folder or an address such as `s3://...`; by default in `index` in the
        model's folder. A row with the id of another one replaces it. In a table without an id column a row
        with the same cells does: adding the same table again adds nothing.

        Raises `TableError` for an index that another model made, or another alignment of this one.
        """
        space = Space.of(self.network, alignment, self.cells)
        address, model = self._index_of(space, place)
        if data is None:
            return Index.open(address, model)

        Seal(address).check_place()
        table = self.typed(self._table(data, root))

        # Open an index of another model before the vectors are computed: it is an error.
        opened = Index.open(address, model) if exists(address) else None
        vectors, _ = self._vectors(space, table)
        plain = plain_columns(table.data)
        if opened is None:
            ids = [name for name in self.schema.of("id") if name in plain.column_names]
            id_column = ids[0] if ids else None
            description = About(model, tuple(space.columns), space.task.width, id_column)
            opened = Index.create(address, description, plain.schema)
        plain = plain.append_column(FOLDER, pa.array([str(table.root)] * len(table), pa.string()))
        if opened.about.id is None:
            plain = plain.append_column(CONTENT, content_ids(table.data))

        total = opened.add(plain, vectors)
        precision = "exact"
        if opened.settle():
            precision = f"approximate: {_recall_line(opened, space.columns)}"
        columns = ", ".join(space.columns)
        self._screen.say(
            f"{count(len(table), 'row')} added to {address}, which has {count(total, 'row')} now, "
            f"searched by {columns}; {precision}"
        )
        return opened

    def _index_of(self, space: Space, place: str | Path | None) -> tuple[str | Path, str]:
        """Return where the index of a space lies, and the identity of what makes its vectors."""
        address = self.folder / "index"
        model = artifact.identity(self.folder)

        # Each of several alignments has an index.
        if space.suffix:
            address = self.folder / f"index-{space.suffix}"
            model = f"{model}:{space.suffix}"
        return place or address, model

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
        numbered: bool = False,
    ) -> pa.Table:
        """Return the `k` rows of an index (see `index`) whose cell in `column` fits the query best.

        A query is a text, a file's path, or `{column: cell}` with one or more cells. The column `score` comes
        first, the larger the better, then the rows' columns. `where` is a condition on these (SQL, as in
        "price < 10"). Large indices are searched approximately unless `exact`. With `numbered` the rows'
        numbers in the index come too, in the column `row`.
        """
        space = Space.of(self.network, alignment, self.cells)
        query_KD, query_columns = space.query(query, root)
        gallery = space.gallery(column, query_columns)
        opened = index if isinstance(index, Index) else self.index(place=index, alignment=alignment)
        score = space.score(query_KD, gallery)
        return opened.search(space.mixed(query_KD), gallery, k, where, exact, score, numbered)

    def parse_query(self, texts: Sequence[str], alignment: str | None = None) -> dict[str, str]:
        """Return the query that the command line's texts stand for: one cell, or `column=cell` for each."""
        space = Space.of(self.network, alignment, self.cells)
        pairs = [text.partition("=") for text in texts]

        # A text may hold an equals sign: only names of columns make it a pair.
        if all(sign and name in space.columns for name, sign, _ in pairs):
            return {name: cell for name, _, cell in pairs}
        if len(texts) > 1:
            raise RecipeError(
                f"expected one text or file, or column=cell for each, with columns among "
                f"{', '.join(space.columns)}; got {' '.join(texts)}"
            )
        return {space.column_of(texts[0]): texts[0]}

    def searched_column(
        self, query: Mapping[str, object], column: str | None = None, alignment: str | None = None
    ) -> str:
        """Return the column that `search` compares a query with: `column`, or the only one left."""
        return Space.of(self.network, alignment, self.cells).gallery(column, list(query))

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
        """Label each cell of `column` with labels that the model was not trained for (zero-shot).

        The label is the one whose text, averaged over the `templates` ("a photo of {}"), is nearest to the
        cell. `data` is a table, or a folder of files. `text` names the text column that labels are like,
        where there are several.

        Return ids, `label` (null where the cosine is below `thresholds`, one for all or by label), `cosine`,
        each label's probability, and `problem`.
        """
        space = Space.of(self.network, alignment, self.cells)
        labels = [labels] if isinstance(labels, str) else labels
        column = space.gallery(column, space.texts)
        shown: dict[str, pa.ChunkedArray] = {}
        if isinstance(data, (str, Path)) and Path(data).is_dir():
            # The rows of a folder are known by their files.
            table = folder_of_files(Path(data), column)
            shown[column] = table.data.column(column)
        else:
            table = self.typed(self._table(data, root))
        table.column(origin(column, table.data.column_names))  # an error if there is none

        label_LD = space.labels(labels, templates, text)
        min_cosine = _min_cosine(thresholds, labels)
        vectors_NKD, problems = self._vectors(space, table, columns=[column])
        vectors_ND = vectors_NKD[:, space.columns.index(column)]
        classified = space.classify(vectors_ND, labels, label_LD, min_cosine)
        return answers.assemble({**shown, **classified}, problems, self.schema, table)

    def typed(self, table: Table) -> Table:
        """Read a table's cells as training wrote them, and warn of values that training has not seen."""
        typed = self.with_texts(self.plan.read(table))
        for warning in self.unseen(typed):
            self._screen.warn(warning)
        return typed

    def with_texts(self, table: Table) -> Table:
        """Add the texts in images to a typed table, where the model reads them."""
        return with_image_texts(table, self.plan.columns, self._screen, cells=self.cells)

    def unseen(self, table: Table) -> list[str]:
        """Return a warning for each column of a typed table with values that training has not seen."""
        warnings = []
        for name, modality in self.artifact.preprocessing.inputs.items():
            if name not in table.data.column_names:
                continue
            cells = table.data.column(name).drop_null()
            unseen = modality.unseen(cells)
            if len(unseen):
                warnings.append(check.unseen(name, unseen, len(cells)))
        return warnings

    def _store(self, table: Table) -> AbstractContextManager[Store | None]:
        """Give the store of prepared cells, or else open the user's cache."""
        return nullcontext(self.cells) if self.cells is not None else store(self._screen, table)

    def _vectors(
        self, space: Space, table: Table, columns: Sequence[str] = ()
    ) -> tuple[np.ndarray, list[Problem]]:
        """Return the vectors (N, K, D) of all rows in a space of K columns, and the cells that are problems.

        Warn of these cells. Warn of absent columns too, unless `columns` names those that must be there.
        """
        if not columns:
            answers.check_columns(self.network, table, self._screen.warn)
        with self._screen.bar("computing vectors", len(table)) as bar, self._store(table) as cells:
            vectors, problems = space.vectors(table, cells, bar.advance)
        check.tell(problems, self._screen.warn)
        return vectors, problems

    def evaluate(self, data: object, root: str | Path | None = None, subsets: bool = True) -> Evaluation:
        """Score the model on labelled rows: metrics with 95 % bootstrap intervals, beside the baseline.

        The main metric is also computed for every subset of the inputs; of more than four inputs, for each
        input and for all but each. With more than 50, all numbers, categories and dates count as one.

        Targets that the table has no label of are left out, with a warning. Raises `TableError` when it has
        no target column, or no labelled row.
        """
        table = self.typed(self._table(data, root))
        label_columns = list(self.plan.labels.values())
        if not self.alignments and not set(label_columns) & set(table.data.column_names):
            table.column(label_columns[0])  # an error that names the nearest column

        in_table = answers.check_columns(self.answering, table, self._screen.warn)
        with (
            self._screen.bar("reading cells", len(table) * len(self.inputs)) as bar,
            self._store(table) as cells,
        ):
            rows = self.answering.prepare(table, store=cells, progress=bar.advance)
        check.tell(rows.prepared.problems, self._screen.warn)
        evaluation = self.score(self.answering, rows, table.name, subsets, in_table)
        unscored = [target for target in self.targets if target not in evaluation.targets]
        if unscored:
            self._screen.warn(f"not scored, because {table.name} has no labels: {', '.join(unscored)}")
        return evaluation

    def score(
        self,
        answering: Answering,
        rows: Rows,
        name: str,
        subsets: bool = True,
        in_table: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score a network or an ensemble on rows that are prepared already; see `evaluate`.

        `in_table` are the inputs that the rows' table has; all if None.
        """
        labelled = rows.prepared.batch.labelled
        if not any(bool(is_labelled[rows.rows].any()) for is_labelled in labelled.values()):
            raise TableError(f"{name}: no row has a label of {' or '.join(labelled)} that the model knows")

        modalities = self.artifact.preprocessing.inputs
        plain = {column for column, modality in modalities.items() if modality.plain}
        inputs = Inputs(subsets, in_table, plain)
        with self._screen.bar("evaluating", len(rows)) as bar:
            return scores.evaluate(answering, rows, self.record["priors"], name, inputs, bar.advance)


def _recall_line(index: Index, columns: Sequence[str]) -> str:
    """Say how exact an approximate search is, in each column."""
    recalls = [f"{column} {index.recall(column):.2f}" for column in columns]
    return f"of the ten nearest, the share that is found, by 20 rows: {', '.join(recalls)}"


def _network(trained: Artifact) -> Predictor:
    """Set up the network to answer, in the precision of its training where this machine has it."""
    convolves = trained.preprocessing.convolves(trained.plan)
    settings = device.settings(trained.plan.recipe.training, convolves)
    settings = device.in_precisions(settings, trained.record.get("environment", {}))
    return Predictor(trained.model, trained.preprocessing, settings, trained.plan)


def _min_cosine(thresholds: Mapping[str, float] | float | None, labels: Sequence[str]) -> dict[str, float]:
    """Return the least cosine of each label that has one. Raises `RecipeError` for an unknown label."""
    if isinstance(thresholds, (int, float)):
        return dict.fromkeys(labels, float(thresholds))
    by_label = dict(thresholds or {})
    for label in by_label:
        if label not in labels:
            raise RecipeError(f"a threshold for '{label}': {nearest(label, labels)}")
    return by_label


def load(folder: str | Path, quiet: bool = False) -> Model:
    """Load the trained model in a folder. Runs no code from it. Raises `ArtifactError` if it is none."""
    trained = artifact.load(folder)
    return Model(trained, Path(folder), quiet)
