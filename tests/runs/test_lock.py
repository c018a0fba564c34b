"""Only one training at a time writes into a folder."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import pytest

import plait
from plait.errors import Interrupted, OutputError, RecipeError
from plait.runs.lock import locked
from plait.training.checkpoint import Progress
from plait.training.loop import Callback, Training
from support.tables import FAST
from support.training import StopAtStep

IN_USE = "another training is running in '{folder}'; wait until it ends, stop it, or choose another out="

HOLD = """
import sys
from pathlib import Path
from plait.runs.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_in_another_process(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock of a folder until it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def message(folder: Path) -> str:
    """The error that a second training gets, as a regular expression."""
    return IN_USE.format(folder=folder).replace("\\", r"\\")


def test_a_kill_leaves_no_stale_lock(tmp_path: Path) -> None:
    process = hold_in_another_process(tmp_path)
    with pytest.raises(RecipeError, match=message(tmp_path)), locked(tmp_path):
        pass
    kill(process)
    with locked(tmp_path):
        pass


def test_a_thread_may_take_its_lock_again_but_no_other(tmp_path: Path) -> None:
    errors: list[str] = []

    def take() -> None:
        try:
            with locked(tmp_path):
                pass
        except RecipeError as error:
            errors.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert errors == [IN_USE.format(folder=tmp_path)]


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(OutputError, match=f"cannot write '{tmp_path / 'lock'}'"), locked(tmp_path):
        pass


def test_a_disk_without_locks_trains_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with locked(tmp_path):
        pass


def test_a_fit_is_refused_while_another_process_trains(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    process = hold_in_another_process(out)
    with pytest.raises(RecipeError, match=message(out)):
        plait.fit(table, "label", out=out, overrides=FAST, quiet=True)
    assert {file.name for file in out.iterdir()} == {"lock"}, "nothing was written"

    kill(process)
    plait.fit(table, "label", out=out, overrides=FAST, quiet=True, evaluate=False)


def test_a_resume_is_refused_while_another_process_trains(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "run"
    arguments: dict[str, Any] = {"out": out, "overrides": FAST, "quiet": True, "evaluate": False}
    with pytest.raises(Interrupted):
        plait.fit(table, "label", **arguments, callbacks=[StopAtStep(1)])
    process = hold_in_another_process(out)
    with pytest.raises(RecipeError, match=message(out)):
        plait.fit(table, "label", **arguments, resume=True)

    kill(process)
    plait.fit(table, "label", **arguments, resume=True)


def test_a_tuning_is_refused_while_another_process_trains(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    process = hold_in_another_process(out)
    with pytest.raises(RecipeError, match=message(out)):
        plait.tune(table, "label", out=out, trials=1, overrides=FAST, quiet=True)
    kill(process)


@dataclass
class FitInAnotherThread(Callback):
    """After each epoch, try to train in a folder from another thread. `errors` are what it gets."""

    table: Path
    out: Path
    errors: list[str] = field(default_factory=list)

    def after_epoch(self, training: Training, progress: Progress) -> None:
        thread = threading.Thread(target=self.fit)
        thread.start()
        thread.join()

    def fit(self) -> None:
        try:
            plait.fit(self.table, "label", out=self.out, overrides=FAST, quiet=True)
        except RecipeError as error:
            self.errors.append(str(error))


def test_a_tuning_holds_the_folder_of_its_last_fit(tmp_path: Path, table: Path) -> None:
    """The trials train in other_fit folders, but another fit must not slip in before the last one."""
    out = tmp_path / "run"
    other_fit = FitInAnotherThread(table, out)
    plait.tune(table, "label", out=out, trials=1, overrides=FAST, quiet=True, callbacks=[other_fit])
    epochs = 3
    assert other_fit.errors == [IN_USE.format(folder=out)] * 2 * epochs


def test_a_resume_elsewhere_leaves_no_lock_behind(tmp_path: Path, table: Path) -> None:
    with pytest.raises(RecipeError, match="holds no training to go on with"):
        plait.fit(table, "label", out=tmp_path, overrides=FAST, resume=True, quiet=True)
    assert not (tmp_path / "lock").exists()
