"""Categories: one of a few known values; what training did not see becomes index 0."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from plait.modalities.base import Match, Modality
from plait.nn.batch import Layout, Loaded, Values
from plait.recipe.registry import Options
from plait.table.json import JSON, read_as
from plait.table.table import Source
from plait.table.values import distinct, is_text, words_a_cell


class Config(Options):
    """The most frequent `max_values` are kept; those seen fewer than `min_count` times count as unseen."""

    max_values: int = Field(1000, ge=1)
    min_count: int = Field(1, ge=1)


class Category(Modality):
    """A column of categories. A value that training did not see is not missing: it has an index of its
    own, 0, which training rows of rare values teach the encoder to read (see `fit`).
    """

    options = Config
    encoder = "tabular"
    tabular = True
    is_label = True
    may_be_id = True

    def __init__(self, config: Config, values: list[str]) -> None:
        self.config, self.values = config, values
        self.layout = Layout("index", (), len(values) + 1)

    @classmethod
    def matches(cls, cells: pa.ChunkedArray, source: Source) -> Match | None:
        kind = cells.type
        if pa.types.is_boolean(kind) or pa.types.is_dictionary(kind):
            return Match(1.0, f"{distinct(_strings(cells)):,} different values")
        if not is_text(cells):
            return None
        different, words = distinct(cells), words_a_cell(cells)
        repeated = different <= max(20, len(cells) ** 0.5) and different <= len(cells) / 2
        if repeated:
            return Match(0.7, f"{different:,} different values in {len(cells):,} cells")
        if (
            words < 2 and different <= len(cells) / 2
        ):  # names of two words and more have parts that others share
            return Match(0.5, f"short strings, {different:,} different values in {len(cells):,} cells")
        return None

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray) -> Category:
        counts = pc.value_counts(_strings(cells.drop_null())).to_pylist()
        kept = [(-c["counts"], c["values"]) for c in counts if c["counts"] >= config.min_count]
        return cls(config, [value for _, value in sorted(kept)[: config.max_values]])

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        source.progress(len(cells))
        found = pc.index_in(_strings(cells), pa.array(self.values, pa.string()))
        index = pc.fill_null(pc.add(found, 1), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        present = pc.is_valid(cells).to_numpy(zero_copy_only=False)
        return Loaded(Values(torch.from_numpy(index)), torch.from_numpy(np.array(present)))

    def transform(self, values: Values, generator: torch.Generator | None) -> Values:
        if generator is not None:  # so that index 0 has been trained when an unseen value comes
            hide = torch.rand(values.x.shape, generator=generator) < 0.02
            return Values(values.x.masked_fill(hide, 0))
        return values

    def state(self) -> JSON:
        return {"values": self.values}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Category:
        return cls(config, read_as(list[str], state["values"]))


component = Category


def _strings(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(cells.type):
        cells = pc.cast(cells, cells.type.value_type)
    if pa.types.is_floating(cells.type) and pc.all(pc.equal(pc.round(cells), cells)).as_py():
        cells = pc.cast(
            cells, pa.int64()
        )  # whole numbers become floats in a frame with missing cells: 3.0 is 3
    return cells if pa.types.is_string(cells.type) else pc.cast(cells, pa.string())
