"""An index on disk: the vectors of a table's rows beside its plain columns.

It is searched by vectors and filtered by plain columns. It is a LanceDB table, embedded, in a folder or
under the address of an object store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from plait.console import command
from plait.errors import TableError, nearest
from plait.retrieval.database import NAME, connect, explained_conditions
from plait.retrieval.rows import CONTENT, FOLDER, HIDDEN, ROW, VECTOR
from plait.retrieval.seal import Seal

if TYPE_CHECKING:
    from lancedb.table import Table

APPROXIMATE = 50_000  # rows from which on a search is approximate
PROBES = 40  # partitions of an approximate index that a search reads
REFINED = 10  # candidates for each row of the answer whose exact vectors are compared
RESCORED = 50  # candidates for each row of the answer that another score orders
WRITTEN = 20_000  # rows in one batch

Score = Callable[[np.ndarray], np.ndarray]  # from vectors (N, D) to (N,); the larger, the nearer


@dataclass(frozen=True)
class About:
    """The description that an index keeps of itself."""

    model: str  # the identity of the model that made its vectors
    columns: tuple[str, ...]  # that the vectors stand for
    width: int  # of the vectors
    id: str | None = None  # the id column of the tables


_ABOUT = TypeAdapter(About)


class Index:
    """Rows that can be searched by their vectors. `about` describes them."""

    def __init__(self, table: Table, description: About, seal: Seal) -> None:
        self._table = table
        self._seal = seal
        self.about = description

    @classmethod
    def create(cls, address: str | Path, description: About, plain: pa.Schema) -> Index:
        """Create an empty index in a folder or under an address such as `s3://...`.

        `plain` are the columns beside vectors. Raises `TableError` if there is an index already.
        """
        seal = Seal(address)
        seal.check_place()
        database, has_index = connect(address)
        if has_index:
            raise TableError(f"'{address}' holds an index already; add to it, or choose another place")

        vector_type = pa.list_(pa.float32(), description.width)
        fields = [pa.field(ROW, pa.int64()), *plain, pa.field(FOLDER, pa.string())]
        if description.id is None:
            fields.append(pa.field(CONTENT, pa.string()))
        for number in range(len(description.columns)):
            fields.append(pa.field(_vector(number), vector_type))
        schema = pa.schema(fields, metadata={"plait": json.dumps(asdict(description))})
        table = database.create_table(NAME, schema=schema)
        seal.renew(table)
        return cls(table, description, seal)

    @classmethod
    def open(cls, address: str | Path, model: str) -> Index:
        """Open the index in a folder or under an address.

        Raises `TableError` if there is none, or if another model made it, and `ArtifactError` if it is
        damaged.
        """
        if "://" not in str(address) and not Path(address).is_dir():
            raise TableError(
                f"no index '{address}'; make one with: {command('index', 'RUN', 'TABLE', '--index', address)}"
            )
        database, has_index = connect(address)
        if not has_index:
            raise TableError(f"'{address}' holds no index of plait")

        # The files are verified first: LanceDB itself believes what it reads.
        seal = Seal(address)
        seal.verify()
        table = database.open_table(NAME)
        seal.roll_back(table)
        description = _description(table, address)
        if description.model != model:
            raise TableError(
                f"the index '{address}' was made by another model; vectors of two models cannot be compared"
            )
        return cls(table, description, seal)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._table.count_rows())

    @property
    def plain(self) -> list[str]:
        """The names of the columns beside vectors."""
        names = []
        for name in self._table.schema.names:
            if name not in HIDDEN and not name.startswith(VECTOR):
                names.append(name)
        return names

    @property
    def _condition_columns(self) -> list[str]:
        """The columns that conditions are meant for: all plain ones but the number of a row."""
        return [name for name in self.plain if name != ROW]

    def row(self, number: int) -> dict[str, object]:
        """Return the plain cells of the row with a number, and the folder that its paths start from.

        Nothing is returned for a row that is not there.
        """
        names = [*self.plain, FOLDER] if FOLDER in self._table.schema.names else self.plain
        query = self._table.search().where(f"{ROW} = {number:d}").select(names).limit(1)
        rows: list[dict[str, object]] = query.to_arrow().to_pylist()
        return rows[0] if rows else {}

    def add(self, rows: pa.Table, vectors: np.ndarray) -> int:
        """Add rows with their vectors, and return the number of rows that the index has then.

        `vectors` (rows, columns, width) has zeros where a row lacks a column. If the tables have an id
        column, a row replaces the row with the same id. Otherwise it replaces the row with the same content,
        if `rows` has the column `CONTENT` (see `content_ids`). If this is interrupted, no row is added.
        """
        with self._seal.changing(self._table):
            self._add(rows, vectors)
        return len(self)

    def _add(self, rows: pa.Table, vectors: np.ndarray) -> None:
        """Add rows in batches. A row replaces the one with its id, or with its content."""
        first = self._next_row()
        key = self.about.id or CONTENT

        # Merging is slower than appending, and an empty index has no row to replace.
        may_replace = key in rows.column_names and key in self._table.schema.names and len(self) > 0
        for start in range(0, len(vectors), WRITTEN):
            end = start + WRITTEN
            batch = self._batch(rows.slice(start, WRITTEN), vectors[start:end], first + start)
            if may_replace:
                merge = self._table.merge_insert(key)
                merge.when_matched_update_all().when_not_matched_insert_all().execute(batch)
            else:
                self._table.add(batch)

    def _next_row(self) -> int:
        """Return the number of the next row that is added."""
        if not len(self):
            return 0
        query = self._table.search().select([ROW]).limit(len(self))
        numbers = query.to_arrow()[ROW].to_numpy()
        return 1 + int(numbers.max())

    def _batch(self, rows: pa.Table, vectors: np.ndarray, first: int) -> pa.Table:
        """Return rows as the index stores them, numbered from `first`. Columns that they lack are null."""
        schema = self._table.schema
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for name in schema.names:
            field = schema.field(name)
            if name in rows.column_names and name != ROW:
                columns[name] = _cast(rows.column(name), field)
            else:
                columns[name] = pa.nulls(len(vectors), field.type)
        columns[ROW] = pa.array(np.arange(first, first + len(vectors)))

        # A missing cell has a vector of zeros, which is null in the index: no search finds it.
        for number in range(len(self.about.columns)):
            column_vectors = np.ascontiguousarray(vectors[:, number], dtype=np.float32)
            flat = pa.array(column_vectors.reshape(-1))
            is_absent = pa.array(~column_vectors.any(1))
            vector_column = pa.FixedSizeListArray.from_arrays(flat, self.about.width, mask=is_absent)
            columns[_vector(number)] = vector_column
        return pa.table(columns, schema=schema)

    def delete(self, where: str) -> int:
        """Delete the rows for which a condition (SQL, on plain columns) is true. Return their number."""
        with self._seal.changing(self._table):
            before = len(self)
            with explained_conditions(where, self._condition_columns):
                self._table.delete(where)
        return before - len(self)

    def settle(self) -> bool:
        """Build the approximate index of a large table, or update it. Call it after the last `add`.

        Return whether there is an approximate index.
        """
        if len(self) < APPROXIMATE:
            return False
        with self._seal.changing(self._table):
            self._build()
        return True

    def _build(self) -> None:
        from lancedb.index import IvfRq

        indexed: set[str] = set()
        for index in self._table.list_indices():
            indexed.update(index.columns)
        for number in range(len(self.about.columns)):
            if _vector(number) not in indexed:
                self._table.create_index(_vector(number), config=IvfRq(distance_type="cosine"))
        self._table.optimize()

    def recall(self, column: str, queries: int = 20, k: int = 10) -> float:
        """Return the share of the `k` nearest rows that an approximate search returns.

        The queries are rows of the index, spread evenly.
        """
        name = _vector(self.about.columns.index(column))
        offsets = np.linspace(0, len(self) - 1, queries).astype(int)
        distinct = np.unique(offsets).tolist()
        rows = self._table.take_offsets(distinct).select([name]).to_arrow()
        vectors = rows[name].drop_null().to_pylist()

        recalls = 0.0
        for vector in vectors:
            approximate = self._nearest(np.array(vector), name, k, exact=False)
            exact = self._nearest(np.array(vector), name, k, exact=True)
            approximate_rows = set(approximate[ROW].to_pylist())
            exact_rows = set(exact[ROW].to_pylist())
            recalls += len(approximate_rows & exact_rows) / len(exact_rows)
        return recalls / max(len(vectors), 1)

    def _nearest(
        self,
        vector: np.ndarray,
        name: str,
        k: int,
        exact: bool,
        where: str | None = None,
        extra_columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return the rows whose vectors are nearest by the cosine, with their `_distance`."""
        # With `refine_factor`, exact vectors order the candidates that compressed ones find.
        query = (
            self._table.search(vector.astype(np.float32), vector_column_name=name)
            .distance_type("cosine")
            .limit(max(k, 1))
        )
        if exact:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(PROBES).refine_factor(REFINED)
        if where:
            query = query.where(where)
        with explained_conditions(where, self._condition_columns):
            return query.select([*self.plain, "_distance", *extra_columns]).to_arrow()

    def search(
        self,
        vector: np.ndarray,
        column: str,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
        score: Score | None = None,
        numbered: bool = False,
    ) -> pa.Table:
        """Return the `k` rows whose vector of `column` is nearest to `vector` (width,) by the cosine.

        The column `score` comes first, the larger the nearer, then the plain columns. The search is exact in
        tables of fewer than `APPROXIMATE` rows, or with `exact`. `where` is a condition on plain columns
        (SQL). `score` is a function of vectors (N, width): it orders the candidates that the cosine finds.
        With `numbered` the rows' numbers in the index come too, in the column `row`.
        """
        if column not in self.about.columns:
            raise TableError(f"the index has no vectors of '{column}': {nearest(column, self.about.columns)}")
        name = _vector(self.about.columns.index(column))
        if score:
            count = min(k * RESCORED, len(self))
            candidates = self._nearest(vector, name, count, exact, where, [name])
            vectors = candidates[name].combine_chunks()
            flat = np.asarray(vectors.flatten())
            scores = score(flat.reshape(len(vectors), self.about.width))
        else:
            candidates = self._nearest(vector, name, k, exact, where)
            scores = 1 - candidates["_distance"].to_numpy()

        # A row without a vector has no finite score.
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]
        names = self.plain if numbered else self._condition_columns
        plain = candidates.select(names).take(pa.array(order))
        score_column = pa.array(scores[order].astype(np.float64))
        return plain.add_column(0, "score", score_column)


def _vector(number: int) -> str:
    """Return the name of the column that holds the vectors of the aligned column of this number."""
    return f"{VECTOR}{number}"


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column in the type that the index has for it. Raises `TableError` if it does not fit."""
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TableError(
            f"column '{field.name}' of the index holds {field.type}, the rows to add have {column.type}: "
            f"{error}"
        ) from error


def _description(table: Table, address: str | Path) -> About:
    """Return what an index says of itself. Raises `TableError` if it is no index of plait."""
    schema_metadata = table.schema.metadata or {}
    try:
        return _ABOUT.validate_json(schema_metadata[b"plait"])
    except (KeyError, ValidationError) as error:
        raise TableError(
            f"'{address}' holds no index of this plait; make it again in another place"
        ) from error
