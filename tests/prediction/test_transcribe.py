"""Pretrained networks that transcribe, as they are: tiny ones with random weights, saved to disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import plait
from plait.cli.main import run
from plait.errors import RecipeError, TableError
from plait.prediction.transcribe import Transcriber, stretches
from plait.tasks.writing.pretrained_ctc import last_layer, letters
from plait.tasks.writing.spelling import UNKNOWN
from support import tiny_models
from support.answers import assert_same_answers
from support.media import tones, wav, wave


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "ctc": tiny_models.ctc(folder / "ctc"),
        "whisper": tiny_models.whisper(folder / "whisper"),
        "bert": tiny_models.bert(folder / "bert"),
    }


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    for i in range(3):
        (tmp_path / f"{i}.wav").write_bytes(wav(wave(0.5 + i / 4, 300 * (i + 1))))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:900])
    return [{"call": f"{i}.wav", "who": "x"} for i in range(3)] + [
        {"call": None, "who": "y"},
        {"call": "cut.wav", "who": "z"},
    ]


@pytest.mark.parametrize("kind", ["ctc", "whisper"])
def test_recordings_are_written_down_beside_the_table(
    kind: str, models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    answers = plait.transcribe(models[kind], rows, "call", name="said", root=tmp_path, quiet=True)
    assert answers.column_names == ["call", "who", "said", "problem"]
    texts = answers["said"].to_pylist()
    assert [text is None for text in texts] == [False, False, False, True, True]
    problems = answers["problem"].to_pylist()
    assert problems[:4] == [None] * 4
    assert problems[4].startswith("call: ")


def test_the_text_is_the_one_that_transformers_writes(models: dict[str, Path]) -> None:
    """Call the network and the tokenizer by hand."""
    transcriber = Transcriber(str(models["ctc"]))
    network = transcriber.network
    samples = wave(1.0, 500)
    x = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
    with torch.no_grad():
        network.lm_head.bias -= network(x).logits.mean((0, 1))  # else one letter may be the likeliest always
        network.lm_head.bias[5:] += 5  # letters rather than marks
    with torch.inference_mode():
        ids = network(x).logits.argmax(-1)
    expected = transcriber.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert len(expected) > 20
    error_rate = jiwer.cer(expected, transcriber(samples))
    assert error_rate < 0.05, "two letters may be nearly as likely as each other"


def test_a_long_recording_is_cut_where_it_is_quiet() -> None:
    samples = np.random.default_rng(0).normal(size=2500).astype(np.float32)
    samples[930:960] = 0
    cut = stretches(samples, 1000)
    assert 930 <= len(cut[0]) <= 960
    assert np.array_equal(np.concatenate(cut), samples)
    assert all(len(stretch) <= 1000 for stretch in cut)
    assert len(stretches(samples[:1000], 1000)) == 1


def test_a_network_or_column_that_does_not_fit_is_an_error(
    models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="is a BertModel; expected one for CTC"):
        plait.transcribe(models["bert"], rows, "call", root=tmp_path, quiet=True)
    with pytest.raises(TableError, match=r"call, who: say which one holds the recordings"):
        plait.transcribe(models["ctc"], rows, root=tmp_path, quiet=True)
    with pytest.raises(plait.PlaitError, match="did you mean 'call'"):
        plait.transcribe(models["ctc"], rows, "calls", root=tmp_path, quiet=True)


@pytest.mark.parametrize("kind", ["ctc", "whisper"])
def test_a_recording_of_a_few_samples_is_answered(kind: str, models: dict[str, Path]) -> None:
    transcriber = Transcriber(str(models[kind]))
    for samples in (1, 100, 399):
        assert isinstance(transcriber(np.ones(samples, dtype=np.float32)), str)


def test_a_language_that_the_network_does_not_take_is_an_error(models: dict[str, Path]) -> None:
    transcriber = Transcriber(str(models["whisper"]), language="xx")
    with pytest.raises(RecipeError, match="does not take the language 'xx'"):
        transcriber(wave(0.5, 300))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_folder_with_a_damaged_file_is_an_error(file: str, tmp_path: Path) -> None:
    folder = tiny_models.whisper(tmp_path / "whisper")
    for content in ("", "{", "[]"):
        (folder / file).write_text(content)
        with pytest.raises(RecipeError, match="cannot be loaded as a transcriber"):
            Transcriber(str(folder))


def test_from_the_command_line(models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    table, out = tmp_path / "calls.csv", tmp_path / "out.csv"
    table.write_text("call\n0.wav\n1.wav\n")
    assert run(["transcribe", str(models["ctc"]), str(table), "-o", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 3


def test_a_pretrained_network_is_trained_further_on_transcripts(
    models: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """All of its encoder is trained, under a new last layer."""
    table = [{"call": row["call"], "said": "a red apple"[i:]} for i, row in enumerate(rows[:3])] * 4
    overrides = [
        "tasks.said=transcription",
        f"encoders.audio={{name: pretrained, model: {models['ctc']}, mode: full, pool: none}}",
        "training.epochs=2",
    ]
    model = plait.fit(table, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    assert len(model.predict(table, tmp_path)) == 12


@pytest.mark.parametrize("written", ["abcdefgh", "ABCDEFGH"])
def test_training_begins_at_the_networks_letters_and_last_layer(written: str, tmp_path: Path) -> None:
    """After a step of no length, the text is that of the network's logits for letters, blank and unknown."""
    folder, rows = tiny_models.ctc(tmp_path / "ctc", written), tones(tmp_path, 24)
    overrides = [
        f"tasks.said={{name: transcription, model: {folder}}}",
        "training.epochs=1",
        "training.learning_rate=1e-9",
        "training.precision=fp32",
    ]
    model = plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    assert model.plan.columns["call"].encoder.options["mode"] == "full"

    network = Transcriber(str(folder)).network
    letter_of = dict(enumerate(" abcdefgh", start=1))
    columns = [0, *range(4, 13), 3]  # of the blank, the blank between words and letters, the unknown
    expected = []
    for row in rows[:3]:
        samples, _ = soundfile.read(tmp_path / row["call"], dtype="float32")
        x = torch.from_numpy(samples)
        x = (x - x.mean()) / (x.var(correction=0) + 1e-7).sqrt()
        with torch.inference_mode():
            logits = network(x[None]).logits[0]
        path = logits[:, columns].argmax(-1).unique_consecutive().tolist()
        letters_of_path = [letter_of.get(i, UNKNOWN) for i in path if i]
        expected.append("".join(letters_of_path).strip())
    assert [text.strip() for text in model.predict(rows[:3], tmp_path)["said"].to_pylist()] == expected
    assert any(expected)


