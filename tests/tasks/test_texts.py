"""Texts as answers, from table to table: transcripts of tones, and descriptions of images."""

from __future__ import annotations

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
from plait.tasks.base_text import ABSENT, TextTask
from support import tiny_models
from support.media import wav
from support.paths import texts_of
from support.sounds import tones
from support.tables import COLOURS, make_rows
from support.tasks import task_names

HEARD = [
    "training.precision=fp32",
    "modalities.audio.bands=24",
    "modalities.audio.hop=0.02",
    "modalities.audio.gain=0",
    "modalities.audio.time_masks=0",
    "modalities.audio.band_masks=0",
    "encoders.audio={name: crnn, channels: [8, 8], width: 24, dropout: 0}",
    "training.learning_rate=0.01",
]
SEEN = [
    "training.precision=fp32",
    "modalities.image.size=16",
    "encoders.image={name: cnn, channels: [4, 8], pool: none}",
    "training.learning_rate=0.005",
    "task_defaults.generation={width: 32, layers: 1, dropout: 0}",
]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("tones")
    rows = tones(folder, 90)
    rows[3]["said"] = None
    overrides = [*HEARD, "tasks.said={name: transcription, ngram: 2, beam: 4}", "training.epochs=60"]
    return plait.fit(rows, "said", root=folder, out=folder / "run", overrides=overrides, quiet=True), folder


def test_tones_are_transcribed(hearing: tuple[plait.Model, Path]) -> None:
    model, folder = hearing
    new = tones(folder, 30, seed=1)
    answers = model.predict([{"sound": row["sound"]} for row in new], folder)
    assert answers.column_names == ["said", "problem"]
    scores = model.evaluate(new, folder).targets["said"]
    assert scores.score == "cer"
    assert scores.metrics["cer"].value < 0.1
    assert scores.metrics["cer"].value < scores.baseline["cer"] / 3, "the text that is there most often"
    exact = np.mean([a == row["said"] for a, row in zip(answers["said"].to_pylist(), new, strict=True)])
    assert exact == pytest.approx(scores.metrics["exact_match"].value)


def test_a_long_recording_is_read_to_its_end_and_none_gives_null(hearing: tuple[plait.Model, Path]) -> None:
    """Longer than a window of 20 s: three quarters of silence between two stretches of tones."""
    model, folder = hearing
    start, end = tones(folder, 2, seed=5)
    waves = [np.frombuffer((folder / row["sound"]).read_bytes()[44:], np.int16) for row in (start, end)]
    wave = np.concatenate([waves[0], np.zeros(16_000 * 23, np.int16), waves[1]]).astype(np.float32) / 32768
    noisy = wave + np.random.default_rng(0).normal(0, 0.0002, len(wave)).astype(np.float32)
    (folder / "long.wav").write_bytes(wav(noisy))
    (folder / "cut.wav").write_bytes(wav(noisy)[:3000])
    answers = model.predict([{"sound": "long.wav"}, {"sound": None}, {"sound": "cut.wav"}], folder)
    text, *other_texts = answers["said"].to_pylist()
    assert text.startswith(start["said"][0])
    assert text.endswith(end["said"][-1]), text
    assert other_texts == [None, None]
    assert "cut.wav" in answers["problem"].to_pylist()[2]


