"""Pretrained networks that write what is said, as they are: tiny ones with random weights, saved to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
import tiny_models
from media import wav, wave
from plait.cli import run
from plait.errors import RecipeError, TableError
from plait.transcriber import Transcriber, windows


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"ctc": tiny_models.ctc(folder / "ctc"), "whisper": tiny_models.whisper(folder / "whisper"), "bert": tiny_models.bert(folder / "bert")}


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    for i in range(3):
        (tmp_path / f"{i}.wav").write_bytes(wav(wave(0.5 + i / 4, 300 * (i + 1))))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:900])
    return [{"call": f"{i}.wav", "who": "x"} for i in range(3)] + [{"call": None, "who": "y"}, {"call": "cut.wav", "who": "z"}]


@pytest.mark.parametrize("kind", ["ctc", "whisper"])
def test_recordings_are_written_down_beside_the_table(kind: str, models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = plait.transcribe(models[kind], rows, "call", name="said", root=tmp_path, quiet=True)
    assert found.column_names == ["call", "who", "said", "problem"]
    said = found["said"].to_pylist()
    assert [text is None for text in said] == [False, False, False, True, True]
    assert found["problem"].to_pylist()[:4] == [None] * 4
    assert found["problem"].to_pylist()[4].startswith("call: ")


def test_it_says_what_transformers_says(models: dict[str, Path]) -> None:
    """The network and the tokenizer called by hand."""
    heard, sound = Transcriber(str(models["ctc"])), wave(1.0, 500)
    x = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.no_grad():
        heard.network.lm_head.bias[5:] += 5  # letters rather than marks
    with torch.inference_mode():
        ids = heard.network(torch.from_numpy(x)[None]).logits.argmax(-1)
    assert heard(sound) == heard.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert len(heard(sound)) > 2


def test_a_long_recording_is_cut_where_it_is_quiet() -> None:
    sound = np.random.default_rng(0).normal(size=2500).astype(np.float32)
    sound[930:960] = 0
    parts = windows(sound, 1000)
    assert 930 <= len(parts[0]) <= 960
    assert np.array_equal(np.concatenate(parts), sound)
    assert all(len(part) <= 1000 for part in parts)
    assert len(windows(sound[:1000], 1000)) == 1


def test_what_is_no_transcriber_is_told(models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a BertModel; expected one for CTC"):
        plait.transcribe(models["bert"], rows, "call", root=tmp_path, quiet=True)
    with pytest.raises(TableError, match=r"call, who: say which one holds the recordings"):
        plait.transcribe(models["ctc"], rows, root=tmp_path, quiet=True)
    with pytest.raises(plait.PlaitError, match="did you mean 'call'"):
        plait.transcribe(models["ctc"], rows, "calls", root=tmp_path, quiet=True)


def test_from_the_command_line(models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text("call\n0.wav\n1.wav\n")
    assert run(["transcribe", str(models["ctc"]), str(tmp_path / "calls.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_pretrained_network_is_trained_further_on_transcripts(models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Its encoder is, whole, under a new last layer."""
    table = [{"call": row["call"], "said": "a red apple"[i:]} for i, row in enumerate(rows[:3])] * 4
    overrides = [
        "tasks.said=transcription",
        f"encoders.audio={{name: pretrained, model: {models['ctc']}, mode: full, pool: none}}",
        "training.epochs=2",
    ]
    model = plait.fit(table, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    assert len(model.predict(table, tmp_path)) == 12
