"""Embeddings of frozen encoders, which take the place of the cells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import plait
from plait.table.read import read
from support import tiny_models
from support.media import wav, wave


@pytest.mark.parametrize("view", ["windows", "whole"])
def test_a_long_recording_has_a_vector_for_each_window(tmp_path: Path, view: str) -> None:
    network = tiny_models.wav2vec2(tmp_path / "wav2vec2")
    rows = []
    for number in range(12):
        seconds = 0.5 if number % 2 else 1.5
        rows.append({"sound": wav(wave(seconds, 300 + 10 * number)), "label": "ab"[number % 2]})
    model = plait.fit(
        rows,
        "label",
        out=tmp_path / "run",
        overrides=[
            f"encoders.audio={{name: pretrained, model: {network}, mode: frozen}}",
            f"modalities.audio.view={view}",
            "modalities.audio.seconds=1",
            "training.epochs=1",
            "training.precision=fp32",
        ],
        quiet=True,
        evaluate=False,
    )

    embedded = model.network.prepare(read(rows)).prepared.batch.values["sound"]
    assert embedded.length_B is not None
    assert embedded.length_B.tolist() == [2, 1] * 6

    # The encoder makes the same of the cells themselves.
    preprocessing, encoder = model.network.preprocessing, model.network.model.encoder("sound")
    batch = preprocessing.transform(preprocessing.prepare(read(rows)).batch)
    with torch.inference_mode():
        expected = encoder.encode(batch.values["sound"], batch.present["sound"])
        tokens = encoder.encode(embedded, batch.present["sound"])
    torch.testing.assert_close(tokens.pooled_BD(), expected.pooled_BD(), atol=1e-4, rtol=1e-4)
