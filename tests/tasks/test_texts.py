"""Texts as answers, from table to table: transcripts of tones, and descriptions of images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.cli.main import run
from plait.errors import RecipeError, TrainingError
from plait.nn.batch import Tokens
from plait.table.table import Source
from plait.tasks.base import tasks
from plait.tasks.base_text import TextTask
from plait.tasks.writing.spelling import ABSENT
from support import tiny_models
from support.answers import assert_same_answers
from support.media import wav
from support.paths import texts_of
from support.sounds import tones
from support.tables import COLOURS, make_rows
from support.tasks import task_names

FAST_AUDIO = [
    "training.precision=fp32",
    "modalities.audio.bands=24",
    "modalities.audio.hop=0.02",
    "modalities.audio.gain=0",
    "modalities.audio.time_masks=0",
    "modalities.audio.band_masks=0",
    "encoders.audio={name: crnn, channels: [8, 8], width: 24, dropout: 0}",
    "training.learning_rate=0.01",
]
FAST_IMAGES = [
    "training.precision=fp32",
    "modalities.image.size=16",
    "encoders.image={name: cnn, channels: [4, 8], pool: none}",
    "training.learning_rate=0.005",
    "task_defaults.generation={width: 32, layers: 1, dropout: 0}",
]


SOURCE = Source("said", Path())


@pytest.fixture(scope="module")
def transcribing(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("tones")
    rows = tones(folder, 90)
    rows[3]["said"] = None
    overrides = [*FAST_AUDIO, "tasks.said={name: transcription, ngram: 2, beam: 4}", "training.epochs=60"]
    model = plait.fit(rows, "said", root=folder, out=folder / "run", overrides=overrides, quiet=True)
    return model, folder


def test_tones_are_transcribed(transcribing: tuple[plait.Model, Path]) -> None:
    model, folder = transcribing
    new = tones(folder, 30, seed=1)
    answers = model.predict([{"sound": row["sound"]} for row in new], folder)
    assert answers.column_names == ["said", "problem"]
    scores = model.evaluate(new, folder).targets["said"]
    assert scores.score == "cer"
    assert scores.metrics["cer"].value < 0.1
    assert scores.metrics["cer"].value < scores.baseline["cer"] / 3
    pairs = zip(answers["said"].to_pylist(), new, strict=True)
    is_exact = [text == row["said"] for text, row in pairs]
    assert np.mean(is_exact) == pytest.approx(scores.metrics["exact_match"].value)


def samples_of(path: Path) -> np.ndarray:
    """Return the samples of a WAV file, behind a header of 44 bytes."""
    return np.frombuffer(path.read_bytes()[44:], np.int16)


def test_a_long_recording_is_transcribed_to_its_end(transcribing: tuple[plait.Model, Path]) -> None:
    """Longer than a window of 20 s: three quarters of silence between two stretches of tones."""
    model, folder = transcribing
    start, end = tones(folder, 2, seed=5)
    silence = np.zeros(16_000 * 23, np.int16)
    wave = np.concatenate([samples_of(folder / start["sound"]), silence, samples_of(folder / end["sound"])])
    noise = np.random.default_rng(0).normal(0, 0.0002, len(wave)).astype(np.float32)
    noisy = wave.astype(np.float32) / 32768 + noise
    (folder / "long.wav").write_bytes(wav(noisy))
    (folder / "cut.wav").write_bytes(wav(noisy)[:3000])
    answers = model.predict([{"sound": "long.wav"}, {"sound": None}, {"sound": "cut.wav"}], folder)
    text, *other_texts = answers["said"].to_pylist()
    assert text.startswith(start["said"][0])
    assert text.endswith(end["said"][-1]), text
    assert other_texts == [None, None]
    assert "cut.wav" in answers["problem"].to_pylist()[2]


def test_a_saved_model_answers_the_same_and_feeds_another_one(
    transcribing: tuple[plait.Model, Path], tmp_path: Path
) -> None:
    model, folder = transcribing
    new = tones(folder, 12, seed=2)
    table, out = tmp_path / "new.csv", tmp_path / "read.csv"
    lines = [f"{row['sound']},{row['said']}" for row in new]
    table.write_text("\n".join(["sound,said", *lines]))
    options = ["--root", str(folder), "--keep", "-o", str(out)]
    assert run(["predict", str(model.folder), str(table), *options]) == 0
    lines = out.read_text().splitlines()
    assert lines[0].replace('"', "") == "sound,said,said_answer,problem"
    assert len(lines) == 13
    assert_same_answers(plait.load(model.folder, quiet=True).predict(new, folder), model.predict(new, folder))


def test_a_recording_too_short_for_its_text_is_an_error(tmp_path: Path) -> None:
    rows = tones(tmp_path, 12)
    for row in rows:
        row["said"] = row["said"] * 30
    overrides = [*FAST_AUDIO, "tasks.said=transcription", "training.epochs=1"]
    with pytest.raises(TrainingError, match="each needs a step of its own: take a smaller hop"):
        plait.fit(rows, "said", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)


def test_the_loss_is_the_sum_over_all_paths() -> None:
    """It is -log p(text) for each unit (Graves et al. 2006, eq. 3). Here all paths are counted."""
    cells = pa.chunked_array([["ab", "b", None]])
    task = tasks.find("transcription").fit(tasks.configure("transcription", {}), cells, "said")
    task.build_head({"sound": 5})
    task.eval()
    mask = torch.tensor([[True] * 4, [True, True, False, True], [False] * 4])
    torch.manual_seed(0)
    tokens = Tokens(torch.randn(3, 4, 5), mask)
    output = task({"sound": tokens})
    target, labelled, problems = task.encode(cells, SOURCE)
    assert not problems
    assert labelled.tolist() == [True, True, False]

    log_p = task.writer.head(tokens.x_BLD).log_softmax(-1).detach().double().numpy()
    p_first = texts_of(log_p[0])[(1, 2)]
    p_second = texts_of(log_p[1][[0, 1, 3]])[(2,)]  # its third step is masked
    expected = [-np.log(p_first) / 2, -np.log(p_second)]
    assert float(task.loss(output, target, labelled).detach()) == pytest.approx(np.mean(expected), rel=1e-4)
    assert task.decode(output)[2, 0] == ABSENT
    assert task.loss(output, target, torch.zeros(3, dtype=torch.bool)) == 0


def described_images(folder: Path, count: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows whose name tells the colour of the image, and whether the price is large."""
    rows = []
    for row in make_rows(folder, count, seed):
        size = "large" if row["price"] > 1 else "small"
        name = f"a plain {row['label']} picture of {size} price"
        rows.append({"photo": row["photo"], "name": name, "price": row["price"]})
    return rows


