"""Pretrained networks that read aloud, as they are: tiny ones with random weights, saved to disk."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, VitsModel

import plait
from plait.cli.main import run
from plait.errors import RecipeError, TableError
from plait.prediction.speak import Speaker
from support import tiny_models

ROWS = [
    {"text": "a red apple", "n": 1},
    {"text": None, "n": 2},
    {"text": "sky", "n": 3},
    {"text": "  ", "n": 4},
    {"text": "sky", "n": 5},
]


def read_wav(content: bytes) -> tuple[np.ndarray, int]:
    wave, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return wave, rate


def test_texts_are_read_aloud_beside_the_table(tmp_path: Path) -> None:
    folder = tiny_models.vits(tmp_path / "vits")
    answers = plait.speak(folder, ROWS, "text", quiet=True)
    assert answers.column_names == ["text", "n", "speech", "problem"]
    spoken = answers["speech"].to_pylist()
    assert [content is None for content in spoken] == [False, True, False, True, False]
    wave, rate = read_wav(spoken[0])
    assert rate == 16_000
    assert len(wave) > 100
    assert np.abs(wave).max() > 0
    assert spoken[2] == spoken[4], "the same text is read the same way, wherever it stands"


def test_the_wave_is_the_one_that_transformers_makes(tmp_path: Path) -> None:
    speaker = Speaker(str(tiny_models.vits(tmp_path / "vits", voices=3)), voice="2")
    network = VitsModel.from_pretrained(tmp_path / "vits").eval()
    for module in (network, speaker.network):
        module.noise_scale = module.noise_scale_duration = 0.0
    inputs = speaker.tokenizer("a red apple", return_tensors="pt")
    with torch.no_grad():
        expected = network(**inputs, speaker_id=2).waveform[0]
    np.testing.assert_allclose(speaker("a red apple"), expected.numpy(), atol=1e-5)


def test_spectra_go_through_a_vocoder(tmp_path: Path) -> None:
    folder = tiny_models.speecht5(tmp_path / "speecht5")
    voice = np.random.default_rng(0).normal(size=6).astype(np.float32)
    np.save(tmp_path / "voice.npy", voice)
    speaker = Speaker(str(folder), str(tmp_path / "vocoder"), str(tmp_path / "voice.npy"))
    network = SpeechT5ForTextToSpeech.from_pretrained(folder).eval()
    vocoder = SpeechT5HifiGan.from_pretrained(tmp_path / "vocoder").eval()
    wave = speaker("sky")
    assert len(wave) > 0

    # The network's prenet drops numbers at random, also in eval mode.
    ids = speaker.tokenizer("sky", return_tensors="pt")["input_ids"]
    seed = int.from_bytes(hashlib.blake2b(b"sky", digest_size=4).digest())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        expected = network.generate_speech(ids, torch.from_numpy(voice)[None], vocoder=vocoder)
    np.testing.assert_allclose(wave, expected.numpy(), atol=1e-5)


def test_a_text_that_is_too_long_is_a_problem_of_its_row(tmp_path: Path) -> None:
    folder = tiny_models.speecht5(tmp_path / "speecht5")
    np.save(tmp_path / "voice.npy", np.zeros(6))
    rows = [{"text": "sky"}, {"text": "sky " * 1000}]
    files = {"vocoder": tmp_path / "vocoder", "voice": str(tmp_path / "voice.npy")}
    answers = plait.speak(folder, rows, **files, quiet=True)
    assert [content is None for content in answers["speech"].to_pylist()] == [False, True]
    assert "tokens; the network reads at most 450: cut it" in answers["problem"][1].as_py()


def test_a_network_or_voice_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    vits = tiny_models.vits(tmp_path / "vits", voices=2)
    speecht5 = tiny_models.speecht5(tmp_path / "speecht5")
    files = {}
    for name, content in (("empty", b""), ("zip", b"PK\x03\x04nothing"), ("text", b"a voice")):
        files[name] = tmp_path / f"{name}.npy"
        files[name].write_bytes(content)
    np.save(tmp_path / "wide.npy", np.zeros(7))
    np.savez(tmp_path / "several.npz", voice=np.zeros(6))

    for arguments, message in (
        ((tiny_models.bert(tmp_path / "bert"),), "is a 'bert'; expected a network that reads aloud"),
        ((vits, "somewhere"), "needs no vocoder"),
        ((vits, None, "2"), "has 2 voices; no voice 2 among 0 to 1"),
        ((vits, None, "x.npy"), "takes the number of a voice"),
        ((speecht5,), "makes spectra: say which network makes a wave of them"),
        ((speecht5, tmp_path / "vocoder"), "takes the vector of a voice"),
        ((speecht5, tmp_path / "vocoder", "7"), "takes the vector of a voice, no number"),
        ((speecht5, tmp_path / "vocoder", str(tmp_path / "none.npy")), "is no file of NumPy"),
        ((speecht5, tmp_path / "vocoder", files["empty"]), "is no file of NumPy"),
        ((speecht5, tmp_path / "vocoder", files["zip"]), "is no file of NumPy"),
        ((speecht5, tmp_path / "vocoder", files["text"]), "is no file of NumPy"),
        ((speecht5, tmp_path / "vocoder", tmp_path / "several.npz"), "is no file of NumPy"),
        ((speecht5, tmp_path / "vocoder", tmp_path / "wide.npy"), "takes a voice of 6 numbers.* has 7"),
    ):
        model, *options = (None if argument is None else str(argument) for argument in arguments)
        with pytest.raises(RecipeError, match=message):
            Speaker(str(model), *options)
    with pytest.raises(TableError, match="say which one holds the texts"):
        plait.speak(vits, ROWS, quiet=True)


def test_from_the_command_line(tmp_path: Path) -> None:
    folder = tiny_models.vits(tmp_path / "vits")
    (tmp_path / "t.csv").write_text("text\na red apple\nsky\n")
    assert run(["speak", str(folder), str(tmp_path / "t.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    assert sorted(f.name for f in (tmp_path / "out-files").iterdir()) == [
        "speech-00000.wav",
        "speech-00001.wav",
    ]
    assert "out-files/speech-00001.wav" in (tmp_path / "out.csv").read_text()
