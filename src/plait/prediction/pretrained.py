"""Pretrained networks of Hugging Face that are run as they are: loaded from a folder, and over the
cells of one column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from plait.console import Screen
from plait.errors import BadCell, RecipeError
from plait.prediction.answers import beside
from plait.pretrained.network import quiet
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel


SAFELY = {"trust_remote_code": False, "local_files_only": True}


@contextmanager
def loading(model: str, what: str) -> Iterator[ModuleType]:
    """transformers, to load a network with. Raises `RecipeError` when it is not installed, or cannot
    load what is asked for inside.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise RecipeError(
            f"a pretrained {what} needs transformers: pip install 'plait[pretrained]'"
        ) from None
    try:
        with quiet():
            yield transformers
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(f"'{model}' cannot be loaded as a {what}: {error}") from None


def network(loader: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """The network that a class of transformers makes of a folder's files, for use: safetensors only,
    never foreign code.
    """
    return loader.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **SAFELY).eval()


def answered(
    table: Table,
    column: str,
    cells: pa.ChunkedArray,
    answer: Callable[[object], str | bytes | None],
    name: str,
    kind: pa.DataType,
    screen: Screen,
    doing: str,
) -> pa.Table:
    """The table with what `answer` makes of each cell beside it, as `name`, null where there is none,
    and `problem`: a cell of which it raises `BadCell` has no answer either, and is told.
    """
    found: list[str | bytes | None] = []
    problems: list[Problem] = []
    with screen.bar(doing, len(table)) as bar:
        for row, cell in enumerate(cells.to_pylist()):
            try:
                found.append(None if cell is None else answer(cell))
            except BadCell as bad:
                found.append(None)
                problems.append(Problem(row, column, bad.file, bad.reason))
            bar.advance()
    check.tell(problems, screen.warn)
    return beside(
        table.data, pa.table({name: pa.array(found, kind), "problem": check.column(problems, len(table))})
    )
