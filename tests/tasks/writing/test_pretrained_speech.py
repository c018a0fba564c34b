"""Pretrained networks that generate text from speech are trained further.

The networks are tiny, with random weights, and saved to disk.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

import plait
from plait.media.cell import Media
from plait.modalities.audio import Audio
from plait.modalities.audio import Config as AudioConfig
from plait.nn.batch import Values
from plait.prediction.transcribe import Transcriber
from plait.pretrained import files, inputs
from plait.pretrained.network import Network
from support import tiny_models
from support.answers import assert_same_answers
from support.media import tones, wav, wave


@pytest.mark.parametrize("languages", [(), ("en", "it")])
def test_training_begins_at_a_network_that_generates_text(languages: tuple[str, ...], tmp_path: Path) -> None:
    """After a step of no length, it writes what the network itself generates from a recording."""
    folder = tiny_models.whisper(tmp_path / "whisper", languages=languages)
    rows = tones(tmp_path, 12)
    language = ", language: it" if languages else ""
    overrides = [
        f"tasks.said={{name: transcription, model: {folder}{language}}}",
        "training.epochs=1",
        "training.learning_rate=1e-9",
        "training.precision=fp32",
    ]
    model = plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    assert model.plan.columns["call"].encoder.options["mode"] == "full"
    transcriber, task = Transcriber(str(folder)), model.network.tasks["said"]
    to_id = transcriber.tokenizer.convert_tokens_to_ids
    marks = ["<|startoftranscript|>", "<|notimestamps|>"]
    if languages:
        marks[1:1] = ["<|it|>", "<|transcribe|>"]
    assert task.writer.network.prefix == [to_id(mark) for mark in marks]

    never = [to_id(mark) for mark in (*marks, "<|0.00|>", "<|transcribe|>")]
    limit = min(task.writer.longest * 3 // 2, task.config.longest)
    expected = []
    for row in rows[:3]:
        samples, _ = soundfile.read(tmp_path / row["call"], dtype="float32")
        ids = likeliest_ids(transcriber, samples, task.writer.network.prefix, never, limit)
        text = transcriber.tokenizer.decode(ids, skip_special_tokens=True)
        expected.append(text.strip())
    texts = model.predict(rows[:3], tmp_path)["said"].to_pylist()
    assert [text.strip() for text in texts] == expected
    assert any(expected)


@torch.no_grad()
def likeliest_ids(
    transcriber: Transcriber, samples: np.ndarray, prefix: list[int], never: list[int], limit: int
) -> list[int]:
    """Return the ids that the network itself generates, each the likeliest one after those before it."""
    features = transcriber.extractor(samples, sampling_rate=16_000)["input_features"]
    spectrogram = torch.from_numpy(features[0])[None]
    end = transcriber.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids: list[int] = []
    while len(ids) < limit and end not in ids:
        output = transcriber.network(spectrogram, decoder_input_ids=torch.tensor([prefix + ids]))
        logits = output.logits[0, -1]
        logits[never] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids


def test_spectra_are_those_of_the_networks_own_extractor(tmp_path: Path) -> None:
    folder = tiny_models.whisper(tmp_path / "whisper")
    architecture = files.read_json(folder, "config.json")
    audio = Audio(AudioConfig(**inputs.asked(str(folder), architecture, "audio")))

    # It ends in silence, because both extractors differ at ends that are not silent.
    samples = np.concatenate([wave(1.3, 500) + 0.1 * wave(1.3, 3000), np.zeros(800, np.float32)])
    cell = audio.prepare(Media(wav(samples), tmp_path))
    assert cell is not None
    prepared = Values(torch.from_numpy(cell.array)[None], torch.tensor([len(cell.array)]))
    values = audio.transform(prepared, None)
    network = Network(str(folder), files.identity(folder), architecture, "vision_config")
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(samples, sampling_rate=16_000)["input_features"]
    spectrogram = torch.from_numpy(features[0])[None]
    body = network.on(torch.device("cpu"))
    with torch.inference_mode():
        expected = body(spectrogram).last_hidden_state
        output = network.vectors(body, values, "spectrogram", "none", False)
        (pooled,) = network.vectors(body, values, "spectrogram", "mean", False).x
    assert output.x.shape == (1, 1500, 16)
    torch.testing.assert_close(output.x, expected, atol=5e-3, rtol=0)
    steps = (len(cell.array) + 1) // 2
    torch.testing.assert_close(pooled[0], output.x[0, :steps].mean(0), atol=1e-5, rtol=0)


def test_a_network_that_generates_text_is_trained_further(tmp_path: Path) -> None:
    folder, rows = tiny_models.whisper(tmp_path / "whisper", seconds=1), tones(tmp_path, 30)
    no_recording = {"call": None, "said": "had"}
    too_long = {"call": "t0.wav", "said": "a bed " * 20}
    rows += [no_recording, too_long]
    overrides = [
        f"tasks.said={{name: transcription, model: {folder}, rate: 1.0, beam: 2}}",
        "training.epochs=60",
        "training.batch_size=8",
        "training.keep=last",
        f"encoders.audio={{name: pretrained, model: {folder}, mode: full, pool: none, norm: false, rate: "
        f"1.0}}",
        "training.learning_rate=0.01",
    ]
    model = plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    losses = [epoch["loss"] for epoch in model.record["history"]]
    assert losses[-1] < losses[0] / 3
    answers = model.predict(rows, tmp_path)
    texts = answers["said"].to_pylist()
    assert texts[30] is None
    is_exact = [text == row["said"] for text, row in zip(texts[:12], rows[:12], strict=True)]
    assert sum(is_exact) > 6, "of three texts, the same one for all is right four times"

    # The run's folder is all it needs.
    shutil.rmtree(folder)
    assert_same_answers(plait.load(model.folder, quiet=True).predict(rows, tmp_path), answers)
