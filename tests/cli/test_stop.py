"""Commands that are stopped, or cannot write: what is said, what is left, and the exit status."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plait.cli.main import run
from support.tables import FAST

STAGES = {
    "plait.api.fit.prepare_sides": "stopped while preparing the table: nothing is saved",
    "plait.api.fit.train": "stopped while training the network: nothing is saved",
    "plait.api.fit._fit_members": "stopped while training members, which begin anew",
    "plait.api.fit._evaluate_validation": "stopped while evaluating",
    "plait.evaluation.report.write": "stopped while writing the model",
}

OTHER_SIGNALS = [(next(iter(STAGES)), number) for number in (signal.SIGINT, signal.SIGHUP)]


def fit(table: Path, out: Path, *more: str) -> int:
    options = []
    for override in FAST:
        options += ["--set", override]
    return run(["fit", str(table), "--target", "label", "--out", str(out), *options, *more])


@pytest.mark.parametrize(
    ("stage", "number"), [*[(stage, signal.SIGTERM) for stage in STAGES], *OTHER_SIGNALS]
)
def test_a_signal_says_what_is_saved_and_how_to_go_on(
    stage: str,
    number: int,
    tmp_path: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(stage, lambda *arguments, **options: os.kill(os.getpid(), number))
        assert fit(table, out) == 128 + number
    message = capsys.readouterr().err
    assert STAGES[stage] in message
    assert f"plait fit --resume {out}" in message
    assert run(["fit", "--resume", str(out)]) == 0
    assert (out / "weights.safetensors").is_file()


def test_a_signal_before_a_run_is_begun_is_told(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("plait.api.fit.read_sides", lambda sources: os.kill(os.getpid(), signal.SIGTERM))
    assert fit(table, tmp_path / "run") == 143
    assert "plait: stopped; run the command again" in capsys.readouterr().err


def test_single_target_models_name_no_temporary_folder(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def stop_training(training: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("plait.training.single_targets.train", stop_training)
    assert fit(table, out, "--target", "price", "--set", "singles=true") == 143
    message = capsys.readouterr().err
    assert (
        "stopped while training single-target models, which begin anew: the network is saved after epoch 3"
        in message
    )
    assert f"plait fit --resume {out}\n" in message
    assert "tmp" not in message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "no-run", "no-table", "-o"],
        ["predict", "no-run", "no-table", "-o"],
        ["embed", "no-run", "no-table", "-o"],
        ["search", "no-run", "a text", "-o"],
        ["classify", "no-run", "no-table", "--labels", "a,b", "-o"],
        ["transcribe", "no-model", "no-table", "-o"],
        ["speak", "no-model", "no-table", "-o"],
    ],
)
def test_an_output_is_looked_at_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken.parquet").mkdir()
    (tmp_path / "file").touch()
    for out in (tmp_path / "taken.parquet", tmp_path / "file" / "out.parquet"):
        assert run([*command, str(out)]) == 1
        assert "in the way" in capsys.readouterr().err


def test_scores_are_written_into_a_new_folder(tmp_path: Path, trained: Any) -> None:
    model, table = trained
    out = tmp_path / "new" / "scores.json"
    assert run(["evaluate", str(model.folder), str(table), "--no-subsets", "-o", str(out)]) == 0
    assert out.is_file()


def test_a_disk_that_is_full_is_an_error_of_plait(tmp_path: Path, table: Path) -> None:
    """No file may be larger than 300 kB here: neither weights nor the cache fit."""
    limit = 300_000
    command = [
        sys.executable,
        "-m",
        "plait",
        "fit",
        str(table),
        "--target",
        "label",
        "--out",
        str(tmp_path / "run"),
    ]
    for override in FAST:
        command += ["--set", override]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PLAIT_CACHE": str(tmp_path / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == 1
    assert "larger than this system allows a file to be" in ended.stderr
    assert "bug in plait" not in ended.stderr
    assert not list((tmp_path / "run").glob(".plait-*"))
