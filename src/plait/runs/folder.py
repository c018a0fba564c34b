"""The folder of one training: what it was asked to do, and what a resume must agree with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from plait.errors import RecipeError
from plait.runs import files, interrupts, lock
from plait.table.sides import Sources
from plait.table.table import Table

Record: TypeAlias = dict[str, Any]  # `metrics.json`: scores, environment and history of a run

FORMAT = 8  # of the files in a run's folder
REQUEST = "run.json"
CHECKPOINTS = ("checkpoint.safetensors", "best.safetensors")
WEIGHTS = "weights.safetensors"  # written last: a folder that has them holds a trained model
HASHED = 1000  # rows of each chunk of a table that `content` reads


class Request(BaseModel):
    """What a run was asked to do: all that is needed to ask again, and to notice another table.

    `recipe` is the recipe as asked, never what plait decided, so that a resume decides anew and alike.
    `sources` are absolute paths; None stands for a table in memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    recipe: dict[str, object]
    targets: list[str]
    sources: dict[str, str | None]
    root: str | None
    strict: bool
    rows: int
    columns: list[str]
    content: str

    @classmethod
    def make(
        cls, recipe: Mapping[str, object], targets: list[str], sources: Sources, strict: bool, table: Table
    ) -> Request:
        """Describe a call of `fit`. `table` is what was read from the sources."""
        return cls(
            recipe=dict(recipe),
            targets=targets,
            sources={side: _path(source) for side, source in sources.sides().items()},
            root=_path(sources.root),
            strict=strict,
            rows=len(table),
            columns=table.data.column_names,
            content=content(table),
        )

    @classmethod
    def read(cls, folder: Path) -> Request:
        """Read what the run in a folder was asked to do.

        Raises `RecipeError` when there is no run, or when another version of plait began it.
        """
        path = folder / REQUEST
        if not path.is_file():
            raise RecipeError(f"'{folder}' holds no training to go on with")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            format_before = fields.get("format")
            if format_before == FORMAT:
                return cls.model_validate(fields)
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            raise RecipeError(f"'{path}' is damaged: {error}; train again into another folder") from error

        # Other formats have other fields, so they are not validated.
        raise RecipeError(
            f"'{folder}' has format {format_before}; this plait goes on with {FORMAT}. Train again into "
            f"another folder, or go on with the plait that began it"
        )

    def check_agrees(self, before: Request, folder: Path) -> None:
        """Raise `RecipeError` when a resumed run was begun with something else."""
        # `sources` may differ: a table that has moved is still the same table.
        names = ("rows", "columns", "content", "targets", "recipe")
        changed = [name for name in names if getattr(self, name) != getattr(before, name)]
        if changed:
            raise RecipeError(
                f"cannot go on with '{folder}': its {' and '.join(changed)} differ from those it was begun "
                f"with"
            )


@dataclass(frozen=True)
class Run:
    """The folder of one training. `resumed` tells whether it was begun before."""

    folder: Path
    resumed: bool

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a trained model, and no state to go on from.

        With both, the process was killed between its last two writes: the report may be missing.
        """
        has_checkpoint = any((self.folder / name).is_file() for name in CHECKPOINTS)
        return (self.folder / WEIGHTS).is_file() and not has_checkpoint

    @classmethod
    @contextmanager
    def begin(cls, out: str | Path | None, request: Request, resume: bool = False) -> Iterator[Run]:
        """Hold the folder `out`, `runs/<time>` if left out, while what is inside trains.

        With `resume` the folder must hold a run that was begun with the same request. Otherwise the request
        is written into it. SIGTERM ends what is inside as Ctrl-C does. When the training ends well, its
        checkpoints are removed; otherwise they stay, so that `resume` can go on from them.

        Raises `RecipeError` when the requests differ, when a fresh run would overwrite a trained model, or
        when another training is running in the folder.
        """
        folder = _begun_folder(out) if resume else fresh_folder(out)
        with lock.locked(folder), interrupts.terminable():
            if resume:
                request.check_agrees(Request.read(folder), folder)
            else:
                check_untrained(folder)
                _remove_checkpoints(folder)
                files.write_json(folder / REQUEST, request.model_dump(mode="json"))
            yield cls(folder, resume)
            _remove_checkpoints(folder)


def fresh_folder(out: str | Path | None) -> Path:
    """Make the folder of a new run, if it does not exist."""
    if out is None:
        return _unused_folder()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"out '{folder}' is a file; expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_untrained(folder: Path) -> None:
    """Raise `RecipeError` if a training in this folder would overwrite a trained model."""
    if (folder / WEIGHTS).is_file():
        raise RecipeError(
            f"'{folder}' already holds a trained model; choose another out=, or remove it first"
        )


def _remove_checkpoints(folder: Path) -> None:
    """Remove the state of a training that has ended, or that another one replaces."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def content(table: Table) -> str:
    """Return a short hash of the first thousand rows of each chunk of a table."""
    digest = hashlib.blake2b(digest_size=16)
    for column in table.data.columns:
        for chunk in column.chunks:
            cells = chunk.slice(0, HASHED).to_pylist()
            digest.update(json.dumps(cells, default=str).encode())
    return digest.hexdigest()


def _path(source: object) -> str | None:
    """Return the absolute path of a file, so that a resume finds it from any folder; None for no file."""
    if not isinstance(source, (str, Path)):
        return None
    return str(Path(source).absolute())


def _begun_folder(out: str | Path | None) -> Path:
    """Return the folder of a run to go on with. Nothing is written into a folder that holds none."""
    if out is None:
        raise RecipeError("resume= needs out=, the folder of the training that was stopped")
    folder = Path(out)
    Request.read(folder)
    return folder


def _unused_folder() -> Path:
    """Make `runs/<time>`, with a number behind it where two runs begin in one second."""
    base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    folder, count = base, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            folder, count = Path(f"{base}-{count}"), count + 1
        else:
            return folder