@pytest.fixture(scope="module")
def describing(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("described")
    rows = described_images(folder)
    overrides = [*FAST_IMAGES, "training.epochs=40", "tasks.name=generation"]
    model = plait.fit(rows, "name", root=folder, out=folder / "run", overrides=overrides, quiet=True)
    return model, folder


def test_images_are_described(describing: tuple[plait.Model, Path]) -> None:
    model, folder = describing
    scores = model.evaluate(described_images(folder, 30, seed=1), folder).targets["name"]
    assert scores.metrics["exact_match"].value > 0.8
    assert scores.metrics["chrf"].value > scores.baseline["chrf"]
    assert {subset for subset, _ in scores.subsets} == {("photo",), ("price",)}


def test_any_subset_of_inputs_gives_an_answer(describing: tuple[plait.Model, Path]) -> None:
    model, folder = describing
    new = described_images(folder, 9, seed=2)
    names = [row["name"] for row in new]

    # The end of the text is the price.
    only_price = model.predict([{"photo": None, "price": row["price"]} for row in new], folder)
    for text, name in zip(only_price["name"].to_pylist(), names, strict=True):
        assert text.endswith(name[-11:])

    # The third word is the colour.
    only_photo = model.predict([{"photo": row["photo"]} for row in new], folder)
    pairs = zip(only_photo["name"].to_pylist(), names, strict=True)
    has_colour = [text.split()[2] == name.split()[2] for text, name in pairs]
    assert np.mean(has_colour) > 0.8

    no_input = model.predict([{"photo": None, "price": None}], folder)
    (text,) = no_input["name"].to_pylist()
    assert text.startswith("a plain")
    assert text.endswith("price"), "a likely text from end to end"


def test_only_listed_answers_are_given(tmp_path: Path) -> None:
    listed = []
    for colour in list(COLOURS)[:2]:
        listed += [f"a plain {colour} picture of {size} price" for size in ("small", "large")]
    fast = [*FAST_IMAGES, "training.epochs=2"]
    rows = described_images(tmp_path, 24)
    cases = {
        "training": {row["name"] for row in rows},
        str(listed): set(listed),
    }
    for number, (answers, allowed) in enumerate(cases.items()):
        overrides = [*fast, f"tasks.name={{name: generation, answers: {answers}}}"]
        out = tmp_path / str(number)
        model = plait.fit(rows, "name", root=tmp_path, out=out, overrides=overrides, quiet=True)
        texts = plait.load(model.folder, quiet=True).predict(rows, tmp_path)["name"].to_pylist()
        assert set(texts) <= allowed

    overrides = [*fast, "tasks.name={name: generation, answers: [mauve]}"]
    with pytest.raises(TrainingError, match="'mauve' has letters that no training text has"):
        plait.fit(rows, "name", root=tmp_path, out=tmp_path / "x", overrides=overrides, quiet=True)


TEXTS = pa.chunked_array([["ab", "b a", "cab", None]])


def task(name: str, **options: Any) -> TextTask:
    """Return a task fitted on `TEXTS`, with a random head."""
    torch.manual_seed(0)
    fitted: TextTask = tasks.find(name).fit(tasks.configure(name, options), TEXTS, "said")
    fitted.build_head({"x": 5})
    return fitted.eval()


@pytest.mark.parametrize("name", task_names(TextTask))
class TestTextTask:
    def test_a_single_row_has_the_loss_it_has_among_others(self, name: str) -> None:
        fitted = task(name)
        target, labelled, _ = fitted.encode(TEXTS, SOURCE)
        x, mask = torch.randn(4, 6, 5), torch.arange(6) < torch.tensor([6, 5, 4, 6])[:, None]
        row_losses = []
        for number in range(3):
            row = slice(number, number + 1)
            output = fitted({"x": Tokens(x[row], mask[row])})
            row_losses.append(fitted.loss(output, target[row], labelled[row]))
        batch_loss = fitted.loss(fitted({"x": Tokens(x, mask)}), target, labelled)
        torch.testing.assert_close(batch_loss, torch.stack(row_losses).mean())

    def test_a_text_that_is_too_long_is_named(self, name: str) -> None:
        fitted = task(name, longest=3, units="characters")
        _, labelled, problems = fitted.encode(pa.chunked_array([["ab", "abcab"]]), SOURCE)
        assert labelled.tolist() == [True, False]
        assert [(p.row, p.column) for p in problems] == [(1, "said")]
        assert "5 characters, and at most 3" in problems[0].reason


@pytest.mark.parametrize(
    ("override", "share"),
    [("seed=0", 0.0), ("training.unaugmented=0.5", 0.5), ("tasks.said=generation", 0.2)],
)
def test_speech_is_augmented_to_the_end_unless_asked_otherwise(
    override: str, share: float, tmp_path: Path
) -> None:
    """Also beside a target that would do without."""
    rows = [{**row, "first": row["said"][0]} for row in tones(tmp_path, 12)]
    overrides = [
        *FAST_AUDIO,
        "tasks.first=classification",
        "tasks.said=transcription",
        "training.epochs=1",
        override,
    ]
    model = plait.fit(
        rows, root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True, evaluate=False
    )
    assert model.plan.training.unaugmented == share


def test_a_transcription_reads_one_column() -> None:
    fitted = task("transcription")
    with pytest.raises(RecipeError, match="reads one column"):
        fitted.build_head({"a": 3, "b": 3})


@pytest.mark.parametrize(
    ("target", "override", "message"),
    [
        ("blank", "tasks.blank=generation", "has no labels at all; expected labels for generation"),
        ("name", "tasks.name=transcription", "reads columns of audio, and the table has no such input"),
        ("name", "tasks.name={name: generation, heads: 3}", "width 32 is not a multiple of heads 3"),
        ("photo", "tasks.photo={name: speak, inputs: [name]}", "12 of 12 cells cannot be read"),
        ("name", "training.unlabelled=1", "leave it out"),
        ("name", "tasks.name={name: generation, longest: 2}", "a label that can be learned from: a text of"),
    ],
)
def test_errors_say_what_cannot_be_learned_from(
    target: str, override: str, message: str, tmp_path: Path
) -> None:
    rows = []
    for number, row in enumerate(described_images(tmp_path, 12)):
        few = "a b" if number == 0 else None
        rows.append({**row, "blank": "  ", "few": few})
    overrides = [*FAST_IMAGES, "tasks.name=generation", "columns.name.modality=text", override]
    if target != "name":
        overrides.remove("tasks.name=generation")
    with pytest.raises(plait.PlaitError, match=message):
        plait.fit(rows, target, root=tmp_path, out=tmp_path / "x", overrides=overrides, quiet=True)


def test_a_pretrained_decoder_writes_in_its_own_pieces(tmp_path: Path) -> None:
    folder = tiny_models.t5(tmp_path / "t5")
    rows = []
    for row in described_images(tmp_path, 60):
        colour = row["name"].split()[2]
        rows.append({"photo": row["photo"], "name": f"the {colour} house"})
    overrides = [
        *FAST_IMAGES[:-1],
        f"tasks.name={{name: generation, model: {folder}, rate: 1.0}}",
        "training.epochs=25",
    ]
    model = plait.fit(rows, "name", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    answers = model.predict(rows, tmp_path)["name"].to_pylist()
    is_right = [text == row["name"] for text, row in zip(answers, rows, strict=True)]
    assert np.mean(is_right) > 0.8

    # The run's folder is all it needs.
    shutil.rmtree(folder)
    loaded = plait.load(model.folder, quiet=True)
    assert loaded.predict(rows, tmp_path)["name"].to_pylist() == answers


def test_a_pretrained_decoder_computes_what_transformers_does(tmp_path: Path) -> None:
    from transformers import T5ForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    folder = tiny_models.t5(tmp_path / "t5")
    config = tasks.configure("generation", {"model": str(folder)})
    fitted = tasks.find("generation").fit(config, pa.chunked_array([["a red apple"]]), "name")
    fitted.build_head({"x": 5})
    fitted.load_pretrained()
    fitted.eval()
    network = T5ForConditionalGeneration.from_pretrained(folder).eval()
    memory, ids = torch.randn(1, 3, 32), torch.tensor([[8, 9]])
    ours = fitted.decoder(ids, memory, torch.ones(1, 3, dtype=torch.bool))
    start = torch.tensor([[0, 7, 8]])
    encoded = BaseModelOutput(last_hidden_state=memory)
    theirs = network(encoder_outputs=encoded, decoder_input_ids=start).logits
    torch.testing.assert_close(ours[..., 0], theirs[..., 3], msg="the end of a text is nothing")
    torch.testing.assert_close(ours[..., 5:], theirs[..., 4:])
    assert not any("encoder" in name and "decoder" not in name for name in fitted.state_dict())
    fitted.architecture = {"model_type": "bert"}
    with pytest.raises(RecipeError, match="a bert does not turn text into text"):
        fitted.build_head({"x": 5})


OPTIONS: dict[str, dict[str, Any]] = {
    "generation": {
        "units": "characters",
        "form": "spoken",
        "vocabulary": 10,
        "longest": 2,
        "width": 64,
        "heads": 2,
        "layers": 1,
        "dropout": 0.6,
        "label_smoothing": 0.4,
        "beam": 2,
        "length_penalty": 2.0,
        "no_repeat": 2,
        "limit": 3,
        "answers": ["ab"],
    },
    "transcription": {
        "units": "subwords",
        "form": "written",
        "vocabulary": 10,
        "longest": 2,
        "beam": 3,
        "ngram": 2,
        "ngram_weight": 0.9,
        "bonus": 0.1,
        "dropout": 0.6,
    },
}

# Options that matter only with others.
CHAINED = {
    "ngram_weight": {"ngram": 2},
    "bonus": {"ngram": 2},
    "vocabulary": {"units": "subwords"},
}


def task_options() -> list[tuple[str, str]]:
    """Return (task, option) of all options."""
    pairs = []
    for name, options in OPTIONS.items():
        pairs += [(name, option) for option in options]
    return pairs


@pytest.mark.parametrize(("name", "option"), task_options())
def test_every_option_changes_something(name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.tasks.writing import ctc, decoder

    searches: list[Any] = []

    def search_texts(next_of: Any, rows: int, *arguments: Any) -> list[list[int]]:
        searches.append(arguments)
        return [[1]] * rows

    def search_ctc(log_p: Any, *arguments: Any) -> list[int]:
        # A language model is told apart by its presence only.
        searches.append([a if isinstance(a, (int, float)) else bool(a) for a in arguments])
        return [1]

    monkeypatch.setattr(decoder, "search", search_texts)
    monkeypatch.setattr(ctc, "search", search_ctc)
    cells = pa.chunked_array([["ab", "b a!", "cab ab", "ab cab ba", None]])

    def outcome(**options: Any) -> tuple[Any, ...]:
        searches.clear()
        torch.manual_seed(0)
        fitted = tasks.find(name).fit(tasks.configure(name, options), cells, "said")
        fitted.build_head({"x": 5})
        target, labelled, problems = fitted.train().encode(cells, SOURCE)
        torch.manual_seed(1)
        output = fitted({"x": Tokens(torch.randn(5, 15, 5), torch.ones(5, 15, dtype=torch.bool))})
        fitted.decode(output.detach(), thorough=True)
        return (
            len(fitted.spelling),
            len(problems),
            float(fitted.loss(output, target, labelled).detach()),
            str(searches),
        )

    required = CHAINED.get(option, {})
    changed = {**required, option: OPTIONS[name][option]}
    assert outcome(**required) != outcome(**changed)


def test_all_options_of_text_tasks_are_tried() -> None:
    tested_elsewhere = {"inputs", "column", "weight", "model", "rate", "language"}
    for name, options in OPTIONS.items():
        tested = set(tasks.find(name).options.model_fields) - tested_elsewhere
        assert tested == set(options), "give a new option another value in OPTIONS"


def test_a_question_about_an_image_is_answered(tmp_path: Path) -> None:
    """Different questions about one image have different answers."""
    rows = []
    for number, row in enumerate(make_rows(tmp_path, 90)):
        question, answer = "which colour is it", row["label"]
        if number % 2:
            colour = list(COLOURS)[1]
            question = f"is it {colour} or not"
            answer = "yes" if row["label"] == colour else "no"
        rows.append({"photo": row["photo"], "question": question, "answer": answer})
    task = "tasks.answer={name: generation, inputs: [photo, question], answers: training}"
    encoder = "encoders.image={name: cnn, channels: [8, 8], pool: mean}"
    overrides = [
        *FAST_IMAGES,
        task,
        encoder,
        "columns.question.modality=text",
        "training.learning_rate=0.003",
        "training.epochs=40",
    ]
    model = plait.fit(rows, "answer", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    questions = [{"photo": row["photo"], "question": row["question"]} for row in rows]
    answers = model.predict(questions, tmp_path)["answer"].to_pylist()
    is_right = [text == row["answer"] for text, row in zip(answers, rows, strict=True)]
    assert np.mean(is_right[::2]) > 0.9
    assert np.mean(is_right[1::2]) > 0.8

    about_the_first = []
    for question in ("which colour is it", "is it green or not"):
        about_the_first.append({"photo": rows[0]["photo"], "question": question})
    answers = model.predict(about_the_first, tmp_path)["answer"].to_pylist()
    assert answers == [rows[0]["answer"], "no"]
