"""Every path runs on a GPU. The tests run where there is one; with PLAIT_TEST_GPU=cpu also on a CPU."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.errors import Interrupted
from support import tiny_models
from support.gpu import CountWaits, Losses, exact_products, without_gpu
from support.media import wav, wave
from support.recipes import quality
from support.tables import FAST, make_rows, write_csv
from support.training import StopAtStep, weights

HAS_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU and os.environ.get("PLAIT_TEST_GPU") != "cpu", reason="needs a GPU"),
]

CLOSE = 1e-4  # of probabilities and vectors, in fp32 on both devices
ROUNDED = 2e-2  # of answers in bf16
RESUMED = 1e-3  # of weights: sums on a GPU are in no fixed order
AUTO = [option for option in FAST if "precision" not in option]  # bf16 where it is fast
BF16 = ["training.precision=bf16", *AUTO]
PRECISIONS = pytest.mark.parametrize("options", [FAST, BF16], ids=["fp32", "bf16"])


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A table of images, texts, recordings, numbers and categories. Every fifth row lacks some cells."""
    rows = make_rows(tmp_path, 45)
    for number, row in enumerate(rows):
        tone = wave(0.3, 200.0 * (1 + number % 3), seed=number)
        (tmp_path / f"{number}.wav").write_bytes(wav(tone))
        row["sound"] = f"{number}.wav"
        row["value"] = 2 * row["price"] + number % 3
        if number % 5 == 0:
            row["sound"] = row["text"] = ""
    return write_csv(tmp_path / "spoken.csv", rows)


def numbers(answers: pa.Table) -> np.ndarray:
    """Return the columns of numbers side by side."""
    columns = []
    for name in answers.column_names:
        if pa.types.is_floating(answers.schema.field(name).type):
            columns.append(answers[name].to_numpy())
    return np.stack(columns, 1)


@pytest.mark.parametrize("target", ["label", "value"])
def test_answers_on_both_devices_are_the_same(target: str, spoken: Path, tmp_path: Path) -> None:
    with exact_products():
        model = plait.fit(spoken, target, out=tmp_path / "run", overrides=FAST, quiet=True)
        on_gpu, vectors_on_gpu = model.predict(spoken), model.embed(spoken)
        with without_gpu():
            alone = plait.load(tmp_path / "run", quiet=True)
            on_cpu, vectors_on_cpu = alone.predict(spoken), alone.embed(spoken)
    np.testing.assert_allclose(numbers(on_gpu), numbers(on_cpu), atol=CLOSE, rtol=CLOSE)
    np.testing.assert_allclose(vectors_on_gpu, vectors_on_cpu, atol=CLOSE, rtol=CLOSE)
    assert np.ptp(numbers(on_cpu)) > 10 * CLOSE, "answers differ from row to row"


@pytest.mark.parametrize("target", ["label", "value"])
def test_a_fast_fit_answers_and_loads(target: str, spoken: Path, tmp_path: Path) -> None:
    with quality("fast"):
        model = plait.fit(spoken, target, out=tmp_path / "run", overrides=AUTO, quiet=True)
    answers = model.predict(spoken)
    assert len(answers) == 45
    scores = model.evaluate(spoken)
    assert target in scores.targets
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(numbers(again.predict(spoken)), numbers(answers), atol=ROUNDED, rtol=ROUNDED)


def test_half_precision_learns(table: Path, tmp_path: Path) -> None:
    losses = Losses()
    options = [*BF16, "training.epochs=12", "training.learning_rate=0.005", "training.batch_size=16"]
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=options, callbacks=[losses], quiet=True)
    of_steps = losses.numbers()
    assert all(map(math.isfinite, of_steps))
    assert np.mean(of_steps[-6:]) < 0.7 * np.mean(of_steps[:6])
    assert np.isfinite(numbers(model.predict(table))).all()


@pytest.mark.parametrize("objective", ["infonce", "siglip"])
@PRECISIONS
def test_an_alignment_is_trained(objective: str, options: list[str], table: Path, tmp_path: Path) -> None:
    columns = ["photo", "text"]
    options = [*options, f"tasks.alignment.objective={objective}", "tasks.alignment.bank=16"]
    model = plait.fit(table, align=columns, out=tmp_path / "run", overrides=options, quiet=True)
    vectors = model.embed(table, column="photo")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(again.embed(table, column="photo"), vectors, atol=ROUNDED)


