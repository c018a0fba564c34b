"""The folder of one training: what it was asked to do, and what a resume must agree with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from plait.console import command
from plait.disk import whole
from plait.errors import ArtifactError, Interrupted, OutputError, RecipeError
from plait.runs import content, files, interrupts, lock
from plait.table.sides import Sources
from plait.table.table import Table

Record: TypeAlias = dict[str, Any]  # `metrics.json`: scores, environment and history of a run

FORMAT = 9  # of the files in a run's folder
REQUEST = "run.json"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"  # written last: a folder that has them holds a trained model
# The files that a training writes: nothing may be in the way of one, or the work would be in vain.
OUTPUTS = (
    REQUEST,
    CHECKPOINT,
    WEIGHTS,
    "README.md",
    "ensemble.json",
    "log.csv",
    "metrics.json",
    "plan.json",
    "problems.csv",
    "recipe.yaml",
    "report.html",
    "state.json",
)
SHOWN = 5  # differences or names that a message lists
LEAST_SPACE = 1 << 20  # bytes that a disk must have left before anything is begun

# What plait itself may leave in a folder before a run is in it.
NO_RUN_YET = {lock.LOCK, "tuning"}


class Request(BaseModel):
    """What a run was asked to do: all that is needed to ask again, and to notice another table.

    `recipe` is the recipe as asked, never what plait decided, so that a resume decides anew and alike.
    `sources` are absolute paths; None stands for a table in memory. `content` has a hash of each column's
    cells, `media` one of the files that a column's cells name: known only once they have been read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: int = FORMAT
    recipe: dict[str, object]
    targets: list[str]
    sources: _Paths
    root: str | None
    strict: bool
    rows: int
    columns: list[str]
    content: dict[str, str]
    media: dict[str, str] = {}

    @classmethod
    def make(
        cls, recipe: Mapping[str, object], targets: list[str], sources: Sources, strict: bool, table: Table
    ) -> Request:
        """Describe a call of `fit`. `table` is what was read from the sources."""
        return cls(
            recipe=dict(recipe),
            targets=targets,
            sources=_Paths(**{side: _path(source) for side, source in sources.sides().items()}),
            root=_path(sources.root),
            strict=strict,
            rows=len(table),
            columns=table.data.column_names,
            content=content.content(table.data),
        )

    @classmethod
    def read(cls, folder: Path) -> Request:
        """Read what the run in a folder was asked to do.

        Raises `RecipeError` when there is no run, and `ArtifactError` when its request is damaged, or when
        another version of plait began it.
        """
        path = folder / REQUEST
        if not path.is_file():
            raise RecipeError(f"'{folder}' holds no training to go on with")

        # Other formats have other fields, and no checksum.
        format_before = files.read_json(path).get("format")
        if format_before != FORMAT or isinstance(format_before, bool):
            raise ArtifactError(
                f"'{folder}' has format {format_before}; this plait goes on with {FORMAT}. Train again into "
                f"another folder, or go on with the plait that began it"
            )
        fields = files.read_checked(path)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise files.wrong_entry(path, error) from error

    def write(self, folder: Path) -> None:
        """Write the request into the folder of its run."""
        files.write_checked(folder / REQUEST, self.model_dump(mode="json"))

    @property
    def is_of_files(self) -> bool:
        """Whether all tables were files, so that they can be read again."""
        return self.sources.train is not None

    def differences(self, before: Request) -> list[str]:
        """Say in what this request differs from one that was made before."""
        # `sources` and `root` may differ: a table that has moved is still the same table.
        said = []
        if self.rows != before.rows:
            said.append(f"the tables have {self.rows:,} rows, had {before.rows:,}")
        said += _differing_names("column", before.columns, self.columns)
        if self.rows == before.rows:
            said += [
                f"column '{name}' holds other cells" for name in content.changed(before.content, self.content)
            ]
            if not said and self.columns != before.columns:
                said.append("the columns are in another order")
        said += _differing_names("target", before.targets, self.targets)
        said += _differing_options("recipe", before.recipe, self.recipe)
        if self.strict != before.strict:
            said.append(f"strict is {self.strict}, was {before.strict}")
        return said


