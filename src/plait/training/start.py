"""Start values that come from the data: statistics, and linear maps of an alignment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from plait.data.dataset import Dataset
from plait.data.frozen import TOGETHER
from plait.model.network import MultimodalModel
from plait.nn.batch import Values
from plait.tasks.alignment import Alignment

BEGINNING = 10_000  # rows that the linear maps of an alignment are fitted on, at most


@torch.inference_mode()
def begin(model: MultimodalModel, data: Dataset) -> None:
    """Lets alignments begin at linear maps of what training does not change in the training rows'
    tokens, where two of their columns or more have any: the vectors of frozen encoders, and statistics,
    which are fitted here.
    """
    rows = data.rows[torch.linspace(0, len(data) - 1, min(len(data), BEGINNING)).long()]
    model.eval()
    for c in model.encoded_alone:
        if (statistics := model.encoder(c).statistics) is not None:
            statistics.fit(
                values.take(present_B.nonzero()[:, 0]) for values, present_B in _cells(data, c, rows)
            )
    alone = set(model.encoded_alone)
    for task in (model.task(t) for t in model.targets):
        fixed = (
            {c: model.encoder(c).fixed for c in task.columns if c in alone}
            if isinstance(task, Alignment)
            else {}
        )
        starts = {c: start for c, start in fixed.items() if start is not None}
        if isinstance(task, Alignment) and len(starts) > 1:
            task.begin(
                {c: itertools.starmap(model.encoder(c), _cells(data, c, rows)) for c in starts}, starts
            )


def _cells(data: Dataset, column: str, rows: Tensor) -> Iterator[tuple[Values, Tensor]]:
    """One column's cells of these rows as its encoder takes them, never augmented, and where they are
    present, batch by batch.
    """
    values, present = data.prepared.batch.values[column], data.prepared.batch.present[column]
    for some in rows.split(TOGETHER):
        cells = values.take(some)
        yield (
            cells if cells.encoded else data.preprocessing.inputs[column].transform(cells, None),
            present[some],
        )
