"""Count the rows of a batch that each of its losses is a mean over. B rows.

Where a batch is cut into micro-batches, each loss is divided by these numbers: the gradients then do not
depend on how it was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.tasks.base import MAIN
from plait.training.mixing import Mixing
from plait.training.objective import Counts, Key, Term, labels_of


def counted(terms: Iterable[Term]) -> Counts:
    """Return the number of rows that each loss of all micro-batches is a mean over."""
    counts: Counts = {}
    for term in terms:
        _add_rows(counts, term.key, term.rows_B)
    return counts


def count_rows(
    model: MultimodalModel, micro_batches: Sequence[Batch], mixings: Sequence[Mixing | None]
) -> Counts:
    """Return what `counted` returns, from masks alone: no encoder runs.

    Tasks that leave out rows by their outputs need `first_pass`.
    """
    counts: Counts = {}
    for batch, mixing in zip(micro_batches, mixings, strict=True):
        for target in model.targets:
            for name, present_B in _present_by_name(model, batch, target, mixing).items():
                for index, labels in enumerate(labels_of(batch, target, present_B, mixing)):
                    _add_rows(counts, (target, name, index), labels.rows_B)
    return counts


def _add_rows(counts: Counts, key: Key, rows_B: Tensor) -> None:
    rows = rows_B.sum()
    counts[key] = counts[key] + rows if key in counts else rows


def _present_by_name(
    model: MultimodalModel, batch: Batch, target: str, mixing: Mixing | None
) -> dict[str, Tensor | None]:
    """Return for each of a target's losses which rows have a cell for it, (B,); None if that is no matter."""
    by_name: dict[str, Tensor | None] = {MAIN: None}
    if target not in model.fuser_of:
        return by_name

    present = batch.present
    if batch.complete is not None and not model.task(target).sees_hidden_cells(model.columns):
        present = batch.complete.present
    if mixing is not None:
        present = mixing.either(present)
    fuser = model.fuser(target)
    of_blocks = fuser.of_blocks(present)
    for block in fuser.unimodal_blocks:
        by_name[block] = of_blocks[block]
    return by_name
