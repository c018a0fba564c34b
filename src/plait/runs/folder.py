"""The folder of one training: it is begun, gone on with, stopped and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError, safe_open

from plait.console import command
from plait.disk import whole
from plait.errors import Interrupted, OutputError, RecipeError
from plait.runs import content, interrupts, lock
from plait.runs.request import REQUEST, Request

Record: TypeAlias = dict[str, Any]  # `metrics.json`: scores, environment and history of a run

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

            # `_goes_on` compares the requests too, before it tells the user that a training goes on.
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
    foreign = []
    for name in names:
        if name not in NO_RUN_YET and not name.startswith("."):
            foreign.append(name)
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
    moment = f"in epoch {epoch + 1}" if step else f"after epoch {epoch}"
    tell(f"going on with the training in '{folder}', which was stopped {moment}")
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