def test_it_is_trained_further_and_saved_without_its_folder(tmp_path: Path) -> None:
    folder, rows = tiny_models.ctc(tmp_path / "ctc"), tones(tmp_path, 60)
    overrides = [
        f"tasks.said={{name: transcription, model: {folder}, rate: 1.0}}",
        "training.epochs=12",
        "training.batch_size=15",
        "training.keep=last",
        f"encoders.audio={{name: pretrained, model: {folder}, mode: full, pool: none, norm: false, rate: "
        f"1.0}}",
        "training.learning_rate=0.01",
    ]
    model = plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    losses = [epoch["loss"] for epoch in model.record["history"]]
    assert losses[-1] < losses[0] / 3

    trained = load_file(model.folder / "weights.safetensors")
    pretrained = load_file(folder / "model.safetensors")
    (last_layer,) = [
        x for name, x in trained.items() if name.startswith("tasks.") and name.endswith("weight")
    ]
    first_values = pretrained["lm_head.weight"][[0, *range(4, 13), 3]]
    assert 1e-3 < (last_layer - first_values).abs().max() < 1, "trained, and from there on"

    answers = model.predict(rows[:5], tmp_path)
    shutil.rmtree(folder)
    loaded = plait.load(model.folder, quiet=True)
    assert_same_answers(loaded.predict(rows[:5], tmp_path), answers)


