"""Text read aloud: letters become tones, learned from recordings, and the tones that come out are
measured.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

import plait
from plait.cli.main import run
from plait.errors import RecipeError
from plait.nn.batch import Tokens
from plait.table.table import Source
from plait.tasks.base import tasks
from support.answers import assert_same_recording
from support.sounds import TONES, tones

SPOKEN = [
    "tasks.sound={name: speak, rate: 8000, bands: 24, hop: 0.02, width: 48, dropout: 0}",
    "columns.said.modality=text",
    "training.precision=fp32",
    "columns.said.encoder={name: lstm, embedding: 24, width: 24, bidirectional: true, tokens: all}",
    "training.learning_rate=0.01",
    "training.batch_size=8",
    "training.warmup=0.1",
]


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("spoken")
    rows = tones(folder, 80)
    overrides = [*SPOKEN, "training.epochs=50"]
    model = plait.fit(rows, "sound", root=folder, out=folder / "run", overrides=overrides, quiet=True)
    return model, folder


def new_task(**options: Any) -> Any:
    """Return the task, fitted on a column with a recording, without a head."""
    return tasks.find("speak").fit(tasks.configure("speak", options), pa.chunked_array([["x"]]), "sound")


def seconds_of(recording: bytes | Path) -> float:
    """Return how long a recording lasts."""
    source = io.BytesIO(recording) if isinstance(recording, bytes) else recording
    samples, rate = soundfile.read(source)
    return len(samples) / rate


def letters_of(content: bytes) -> str:
    """Return the letters of a recording, by the loudest tone of each stretch between silences.

    Windows of 40 ms are shorter than the silence between two letters, 60 ms. They are longer than a dip
    within a tone, which comes and goes with the rounding of what was learned.
    """
    samples, rate = soundfile.read(io.BytesIO(content))
    size, step = rate // 25, rate // 100
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, size), size)[::step]
    loud = np.sqrt(np.mean(windows**2, 1)) > 0.05
    spectra = np.abs(np.fft.rfft(windows * np.hanning(size), 4096)) * loud[:, None]
    stretch = np.cumsum(np.diff(loud, prepend=False) & loud)

    letters = []
    for number in range(1, int(stretch.max(initial=0)) + 1):
        hertz = spectra[stretch == number].sum(0).argmax() * rate / 4096
        letters.append(min(TONES, key=lambda letter: abs(np.log(TONES[letter] / max(hertz, 1)))))
    return "".join(letters)


def test_the_letters_of_a_text_are_heard(speaking: tuple[plait.Model, Path]) -> None:
    model, folder = speaking
    texts = ["abc", "cab", "bca", "acb", "bac", "ca", "ab"]
    answers = model.predict([{"said": text} for text in texts])
    assert answers.column_names == ["sound", "problem"]
    recordings = answers["sound"].to_pylist()
    transcripts = [letters_of(recording) for recording in recordings]
    assert jiwer.cer(texts, transcripts) < 0.25, transcripts
    seconds = [seconds_of(recording) for recording in recordings]
    assert seconds == pytest.approx([0.22 * len(text) for text in texts], rel=0.35)
    scores = model.evaluate(tones(folder, 12, seed=3), folder).targets["sound"]
    assert scores.metrics["mel_distance"].value < scores.baseline["mel_distance"] / 2
    assert 0.8 < scores.metrics["length_ratio"].value < 1.25


def test_recordings_lie_beside_the_table(speaking: tuple[plait.Model, Path], tmp_path: Path) -> None:
    model, _ = speaking
    table, out = tmp_path / "new.csv", tmp_path / "out.csv"
    table.write_text('said\nabc\n""\nca\n')
    assert run(["predict", str(model.folder), str(table), "-o", str(out)]) == 0
    with out.open() as file:
        paths = [row["sound"] for row in csv.DictReader(file)]

    answers = model.predict([{"said": text} for text in ("abc", None, "ca")])
    first, empty, last = answers["sound"].to_pylist()
    assert (paths[1], empty) == ("", None)
    assert_same_recording((tmp_path / paths[0]).read_bytes(), first)
    assert_same_recording((tmp_path / paths[2]).read_bytes(), last)


def test_recordings_that_cannot_be_learned_from_are_named(tmp_path: Path) -> None:
    tones(tmp_path, 2)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "0-0.wav").read_bytes()[:500])
    task = new_task(longest=0.6, rate=8000)
    cells = pa.chunked_array([["0-0.wav", "0-1.wav", "cut.wav", "gone.wav", None]])
    target, labelled, problems = task.encode(cells, Source("sound", tmp_path))
    too_long = [seconds_of(tmp_path / f"0-{row}.wav") > 0.6 for row in range(2)]
    assert labelled.tolist() == [not too_long[0], not too_long[1], False, False, False]
    rows_too_long = {row for row in range(2) if too_long[row]}
    assert {problem.row for problem in problems} == {2, 3, *rows_too_long}
    assert not target[2:].any()


def test_it_reads_one_column() -> None:
    with pytest.raises(RecipeError, match="one column is read aloud"):
        new_task().build_head({"a": 3, "b": 3})


def test_every_parameter_learns_from_rows_with_a_recording() -> None:
    torch.manual_seed(0)
    task = new_task(bands=4, width=6).train()
    task.build_head({"said": 5})
    x = torch.randn(3, 4, 5, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([4, 2, 3])[:, None]
    output = task({"said": Tokens(x, mask)})
    target = torch.cat([torch.randn(3, 9, 4), torch.ones(3, 9, 1)], 2)
    task.loss(output, target, torch.tensor([True, True, False])).backward()
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())
    assert x.grad is not None
    assert x.grad[1].any()
    assert not x.grad[2].any()
    assert not x.grad[1, 2:].any(), "beyond its end a text says nothing"
    assert task.loss(output, target, torch.zeros(3, dtype=torch.bool)) == 0


OPTIONS = [{"rate": 8000}, {"hop": 0.02}, {"window": 0.03}, {"bands": 12}, {"width": 5}]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_something(option: dict[str, Any], tmp_path: Path) -> None:
    tones(tmp_path, 1)
    cells = pa.chunked_array([["0-0.wav"]])

    def outcome(**options: Any) -> tuple[torch.Tensor, int]:
        """Return the target, and the number of parameters."""
        torch.manual_seed(0)
        task = new_task(**options)
        task.build_head({"said": 5})
        target, _, _ = task.encode(cells, Source("sound", tmp_path))
        return target, sum(p.numel() for p in task.parameters())

    default_target, default_parameters = outcome()
    target, parameters = outcome(**option)
    assert parameters != default_parameters or not torch.equal(target, default_target)