def test_a_saved_model_answers_the_same_and_feeds_another_one(
    hearing: tuple[plait.Model, Path], tmp_path: Path
) -> None:
    model, folder = hearing
    new = tones(folder, 12, seed=2)
    plait.load(model.folder, quiet=True)
    (tmp_path / "new.csv").write_text(
        "sound,said\n" + "\n".join(f"{row['sound']},{row['said']}" for row in new)
    )
    assert (
        run(
            [
                "predict",
                str(model.folder),
                str(tmp_path / "new.csv"),
                "--root",
                str(folder),
                "--keep",
                "-o",
                str(tmp_path / "read.csv"),
            ]
        )
        == 0
    )
    lines = (tmp_path / "read.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "sound,said,said_answer,problem"
    assert len(lines) == 13
    assert model.predict(new, folder).equals(plait.load(model.folder, quiet=True).predict(new, folder))


def test_a_recording_too_short_for_its_text_is_an_error(tmp_path: Path) -> None:
    rows = tones(tmp_path, 12)
    for row in rows:
        row["said"] = row["said"] * 30
    with pytest.raises(TrainingError, match="each needs a step of its own: take a smaller hop"):
        plait.fit(
            rows,
            "said",
            root=tmp_path,
            out=tmp_path / "run",
            overrides=[*HEARD, "tasks.said=transcription", "training.epochs=1"],
            quiet=True,
        )


def test_the_loss_is_the_sum_over_all_paths() -> None:
    """-log p(text), p being the sum over the paths that write it, for each unit (Graves et al. 2006,
    eq. 3): here all are counted.
    """
    task = tasks.find("transcription").fit(
        tasks.configure("transcription", {}), pa.chunked_array([["ab", "b", None]]), "said"
    )
    task.build_head({"sound": 5})
    task.eval()
    mask = torch.tensor([[True] * 4, [True, True, False, True], [False] * 4])
    torch.manual_seed(0)
    tokens = Tokens(torch.randn(3, 4, 5), mask)
    output = task({"sound": tokens})
    target, labelled, problems = task.encode(pa.chunked_array([["ab", "b", None]]), Source("said", Path()))
    assert not problems
    assert labelled.tolist() == [True, True, False]
    log_p = task.head(tokens.x_BLD).log_softmax(-1).detach().double().numpy()
    expected = [-np.log(texts_of(log_p[0])[(1, 2)]) / 2, -np.log(texts_of(log_p[1][[0, 1, 3]])[(2,)])]
    assert float(task.loss(output, target, labelled).detach()) == pytest.approx(np.mean(expected), rel=1e-4)
    assert task.decode(output)[2, 0] == ABSENT
    assert task.loss(output, target, torch.zeros(3, dtype=torch.bool)) == 0


def described(folder: Path, count: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    rows = make_rows(folder, count, seed)
    sizes = ("small", "large")
    return [
        {
            "photo": row["photo"],
            "name": f"a plain {row['label']} picture of {sizes[row['price'] > 1]} price",
            "price": row["price"],
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("described")
    overrides = [*SEEN, "training.epochs=40", "tasks.name=generation"]
    return plait.fit(
        described(folder), "name", root=folder, out=folder / "run", overrides=overrides, quiet=True
    ), folder


def test_images_are_described(writing: tuple[plait.Model, Path]) -> None:
    model, folder = writing
    scores = model.evaluate(described(folder, 30, seed=1), folder).targets["name"]
    assert scores.metrics["exact_match"].value > 0.8
    assert scores.metrics["chrf"].value > scores.baseline["chrf"]
    assert {subset for subset, _ in scores.subsets} == {("photo",), ("price",)}


def test_any_subset_of_inputs_gives_an_answer(writing: tuple[plait.Model, Path]) -> None:
    model, folder = writing
    new = described(folder, 9, seed=2)
    blind = model.predict([{"photo": None, "price": row["price"]} for row in new], folder)["name"].to_pylist()
    seen = model.predict([{"photo": row["photo"]} for row in new], folder)["name"].to_pylist()
    assert all(text.endswith(row["name"][-11:]) for text, row in zip(blind, new, strict=True)), (
        "the price is known"
    )
    assert (
        np.mean([text.split()[2] == row["name"].split()[2] for text, row in zip(seen, new, strict=True)])
        > 0.8
    ), "the colour is known"
    nothing = model.predict([{"photo": None, "price": None}], folder)["name"].to_pylist()
    assert nothing[0].startswith("a plain")
    assert nothing[0].endswith("price"), "a likely text from end to end"


def test_only_listed_answers_are_given(tmp_path: Path) -> None:
    listed = []
    for colour in list(COLOURS)[:2]:
        listed += [f"a plain {colour} picture of {size} price" for size in ("small", "large")]
    overrides = [*SEEN, "training.epochs=2", f"tasks.name={{name: generation, answers: {listed}}}"]
    rows = described(tmp_path, 24)
    for name, options in {
        "listed": overrides,
        "training": [*overrides[:-1], "tasks.name={name: generation, answers: training}"],
    }.items():
        model = plait.fit(rows, "name", root=tmp_path, out=tmp_path / name, overrides=options, quiet=True)
        answers = plait.load(model.folder, quiet=True).predict(rows, tmp_path)["name"].to_pylist()
        assert set(answers) <= (set(listed) if name == "listed" else {row["name"] for row in rows})
    with pytest.raises(TrainingError, match="'mauve' has letters that no training text has"):
        plait.fit(
            rows,
            "name",
            root=tmp_path,
            out=tmp_path / "x",
            quiet=True,
            overrides=[*overrides[:-1], "tasks.name={name: generation, answers: [mauve]}"],
        )


def task(name: str, **options: Any) -> TextTask:
    torch.manual_seed(0)
    fitted: TextTask = tasks.find(name).fit(
        tasks.configure(name, options), pa.chunked_array([["ab", "b a", "cab", None]]), "said"
    )
    fitted.build_head({"x": 5})
    return fitted.eval()


@pytest.mark.parametrize("name", task_names(TextTask))
class TestTextTask:
    def test_a_single_row_has_the_loss_it_has_among_others(self, name: str) -> None:
        fitted = task(name)
        target, labelled, _ = fitted.encode(
            pa.chunked_array([["ab", "b a", "cab", None]]), Source("said", Path())
        )
        x, mask = torch.randn(4, 6, 5), torch.arange(6) < torch.tensor([6, 5, 4, 6])[:, None]
        row_losses = []
        for row in range(3):
            output = fitted({"x": Tokens(x[row : row + 1], mask[row : row + 1])})
            row_losses.append(fitted.loss(output, target[row : row + 1], labelled[row : row + 1]))
        batch_loss = fitted.loss(fitted({"x": Tokens(x, mask)}), target, labelled)
        torch.testing.assert_close(batch_loss, torch.stack(row_losses).mean())

    def test_a_text_that_is_too_long_is_named(self, name: str) -> None:
        fitted = task(name, longest=3, units="characters")
        _, labelled, problems = fitted.encode(pa.chunked_array([["ab", "abcab"]]), Source("said", Path()))
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
        *HEARD,
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
    fitted = tasks.find("transcription").fit(
        tasks.configure("transcription", {}), pa.chunked_array([["ab"]]), "said"
    )
    with pytest.raises(RecipeError, match="reads one column"):
        fitted.build_head({"a": 3, "b": 3})


def test_errors_say_what_cannot_be_learned_from(tmp_path: Path) -> None:
    rows = [
        {**row, "blank": "  ", "few": "a b" if i == 0 else None}
        for i, row in enumerate(described(tmp_path, 12))
    ]
    for target, overrides, message in (
        ("blank", ["tasks.blank=generation"], "expected texts in the training rows, found none"),
        (
            "name",
            ["tasks.name=transcription"],
            "transcription reads columns of audio, and the table has no such input",
        ),
        (
            "name",
            ["tasks.name={name: generation, heads: 3}"],
            "tasks/generation: width 32 is not a multiple of heads 3",
        ),
        (
            "photo",
            ["tasks.photo={name: speak, inputs: [name]}", "columns.name.modality=text"],
            "12 of 12 cells cannot be read",
        ),
        ("name", ["tasks.name=generation", "training.unlabelled=1"], "leave it out"),
        (
            "name",
            ["tasks.name={name: generation, longest: 2}"],
            "no training row has a label that can be learned from: a text of",
        ),
    ):
        with pytest.raises(plait.PlaitError, match=message):
            plait.fit(
                rows, target, root=tmp_path, out=tmp_path / "x", overrides=[*SEEN, *overrides], quiet=True
            )


def test_a_pretrained_decoder_writes_in_its_own_pieces(tmp_path: Path) -> None:

    folder = tiny_models.t5(tmp_path / "t5")
    rows = [
        {"photo": row["photo"], "name": f"the {row['name'].split()[2]} house"}
        for row in described(tmp_path, 60)
    ]
    overrides = [
        *SEEN[:-1],
        f"tasks.name={{name: generation, model: {folder}, rate: 1.0}}",
        "training.epochs=25",
    ]
    model = plait.fit(rows, "name", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    answers = model.predict(rows, tmp_path)["name"].to_pylist()
    assert np.mean([a == row["name"] for a, row in zip(answers, rows, strict=True)]) > 0.8
    import shutil

    shutil.rmtree(folder)
    assert plait.load(model.folder, quiet=True).predict(rows, tmp_path)["name"].to_pylist() == answers, (
        "the run's folder is all it needs"
    )


def test_a_pretrained_decoder_writes_what_transformers_writes(tmp_path: Path) -> None:
    from transformers import T5ForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    folder = tiny_models.t5(tmp_path / "t5")
    fitted = tasks.find("generation").fit(
        tasks.configure("generation", {"model": str(folder)}), pa.chunked_array([["a red apple"]]), "name"
    )
    fitted.build_head({"x": 5})
    fitted.load_pretrained()
    fitted.eval()
    network = T5ForConditionalGeneration.from_pretrained(folder).eval()
    memory, ids = torch.randn(1, 3, 32), torch.tensor([[8, 9]])
    ours = fitted.decoder(ids, memory, torch.ones(1, 3, dtype=torch.bool))
    start = torch.tensor([[0, 7, 8]])
    theirs = network(
        encoder_outputs=BaseModelOutput(last_hidden_state=memory), decoder_input_ids=start
    ).logits
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
CHAINED = {
    "ngram_weight": {"ngram": 2},
    "bonus": {"ngram": 2},
    "vocabulary": {"units": "subwords"},
}  # what they have a part in


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
    monkeypatch.setattr(
        decoder, "search", lambda next_of, rows, *arguments: searches.append(arguments) or [[1]] * rows
    )
    monkeypatch.setattr(
        ctc,
        "search",
        lambda log_p, *arguments: (
            searches.append([o if isinstance(o, (int, float)) else bool(o) for o in arguments]) or [1]
        ),
    )
    texts = ["ab", "b a!", "cab ab", "ab cab ba", None]

    def result(**options: Any) -> tuple[Any, ...]:
        searches.clear()
        torch.manual_seed(0)
        fitted = tasks.find(name).fit(tasks.configure(name, options), pa.chunked_array([texts]), "said")
        fitted.build_head({"x": 5})
        target, labelled, problems = fitted.train().encode(pa.chunked_array([texts]), Source("said", Path()))
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
    assert result(**required) != result(**required, **{option: OPTIONS[name][option]})


def test_all_options_of_text_tasks_are_tried() -> None:
    for name, options in OPTIONS.items():
        tested = set(tasks.find(name).options.model_fields) - {
            "inputs",
            "column",
            "weight",
            "model",
            "rate",
            "language",
        }
        assert tested == set(options), "give a new option another value in OPTIONS"


def test_a_question_about_an_image_is_answered(tmp_path: Path) -> None:
    """Different questions about one image have different answers."""
    rows = []
    for i, row in enumerate(make_rows(tmp_path, 90)):
        colour = row["label"]
        question, answer = [
            ("which colour is it", colour),
            (f"is it {list(COLOURS)[i % 2]} or not", "yes" if list(COLOURS)[i % 2] == colour else "no"),
        ][i % 2]
        rows.append({"photo": row["photo"], "question": question, "answer": answer})
    task = "tasks.answer={name: generation, inputs: [photo, question], answers: training}"
    encoder = "encoders.image={name: cnn, channels: [8, 8], pool: mean}"
    overrides = [
        *SEEN,
        task,
        encoder,
        "columns.question.modality=text",
        "training.learning_rate=0.003",
        "training.epochs=40",
    ]
    model = plait.fit(rows, "answer", root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True)
    answers = model.predict([{"photo": row["photo"], "question": row["question"]} for row in rows], tmp_path)[
        "answer"
    ].to_pylist()
    is_right = [a == row["answer"] for a, row in zip(answers, rows, strict=True)]
    assert np.mean(is_right[::2]) > 0.9
    assert np.mean(is_right[1::2]) > 0.8
    answers_about_the_first = model.predict(
        [{"photo": rows[0]["photo"], "question": q} for q in ("which colour is it", "is it green or not")],
        tmp_path,
    )
    assert answers_about_the_first["answer"].to_pylist() == [rows[0]["answer"], "no"]