def test_training_from_a_network_that_does_not_fit_is_an_error(
    models: dict[str, Path], tmp_path: Path
) -> None:
    rows = tones(tmp_path, 12)

    def fit(options: str, *more: str) -> None:
        overrides = [f"tasks.said={{name: transcription, {options}}}", "training.epochs=1", *more]
        plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)

    with pytest.raises(
        RecipeError, match="is a Wav2Vec2Model; expected one for CTC, or one that generates text from speech"
    ):
        fit(f"model: {tiny_models.wav2vec2(tmp_path / 'waves')}")
    with pytest.raises(RecipeError, match=r"is a 'bert'; for audio expected one of wav2vec2, .*, whisper"):
        fit("units: characters", f"encoders.audio={{name: pretrained, model: {models['bert']}}}")
    with pytest.raises(
        RecipeError, match=r"the decoder of '.*' takes vectors of 16, the encoder of 'call' makes 128"
    ):
        fit(f"model: {models['whisper']}", "encoders.audio=crnn")
    with pytest.raises(RecipeError, match="knows one language only: leave out language=en"):
        fit(f"model: {models['whisper']}, language: en")
    with pytest.raises(RecipeError, match="generates text, which ngram has no part in"):
        fit(f"model: {models['whisper']}, ngram: 3")
    several = tiny_models.whisper(tmp_path / "several", languages=("en", "it"))
    with pytest.raises(RecipeError, match="knows 2 languages; say which one is spoken, as in language: en"):
        fit(f"model: {several}")
    with pytest.raises(RecipeError, match="knows 2 languages; no language 'ti': there are: en, it"):
        fit(f"model: {several}, language: ti")
    with pytest.raises(
        RecipeError, match="takes 8 mel bands, the recordings have 40: leave the modality's bands to it"
    ):
        fit(f"model: {models['whisper']}", "modalities.audio.bands=40")
    with pytest.raises(RecipeError, match="language tells a pretrained network"):
        fit("language: en")
    with pytest.raises(RecipeError, match="takes vectors of 32, the encoder of 'call' makes 128"):
        fit(f"model: {models['ctc']}", "encoders.audio=crnn")
    with pytest.raises(
        RecipeError, match="has letters of its own; expected units 'characters', came 'subwords'"
    ):
        fit(f"model: {models['ctc']}, units: subwords")


def test_a_vocabulary_that_lacks_what_ctc_needs_is_an_error(tmp_path: Path) -> None:
    folder = tiny_models.ctc(tmp_path / "ctc")
    vocabulary_file = folder / "vocab.json"
    saved = json.loads(vocabulary_file.read_text())
    spelling, places = letters(str(folder), "spoken")
    assert spelling.pieces == [*" abcdefgh", UNKNOWN]
    assert places == [0, *range(4, 13), 3]

    del saved["<unk>"]  # which may be missing
    vocabulary_file.write_text(json.dumps(saved))
    _, places = letters(str(folder), "spoken")
    weight_VD, bias_V = last_layer(str(folder), places)
    assert torch.equal(weight_VD[-1], weight_VD[0])
    assert bias_V[-1] == bias_V[0] - 10, "what is unknown takes nothing of the blank's probability"

    for vocabulary, message in (
        ({"abc": 1, "<pad>": 0}, "writes 'abc' at once"),
        ({"a": 1}, "has no '<pad>' among its letters"),
        ({"en": {"a": 1}}, "its letters in vocab.json"),
    ):
        vocabulary_file.write_text(json.dumps(vocabulary))
        with pytest.raises(RecipeError, match=message):
            letters(str(folder), "spoken")
    with pytest.raises(RecipeError, match="have no last layer"):
        last_layer(str(tiny_models.wav2vec2(tmp_path / "waves")), [0])
