"""Categories: one of a few values; a value that training did not see has index 0."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from plait.errors import count
from plait.modalities.base import Match, ValueModality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.bounds import MAX_IDS, MAX_INT32
from plait.recipe.registry import Options
from plait.table.conventions.plain import Plain, as_texts
from plait.table.conventions.truth import Truth
from plait.table.json import JSON, read_as
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import distinct, is_text, words_a_cell


class Config(Options):
    """The `max_values` most frequent values have an index. Those seen fewer than `min_count` times count as
    unseen.
    """

    max_values: int = Field(
        1000,
        ge=1,
        le=MAX_IDS,
        description="values that have a vector of their own, at most; the rarest share one",
    )
    min_count: int = Field(
        1,
        ge=1,
        le=MAX_INT32,
        description="times that a value must be seen in training to have a vector of its own",
    )


class Category(ValueModality):
    """A column of categories.

    A value that training did not see is not missing: it has an index of its own, 0. The encoder learns to
    read it from rare values, and from values that `transform` hides at random.
    """

    options = Config
    encoder = "tabular"
    plain = True
    is_label = True
    may_be_id = True
    conventions = (Plain, Truth)

    def __init__(self, config: Config, values: list[str]) -> None:
        self.config, self.values = config, values
        self.layout = Layout("index", (), len(values) + 1)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        """Recognise truth values, and strings that repeat."""
        if pa.types.is_boolean(cells.type):
            return Match(1.0, count(distinct(cells), "different value"))
        if not is_text(cells):
            return None
        different, words = distinct(cells), words_a_cell(cells)
        counts = f"{count(different, 'different value')} in {count(len(cells), 'cell')}"
        repeated = different <= max(20, len(cells) ** 0.5) and different <= len(cells) / 2
        if repeated:
            return Match(0.7, counts)
        # names of two words or more share words with other names: they are texts
        if words < 2 and different <= len(cells) / 2:
            return Match(0.5, f"short strings, {counts}")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Category:
        """Number the most frequent values of the training rows, from 1."""
        counts = pc.value_counts(_strings(cells.drop_null())).to_pylist()
        frequent = [(-c["counts"], c["values"]) for c in counts if c["counts"] >= config.min_count]
        return cls(config, [value for _, value in sorted(frequent)[: config.max_values]])

    def unseen(self, cells: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the cells whose value has no index of its own."""
        if not _may_be_names(cells):
            return cells.slice(0, 0)
        values = _strings(cells.drop_null())
        return values.filter(pc.invert(pc.is_in(values, pa.array(self.values, pa.string()))))

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Return the index of each cell's value, int64 (B,). Lists of later tables are bad cells."""
        source.progress(len(cells))
        if not _may_be_names(cells):
            return _all_bad(cells, source)
        position = pc.index_in(_strings(cells), pa.array(self.values, pa.string()))
        index = pc.fill_null(pc.add(position, 1), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        present = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        return Loaded(Values(torch.from_numpy(index)), torch.from_numpy(np.array(present)))

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        """In training, turn 2 % of the values into unseen ones."""
        if generator is None:
            return values
        hide = torch.rand(values.x.shape, generator=generator) < 0.02
        return Values(values.x.masked_fill(hide, 0))

    def cell_schema(self) -> JSON:
        """Return the schema of a category. Values that training did not see are accepted."""
        return {"type": ["string", "number", "boolean"], "x-training": {"values": self.values}}

    def state(self) -> JSON:
        """Return what `fit` has learned, as JSON."""
        return {"values": self.values}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Category:
        """Build the fitted modality from what `state` returned."""
        return cls(config, read_as(list[str], state["values"]))


component = Category


def _may_be_names(cells: pa.ChunkedArray) -> bool:
    """Return whether cells can be read as short texts. Bytes can if they are UTF-8."""
    try:
        as_texts(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _all_bad(cells: pa.ChunkedArray, source: Source) -> Loaded:
    """Return a column in which every cell that is not null is a problem."""
    problems = []
    for row in np.flatnonzero(pc.is_valid(cells).to_numpy(zero_copy_only=False)).tolist():
        problems.append(Problem(row, source.column, "", f"expected a text or a number, came {cells.type}"))
    missing = torch.zeros(len(cells), dtype=torch.int64)
    return Loaded(Values(missing), missing.bool(), problems)


def _strings(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells as strings without spaces at their ends: "red " is red."""
    return pc.utf8_trim_whitespace(as_texts(cells))
