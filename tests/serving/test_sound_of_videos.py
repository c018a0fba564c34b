"""A video in a request has its sound, as it has in a table."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import plait
from support.media import clip, wave
from support.serving import served

TONES = {"low": 300, "high": 2500}
QUICK = [
    "training.epochs=6",
    "training.precision=fp32",
    "modalities.audio.bands=16",
    "modalities.audio.hop=0.02",
    "encoders.audio={name: audio_cnn, channels: [4, 8], width: 8}",
    "modalities.video.size=16",
    "modalities.video.frames=4",
    "encoders.video={name: conv3d, channels: [4, 8]}",
]


def test_the_sound_of_a_video_is_part_of_the_answer(tmp_path: Path) -> None:
    rows = []
    for number in range(32):
        label = list(TONES)[number % 2]
        (tmp_path / f"{number}.mp4").write_bytes(clip(6, sound=wave(0.3, TONES[label], seed=number)))
        rows.append({"film": f"{number}.mp4", "pitch": label})
    model = plait.fit(rows, "pitch", root=tmp_path, out=tmp_path / "run", overrides=QUICK, quiet=True)
    assert "film.sound" in model.inputs

    with served(model.folder) as client:
        columns = [known["name"] for known in client.get("/schema").json()["inputs"]]
        assert columns == ["film"]
        for row in rows[:2]:
            content = (tmp_path / row["film"]).read_bytes()
            sent = {"film": base64.b64encode(content).decode()}
            (answer,) = client.post("/predict", json=sent).json()["answers"]
            (expected,) = model.predict(row, root=tmp_path).to_pylist()
            assert answer["pitch_probability_low"] == pytest.approx(
                expected["pitch_probability_low"], abs=1e-4
            )