class _Paths(BaseModel):
    """The absolute paths of the tables; None for a table in memory, or none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    train: str | None
    valid: str | None
    test: str | None


Request.model_rebuild()


@dataclass
class Run:
    """The folder of one training. `resumed` tells whether it was begun before.

    `doing` says what is going on, for the message of a training that is stopped.
    """

    folder: Path
    resumed: bool
    request: Request
    doing: str = field(default="preparing the table", init=False)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a trained model. Its weights are written last."""
        return (self.folder / WEIGHTS).is_file()

    @classmethod
    @contextmanager
    def begin(
        cls,
        out: str | Path | None,
        request: Request,
        resume: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Run]:
        """Hold the folder `out`, `runs/<time>` if left out, while what is inside trains.

        A training that was stopped in this folder goes on if it was begun with the same request. With
        `resume` there must be one. Otherwise the request is written into the folder, which must be empty.
        SIGTERM and SIGHUP end what is inside as Ctrl-C does. When the training ends well, its checkpoint is
        removed; otherwise it stays.

        Raises `RecipeError` when the requests differ, when a fresh run would overwrite a trained model or
        other files, or when another training is running in the folder. Raises `OutputError` if the folder
        cannot be written to, and `Interrupted` for a signal.
        """
        folder = _begun_folder(out) if resume else fresh_folder(out)
        with lock.locked(folder), interrupts.terminable():
            whole.remove_unfinished(folder)
            for name in OUTPUTS:
                whole.check_file(folder / name)
            run = cls(folder, resume or _goes_on(folder, request, tell), request)
            if resume:
                before = Request.read(folder)
                _check_agrees(folder, request.differences(before))
            elif run.resumed:
                before = Request.read(folder)
            else:
                before = request
                check_untrained(folder)
                request.write(folder)
            run.request = request.model_copy(update={"media": before.media})

            try:
                yield run
            except (KeyboardInterrupt, Interrupted) as error:
                raise Interrupted(run.stopped(), interrupts.number_of(error)) from None
            (folder / CHECKPOINT).unlink(missing_ok=True)

    def check_media(self, digests: Mapping[str, Sequence[set[bytes]]]) -> None:
        """Compare the files that cells name with those that a stopped training has read.

        `digests` has those of each row's files, by column. Raises `RecipeError` if files have changed. The
        first time, keep what there is.
        """
        media = {column: content.media_hash(of_rows) for column, of_rows in digests.items()}
        if self.request.media:
            changed = content.changed(self.request.media, media)
            _check_agrees(self.folder, [f"files of column '{column}' have changed" for column in changed])
        elif media:
            self.request = self.request.model_copy(update={"media": media})
            self.request.write(self.folder)

    def stopped(self) -> str:
        """Say what is saved of a training that was stopped, and how to go on."""
        epoch, step = saved_progress(self.folder)
        if not epoch and not step:
            saved = "nothing is saved of it yet"
        elif step:
            saved = f"the network is saved in the middle of epoch {epoch + 1}"
        else:
            saved = f"the network is saved after epoch {epoch}"

        again = command("fit", "--resume", self.folder)
        if not self.request.is_of_files:
            again = f"the same call of plait.fit, with out={str(self.folder)!r}"
        return f"stopped while {self.doing}: {saved}; go on with: {again}"


