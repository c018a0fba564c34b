"""Load a pretrained network of Hugging Face from a folder, and run it as it is on the cells of a column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa

from plait.console import Screen
from plait.errors import BadCell, PlaitError, RecipeError
from plait.prediction.answers import beside
from plait.pretrained import architecture, files
from plait.pretrained.network import quiet
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.schema import origin
from plait.table.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# For every `from_pretrained`: run no code of the folder, and fetch nothing.
SAFELY = {"trust_remote_code": False, "local_files_only": True}


@contextmanager
def loading(model: str, what: str) -> Iterator[ModuleType]:
    """Yield the package transformers, to load a network with. `what` names the network in errors.

    Raises `RecipeError` if the package is not installed, or cannot load the network.
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
    except PlaitError:
        raise
    except Exception as error:  # for a damaged file, transformers and tokenizers raise whatever they run into
        raise RecipeError(f"'{model}' cannot be loaded as a {what}: {error}") from None


def network(loader: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """Load a network from a folder by a class of transformers, in eval mode.

    Only safetensors are read, and no code of the folder is run.
    """
    loaded, _ = architecture.load(loader, folder, files.read_json(folder, "config.json"))
    return loaded.eval()


@dataclass(frozen=True)
class NewColumn:
    """A column of answers: its name, its type, and what a progress bar calls the work."""

    name: str
    type: pa.DataType
    activity: str


def answer_cells(
    table: Table,
    column: str,
    answer: Callable[[object], str | bytes | None],
    new_column: NewColumn,
    screen: Screen,
) -> pa.Table:
    """Return the table with two new columns: what `answer` returns for each cell of `column`, and `problem`.

    The answer is null where there is no cell. It is null too where `answer` raises `BadCell`. Then `problem`
    has the reason, and a warning counts these cells.
    """
    cells = table.column(origin(column, table.data.column_names))
    answers: list[str | bytes | None] = []
    problems: list[Problem] = []
    with screen.bar(new_column.activity, len(table)) as bar:
        for row, cell in enumerate(cells.to_pylist()):
            answered = None
            if cell is not None:
                try:
                    answered = answer(cell)
                except BadCell as bad:
                    problems.append(Problem(row, column, bad.file, bad.reason))
            answers.append(answered)
            bar.advance()
    check.tell(problems, screen.warn)

    new_columns = {
        new_column.name: pa.array(answers, new_column.type),
        "problem": check.column(problems, len(table)),
    }
    return beside(table.data, pa.table(new_columns))
