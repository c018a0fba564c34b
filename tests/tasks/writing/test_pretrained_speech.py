"""Pretrained networks that generate text from speech, trained further: tiny ones with random weights,
saved to disk.
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
from plait.pretrained import files
from plait.pretrained import network as networks
from support import tiny_models
from support.media import tones, wav, wave


@pytest.mark.parametrize("languages", [(), ("en", "it")])
def test_training_begins_at_a_pretrained_speech_network(languages: tuple[str, ...], tmp_path: Path) -> None:
    """After a step of no length: what is written is what the network itself generates of what its own
    extractor makes of a recording.
    """
    folder, rows = tiny_models.whisper(tmp_path / "whisper", languages=languages), tones(tmp_path, 12)
    spoken = ", language: it" if languages else ""
    overrides = [
        f"tasks.said={{name: transcription, model: {folder}{spoken}}}",
        "training.epochs=1",
        "training.learning_rate=1e-9",
        "training.precision=fp32",
    ]
    model = plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    assert model.plan.columns["call"].encoder.options["mode"] == "full"
    transcriber, task = Transcriber(str(folder)), model.network.tasks["said"]
    id_of = transcriber.tokenizer.convert_tokens_to_ids
    marks = [
        f"<|{name}|>"
        for name in ("startoftranscript", *(("it", "transcribe") if languages else ()), "notimestamps")
    ]
    assert task.prefix == [id_of(mark) for mark in marks]
    expected = []
    for row in rows[:3]:
        x = soundfile.read(tmp_path / row["call"], dtype="float32")[0]
        spectrogram = torch.from_numpy(transcriber.extractor(x, sampling_rate=16_000)["input_features"][0])[
            None
        ]
        ids, begun = [], torch.tensor([task.prefix])
        while len(ids) < min(task.longest * 3 // 2, task.config.longest):
            with torch.no_grad():
                logits = transcriber.network(
                    spectrogram,
                    decoder_input_ids=torch.cat([begun, torch.tensor([ids], dtype=torch.long)], 1),
                ).logits[0, -1]
            logits[[id_of(mark) for mark in (*marks, "<|0.00|>", "<|transcribe|>")]] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == id_of("<|endoftext|>"):
                break
        expected.append(transcriber.tokenizer.decode(ids, skip_special_tokens=True).strip())
    assert [text.strip() for text in model.predict(rows[:3], tmp_path)["said"].to_pylist()] == expected
    assert any(expected)


def test_spectra_are_those_of_the_networks_own_extractor(tmp_path: Path) -> None:
    folder = tiny_models.whisper(tmp_path / "whisper")
    architecture = files.read_json(folder, "config.json")
    audio = Audio(AudioConfig(**networks.asked(str(folder), architecture, "audio")))
    sound = np.concatenate(
        [wave(1.3, 500) + 0.1 * wave(1.3, 3000), np.zeros(800, np.float32)]
    )  # ends differ where they are not silent
    (cell,) = [audio.prepare(Media(wav(sound), tmp_path))]
    assert cell is not None
    values = audio.transform(
        Values(torch.from_numpy(cell.array)[None], torch.tensor([len(cell.array)])), None
    )
    network = networks.Network(str(folder), files.identity(folder), architecture, "vision_config")
    spectrogram = torch.from_numpy(
        WhisperFeatureExtractor.from_pretrained(folder)(sound, sampling_rate=16_000)["input_features"][0]
    )[None]
    body = network.on(torch.device("cpu"))
    with torch.inference_mode():
        expected = body(spectrogram).last_hidden_state
        output = network.vectors(body, values, "spectrogram", "none", False)
        (pooled,) = network.vectors(body, values, "spectrogram", "mean", False).x
    assert output.x.shape == (1, 1500, 16)
    torch.testing.assert_close(output.x, expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(
        pooled[0], output.x[0, : (len(cell.array) + 1) // 2].mean(0), atol=1e-5, rtol=0
    )


def test_a_pretrained_speech_network_is_trained_and_saved_whole(
    tmp_path: Path,
) -> None:
    folder, rows = tiny_models.whisper(tmp_path / "whisper", seconds=1), tones(tmp_path, 30)
    rows += [
        {"call": None, "said": "had"},
        {"call": "t0.wav", "said": "a bed " * 20},
    ]  # nothing to hear; more than it can write
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
    exact_matches = [text == row["said"] for text, row in zip(texts[:12], rows, strict=False)].count(True)
    assert exact_matches > 6, "of three texts, the same one for all is right four times"
    shutil.rmtree(folder)
    assert plait.load(model.folder, quiet=True).predict(rows, tmp_path).equals(answers)