def saved_progress(folder: Path) -> tuple[int, int]:
    """Return the complete epochs that the checkpoint in a folder has, and the steps of the next one.

    Both are 0 without a checkpoint. What is in it is not checked.
    """
    try:
        with safe_open(folder / CHECKPOINT, "pt") as opened:
            metadata = opened.metadata() or {}
        return int(metadata["epoch"]), int(metadata["step"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0, 0


def fresh_folder(out: str | Path | None) -> Path:
    """Make the folder of a new run, if it does not exist.

    Raises `RecipeError` for a folder that holds other files than those of a run, and `OutputError` for one
    that cannot be made or written to.
    """
    check_out(out)
    if out is None:
        return _unused_folder()
    folder = whole.make_folder(Path(out))
    whole.check_space(folder, LEAST_SPACE)
    return folder


def check_out(out: str | Path | None) -> None:
    """Look before the work whether a run can be in this folder, and raise what `fresh_folder` raises."""
    if out is None:
        whole.check_folder(Path("runs"))
        return
    if not str(out).strip():
        raise RecipeError("out is empty: expected a folder, as in out='runs/first'; '.' is the present one")

    folder = Path(out)
    with whole.explained(folder):
        is_file = folder.exists() and not folder.is_dir()
    if is_file:
        raise OutputError(f"out '{folder}' is a file; expected a folder")
    _check_no_foreign_files(folder)
    whole.check_folder(folder)


def _check_no_foreign_files(folder: Path) -> None:
    """Raise `RecipeError` for a folder that is neither empty nor that of a run."""
    if not folder.is_dir() or (folder / REQUEST).is_file():
        return
    with whole.explained(folder):
        names = sorted(path.name for path in folder.iterdir())

    # plait never writes over a hidden file.
    foreign = [name for name in names if name not in NO_RUN_YET and not name.startswith(".")]
    if foreign:
        shown = ", ".join(foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
        raise RecipeError(
            f"out '{folder}' holds files that are not of a run of plait: {shown}. They might be "
            f"overwritten; choose another out=, such as '{folder / 'run'}'"
        )


def check_untrained(folder: Path) -> None:
    """Raise `RecipeError` if a training in this folder would overwrite a trained model."""
    if (folder / WEIGHTS).is_file():
        raise RecipeError(
            f"'{folder}' already holds a trained model; choose another out=, or remove it first"
        )


def _goes_on(folder: Path, request: Request, tell: Callable[[str], None]) -> bool:
    """Return whether a stopped training in this folder goes on, and tell the user so.

    Raises `RecipeError` if it was begun with another request: its checkpoint would be lost.
    """
    if not (folder / CHECKPOINT).is_file() or (folder / WEIGHTS).is_file():
        return False
    _check_agrees(folder, request.differences(Request.read(folder)))
    epoch, step = saved_progress(folder)
    place = f"in epoch {epoch + 1}" if step else f"after epoch {epoch}"
    tell(f"going on with the training in '{folder}', which was stopped {place}")
    return True


def _check_agrees(folder: Path, differences: Sequence[str]) -> None:
    """Raise `RecipeError` if there are differences between a run and what it was begun with."""
    if not differences:
        return
    shown = "; ".join(differences[:SHOWN]) + ("; ..." if len(differences) > SHOWN else "")
    raise RecipeError(
        f"cannot go on with the training in '{folder}', which was begun with something else: {shown}. Give "
        f"it the same, or choose another out= for a new training (or remove the folder)"
    )


def _differing_names(what: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Say which names are new and which are gone."""
    said = [f"{what} '{name}' is new" for name in now if name not in set(before)]
    return said + [f"{what} '{name}' is gone" for name in before if name not in set(now)]


def _differing_options(name: str, before: object, now: object) -> list[str]:
    """Say which options differ, by their paths, and what they are and were."""
    if before == now:
        return []
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        is_now = "left out" if now is None else repr(now)
        was = "left out" if before is None else repr(before)
        return [f"{name} is {is_now}, was {was}"]
    said = []
    for key in [*before, *(key for key in now if key not in before)]:
        said += _differing_options(f"{name}.{key}", before.get(key), now.get(key))
    return said


def _path(source: object) -> str | None:
    """Return the absolute path of a file, so that a resume finds it from any folder; None for no file."""
    if not isinstance(source, (str, Path)):
        return None
    return str(Path(source).absolute())


def _begun_folder(out: str | Path | None) -> Path:
    """Return the folder of a run to go on with. Nothing is written into a folder that holds none."""
    if out is None or not str(out).strip():
        raise RecipeError("resume= needs out=, the folder of the training that was stopped")
    folder = Path(out)
    Request.read(folder)
    whole.check_folder(folder)
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