@PRECISIONS
def test_texts_are_written(options: list[str], table: Path, tmp_path: Path) -> None:
    options = [*options, "tasks.text=generation"]
    model = plait.fit(table, "text", out=tmp_path / "run", overrides=options, quiet=True)
    assert len(model.predict(table)["text"]) == 48


def test_a_resumed_training_ends_like_an_unstopped_one(table: Path, tmp_path: Path) -> None:
    options = [*FAST, "training.batch_size=16"]
    with exact_products():
        with pytest.raises(Interrupted):
            plait.fit(
                table, "label", out=tmp_path / "run", overrides=options, callbacks=[StopAtStep(4)], quiet=True
            )
        plait.fit(table, "label", out=tmp_path / "run", overrides=options, quiet=True)
        plait.fit(table, "label", out=tmp_path / "at_once", overrides=options, quiet=True)
    resumed, at_once = weights(tmp_path / "run"), weights(tmp_path / "at_once")
    assert resumed.keys() == at_once.keys()
    for name, tensor in at_once.items():
        torch.testing.assert_close(resumed[name], tensor, atol=RESUMED, rtol=RESUMED, msg=name)


@pytest.mark.parametrize("mode", ["lora", "full", "frozen"])
@PRECISIONS
def test_a_pretrained_encoder_is_trained_further(
    mode: str, options: list[str], table: Path, tmp_path: Path
) -> None:
    folder = tiny_models.bert(tmp_path / "bert")
    losses = Losses()
    options = [*options, f"encoders.text={{name: pretrained, mode: {mode}, model: {folder}}}"]
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=options, callbacks=[losses], quiet=True)
    assert all(map(math.isfinite, losses.numbers()))
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(model.embed(table), again.embed(table), atol=ROUNDED, rtol=ROUNDED)


def test_frozen_encoders_give_the_same_vectors_on_both_devices(spoken: Path, tmp_path: Path) -> None:
    text, sound = tiny_models.bert(tmp_path / "bert"), tiny_models.speech_embedding(tmp_path / "speech")
    options = [
        *FAST,
        "training.epochs=1",
        "modalities.image.size=32",
        f"columns.text.encoder={{name: pretrained, mode: frozen, model: {text}}}",
        f"columns.sound.encoder={{name: pretrained, mode: frozen, model: {sound}}}",
    ]
    answers = []
    with exact_products():
        model = plait.fit(spoken, "label", out=tmp_path / "run", overrides=options, quiet=True)
        answers.append(numbers(model.predict(spoken)))
        with without_gpu():
            answers.append(numbers(plait.load(tmp_path / "run", quiet=True).predict(spoken)))
    np.testing.assert_allclose(*answers, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("member", ["linear", "trees", "tabm", "network"])
def test_members_learn_beside_a_network_on_the_gpu(member: str, table: Path, tmp_path: Path) -> None:
    options = [*FAST, f"ensemble.members={{one: {member}}}", "ensemble.folds=2"]
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=options, quiet=True)
    again = plait.load(tmp_path / "run", quiet=True)
    np.testing.assert_allclose(numbers(again.predict(table)), numbers(model.predict(table)), atol=CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["training.precision=bf16"],
        ["training.micro_batch=4"],
        ["columns.text.encoder=lstm"],
        ["columns.text.encoder=transformer"],
        ["balancing=famo"],
        ["training.mixup=0.2"],
    ],
    ids=" ".join,
)
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_a_training_step_never_waits_for_the_gpu(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = make_rows(tmp_path)
    for row in rows[::4]:
        row["photo"] = row["text"] = ""
    waits = CountWaits()
    table = write_csv(tmp_path / "holes.csv", rows)
    everything = [*FAST, "training.batch_size=16", *options]
    plait.fit(table, "label", out=tmp_path / "run", overrides=everything, callbacks=[waits], quiet=True)
    assert len(waits.steps) > 4
    later = waits.steps[3:]
    assert not any(later), later[-1]
