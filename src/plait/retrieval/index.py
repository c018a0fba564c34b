"""An index on disk: the vectors of a table's rows beside its plain columns, to be searched by vectors
and filtered by columns.

It is a LanceDB table, embedded, in a folder or under the address of an object store.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from plait.errors import RecipeError, TableError, nearest
from plait.table.json import JSON

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

NAME = "rows"  # of the table in the database


ROW = "row"  # counts the rows in the order in which they came


APPROXIMATE = 50_000  # rows from which on a search does not look at all of them


PROBES, REFINED = (
    40,
    10,
    # parts of an approximate index that are searched; candidates whose own vectors are compared, for each
    # one asked for
)


RESCORED = 50  # candidates for each one asked for where a score of another kind orders them


WRITTEN = 20_000  # rows in one batch


Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class About:
    """What an index says of itself: the model that made its vectors, the columns that they are of,
    their width, and the tables' id column.
    """

    model: str
    columns: tuple[str, ...]
    width: int
    id: str | None = None


class Index:
    """Rows that can be searched. `about` says what is in it."""

    def __init__(self, table: Table, about: About) -> None:
        self._table, self.about = table, about

    @classmethod
    def create(cls, place: str | Path, about: About, plain: pa.Schema) -> Index:
        """A new, empty index in a folder or under an address such as `s3://...`. `plain` are the
        columns beside vectors.

        Raises `TableError` when there is one already.
        """
        database, made = _connect(place)
        if made:
            raise TableError(f"'{place}' holds an index already; add to it, or choose another place")
        vector = pa.list_(pa.float32(), about.width)
        fields = [
            pa.field(ROW, pa.int64()),
            *plain,
            *(pa.field(_vector(i), vector) for i in range(len(about.columns))),
        ]
        said = {
            "plait": json.dumps(
                {"model": about.model, "columns": about.columns, "width": about.width, "id": about.id}
            )
        }
        return cls(database.create_table(NAME, schema=pa.schema(fields, metadata=said)), about)

    @classmethod
    def open(cls, place: str | Path, model: str) -> Index:
        """The index in a folder or under an address. Raises `TableError` when there is none, or when
        another model made it.
        """
        if "://" not in str(place) and not Path(place).is_dir():
            raise TableError(f"no index '{place}'; make one with: plait index RUN TABLE --index {place}")
        database, made = _connect(place)
        if not made:
            raise TableError(f"'{place}' holds no index of plait")
        table = database.open_table(NAME)
        said = json.loads((table.schema.metadata or {}).get(b"plait", b"{}"))
        if said.get("model") != model:
            raise TableError(
                f"the index '{place}' was made by another model; vectors of two models cannot be compared"
            )
        return cls(table, About(said["model"], tuple(said["columns"]), said["width"], said["id"]))

    def __len__(self) -> int:
        return int(self._table.count_rows())

    @property
    def plain(self) -> list[str]:
        """The names of the columns beside vectors."""
        return [name for name in self._table.schema.names if not name.startswith(_VECTOR)]

    def add(self, rows: pa.Table, vectors: np.ndarray) -> int:
        """Adds rows with their vectors, (rows, columns, width), zeros where a row lacks a column; where
        the tables have an id column, a row takes the place of the one with the same id. Returns how
        many there are now.
        """
        first = len(self) and 1 + int(
            self._table.search().select([ROW]).limit(len(self)).to_arrow()[ROW].to_numpy().max()
        )
        schema = self._table.schema
        key = self.about.id if self.about.id in rows.column_names and len(self) else None
        for start in range(0, len(vectors), WRITTEN):
            part, some = rows.slice(start, WRITTEN), vectors[start : start + WRITTEN]
            found: JSON = {ROW: pa.array(np.arange(first + start, first + start + len(some)))}
            for name in schema.names:
                if name in part.column_names and name != ROW:
                    found[name] = _cast(part.column(name), schema.field(name))
            for i in range(len(self.about.columns)):
                flat = pa.array(np.ascontiguousarray(some[:, i], dtype=np.float32).reshape(-1))
                absent = pa.array(~some[:, i].any(1))
                found[_vector(i)] = pa.FixedSizeListArray.from_arrays(flat, self.about.width, mask=absent)
            whole = {
                n: found[n] if n in found else pa.nulls(len(some), schema.field(n).type) for n in schema.names
            }
            batch = pa.table(whole, schema=schema)
            if key:
                self._table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(
                    batch
                )
            else:
                self._table.add(batch)
        return len(self)

    def delete(self, where: str) -> int:
        """Deletes the rows of which this condition (SQL, on plain columns) is true. Returns how many
        there were.
        """
        before = len(self)
        with _conditions(self, where):
            self._table.delete(where)
        return before - len(self)

    def settle(self) -> bool:
        """Makes an approximate index of large tables, or brings it up to date; True when there is one.
        Call it after the last `add`.
        """
        if len(self) < APPROXIMATE:
            return False
        from lancedb.index import IvfRq

        known = {c for index in self._table.list_indices() for c in index.columns}
        for i in range(len(self.about.columns)):
            if _vector(i) not in known:
                self._table.create_index(_vector(i), config=IvfRq(distance_type="cosine"))
        self._table.optimize()
        return True

    def recall(self, column: str, queries: int = 20, k: int = 10) -> float:
        """The share of the `k` truly nearest rows that an approximate search finds, for some of the
        index's own rows as queries.
        """
        name = _vector(self.about.columns.index(column))
        offsets = np.unique(np.linspace(0, len(self) - 1, queries).astype(int))
        asked = (
            self._table.take_offsets(offsets.tolist()).select([name]).to_arrow()[name].drop_null().to_pylist()
        )
        found = 0.0
        for vector in asked:
            rough, exact = (
                {*self._nearest(np.array(vector), name, k, exact)[ROW].to_pylist()} for exact in (False, True)
            )
            found += len(rough & exact) / len(exact)
        return found / max(len(asked), 1)

    def _nearest(
        self,
        vector: np.ndarray,
        name: str,
        k: int,
        exact: bool,
        where: str | None = None,
        more: Sequence[str] = (),
    ) -> pa.Table:
        """The rows whose vectors are nearest by the cosine, with their `_distance`."""
        query = (
            self._table.search(vector.astype(np.float32), vector_column_name=name)
            .distance_type("cosine")
            .limit(max(k, 1))
        )
        query = query.bypass_vector_index() if exact else query.nprobes(PROBES).refine_factor(REFINED)
        if where:
            query = query.where(where)
        with _conditions(self, where):
            return query.select([*self.plain, "_distance", *more]).to_arrow()

    def search(
        self,
        vector: np.ndarray,
        column: str,
        k: int = 10,
        where: str | None = None,
        exact: bool = False,
        score: Score | None = None,
    ) -> pa.Table:
        """The `k` rows whose vector of `column` is nearest by the cosine: `score`, the larger the
        nearer, and the plain columns.

        Exact in tables of fewer than 50,000 rows, or when asked for. `where` is a condition on plain
        columns (SQL). With `score`, a function of vectors (n, width), the nearest by the cosine are
        ordered anew by it.
        """
        if column not in self.about.columns:
            raise TableError(f"the index has no vectors of '{column}': {nearest(column, self.about.columns)}")
        name = _vector(self.about.columns.index(column))
        wanted = min(k * RESCORED, len(self)) if score else k
        found = self._nearest(vector, name, wanted, exact, where, [name] if score else [])
        scores = 1 - found["_distance"].to_numpy()
        if score:
            flat = found[name].combine_chunks()
            scores = score(np.asarray(flat.flatten()).reshape(len(flat), self.about.width))
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]
        plain = found.select([n for n in self.plain if n != ROW]).take(pa.array(order))
        return plain.add_column(0, "score", pa.array(scores[order].astype(np.float64)))


_VECTOR = "vector_"


def _vector(number: int) -> str:
    return f"{_VECTOR}{number}"


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TableError(
            f"column '{field.name}' of the index holds {field.type}, the rows to add have {column.type}: "
            f"{error}"
        ) from error


def plain_columns(table: pa.Table) -> pa.Table:
    """The columns of a table that an index keeps beside vectors: all but bytes and nested ones. Dots in
    names become underscores, and names that the index needs get one more.
    """
    kept = {}
    for name in table.column_names:
        column = table.column(name)
        if (
            pa.types.is_nested(column.type)
            or pa.types.is_binary(column.type)
            or pa.types.is_large_binary(column.type)
        ):
            continue
        if pa.types.is_null(column.type):
            column = column.cast(pa.string())
        safe = name.replace(".", "_")
        kept[f"{safe}_" if safe in (ROW, "score", "_distance") or safe.startswith(_VECTOR) else safe] = column
    return pa.table(kept)


def exists(place: str | Path) -> bool:
    """Whether there is an index in a folder or under an address."""
    return ("://" in str(place) or Path(place).is_dir()) and _connect(place)[1]


class _conditions:
    """What LanceDB raises for a wrong condition, in plait's words."""

    def __init__(self, index: Index, where: str | None) -> None:
        self.index, self.where = index, where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.where and isinstance(error, (ValueError, RuntimeError, OSError)):
            text = str(error).splitlines()[0]
            raise TableError(
                f"where '{self.where}' cannot be used: {text}. The index has the columns "
                f"{', '.join(c for c in self.index.plain if c != ROW)}; "
                f"texts stand in single quotes, as in style = 'photo' AND price < 10"
            ) from error


def _connect(place: str | Path) -> tuple[DBConnection, bool]:
    """The database in a folder or under an address, and whether it holds an index. Raises `TableError`
    when it cannot be reached.
    """
    try:
        lancedb = importlib.import_module("lancedb")
    except ModuleNotFoundError as error:
        raise RecipeError("an index needs the package lancedb: pip install 'plait[retrieval]'") from error
    try:
        database = lancedb.connect(str(place))
        return database, NAME in database.list_tables().tables
    except (ValueError, RuntimeError, OSError) as error:
        said = re.findall(r"<Message>(.*?)</Message>|message: \"(.*?)\"", str(error))
        reason = "; ".join(a or b for a, b in said) or str(error)[:300]
        raise TableError(
            f"'{place}' cannot be reached: {reason}. Object stores are told their keys and endpoint by the "
            f"environment, as in AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION and, where it is not Amazon's, AWS_ENDPOINT"
        ) from error
