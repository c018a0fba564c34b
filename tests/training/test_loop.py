"""The loop: it learns, repeats itself, survives a kill and Ctrl-C, and makes do with less memory."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import plait
from plait.data.dataset import Dataset
from plait.data.plan_training import plan_training
from plait.errors import Interrupted, RecipeError, TrainingError
from plait.nn.batch import Batch
from plait.recipe import sections
from plait.training import objective
from plait.training.loop import Callback, Training, sum_in_order
from plait.training.schedule import learning_rate, optimizer_for
from support.tables import FAST, make_rows, write_csv
from support.training import StopAtStep, same, weights

SLOW = [o for o in FAST if "epochs" not in o] + [
    "training.checkpoint_minutes=0.00001",
    "modalities.image.size=24",
]


def test_it_learns_and_leaves_a_folder_that_explains_itself(trained: Any) -> None:
    model, _ = trained
    score = model.record["evaluation"]["validation"]["targets"]["label"]
    assert score["metrics"]["accuracy"]["value"] == 1.0
    assert score["baseline"]["accuracy"] < 0.5
    files = {f.name for f in model.folder.iterdir()}
    assert files == {
        "README.md",
        "examples",
        "examples.json",
        "lock",
        "log.csv",
        "metrics.json",
        "plan.json",
        "problems.csv",
        "recipe.yaml",
        "report.html",
        "run.json",
        "state.json",
        "weights.safetensors",
    }
    with (model.folder / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in log] == list(range(1, 41))
    assert float(log[-1]["loss"]) < float(log[0]["loss"])


def test_the_seed_decides_everything(tmp_path: Path, table: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        plait.fit(table, "label", out=tmp_path / name, overrides=FAST, seed=seed, quiet=True)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(("columns", "threads"), [(["number", "kind"], 1), (["number", "text"], 2)])
def test_networks_of_plain_columns_take_one_thread(tmp_path: Path, columns: list[str], threads: int) -> None:
    """Texts are embedded anew in each step. The process has its threads back in the end."""
    rows = [{"number": i, "kind": "ab"[i % 2], "text": f"word{i % 2} {i}", "y": i % 2} for i in range(40)]
    others = {name: "ignored" for name in ("number", "kind", "text") if name not in columns}
    seen = Threads()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plait.fit(
            rows, "y", columns=others, out=tmp_path / "run", overrides=FAST[:2], callbacks=[seen], quiet=True
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen.counts == {threads}


class Threads(Callback):
    """Notes how many threads each step has."""

    def __init__(self) -> None:
        self.counts: set[int] = set()

    def before_step(self, training: Training, batch: Batch) -> None:
        self.counts.add(torch.get_num_threads())


def start(table: Path, out: Path, epochs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plait", "fit", str(table), "--target", "label", "--out", str(out)]
    command += [a for o in [*SLOW, f"training.epochs={epochs}"] for a in ("--set", o)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 60
        time.sleep(0.01)


def test_killed_and_resumed_is_the_same_as_never_stopped(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "train.csv", make_rows(tmp_path, 96))
    uninterrupted = start(table, tmp_path / "uninterrupted", 12)
    killed = start(table, tmp_path / "killed", 12)
    wait_for(tmp_path / "killed" / "checkpoint.safetensors", killed)
    time.sleep(0.15)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "weights.safetensors").exists(), "killed too late to test anything"
    resumed = subprocess.run(
        [sys.executable, "-m", "plait", "fit", "--resume", str(tmp_path / "killed")],
        capture_output=True,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr
    uninterrupted.communicate()
    assert uninterrupted.returncode == 0
    assert same(tmp_path / "uninterrupted", tmp_path / "killed")
    assert (tmp_path / "uninterrupted" / "log.csv").read_text() == (
        tmp_path / "killed" / "log.csv"
    ).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, table: Path, number: signal.Signals) -> None:
    process = start(table, tmp_path / "run", 3000)
    wait_for(tmp_path / "run" / "checkpoint.safetensors", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"plait fit --resume {tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    with pytest.raises(plait.PlaitError, match=r"has not ended; go on with: .*plait fit --resume"):
        plait.load(tmp_path / "run")


def test_resume_refuses_another_table_or_recipe(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    table = write_csv(tmp_path / "train.csv", rows)
    with pytest.raises(Interrupted):
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, callbacks=[StopAtStep(1)], quiet=True)
    with pytest.raises(RecipeError, match=r"recipe.training.epochs is 4, was 3"):
        plait.fit(
            table,
            "label",
            out=tmp_path / "run",
            overrides=[*FAST, "training.epochs=4"],
            resume=True,
            quiet=True,
        )
    write_csv(tmp_path / "train.csv", [*rows[1:], rows[0]])
    with pytest.raises(RecipeError, match="column 'photo' holds other cells"):
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, resume=True, quiet=True)
    with pytest.raises(RecipeError, match="holds no training to go on with"):
        plait.fit(table, "label", out=tmp_path / "nothing", overrides=FAST, resume=True, quiet=True)


def test_out_of_memory_goes_in_micro_batches_to_the_same_end(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dropout draws other numbers for other batches, so it is off in this comparison.
    options = [
        *FAST,
        "model.modality_dropout=0",
        "training.optimizer=sgd",
        "fusion=logit_sum",
        "columns.text.encoder={name: bag, dropout: 0}",
    ]
    plait.fit(table, "label", out=tmp_path / "at_once", overrides=options, quiet=True)
    loss_terms, refused_sizes = objective.loss_terms, []

    def fail_for_large_batches(model: Any, batch: Any, *arguments: Any) -> Any:
        if len(batch) > 9:
            refused_sizes.append(len(batch))
            raise torch.OutOfMemoryError("not enough memory")
        return loss_terms(model, batch, *arguments)

    monkeypatch.setattr("plait.training.step.loss_terms", fail_for_large_batches)
    plait.fit(table, "label", out=tmp_path / "micro_batches", overrides=options, quiet=True)
    assert refused_sizes
    expected, actual = weights(tmp_path / "at_once"), weights(tmp_path / "micro_batches")
    for name, tensor in expected.items():
        assert torch.allclose(actual[name].float(), tensor.float(), atol=2e-3), name


def test_too_little_memory_for_one_row_is_an_error_with_advice(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("plait.training.step.loss_terms", fail)
    expected = r"even with one row at a time: batch size 32, .*'photo' size 16.*modalities.image.size=8"
    with pytest.raises(TrainingError, match=expected):
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)


def test_memory_that_runs_out_elsewhere_is_an_error_with_advice(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr("plait.training.validation.Validation.scores", fail)
    with pytest.raises(TrainingError, match="out of memory: batch size 32"):
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)


def test_a_loss_that_explodes_is_an_error_with_advice(tmp_path: Path, table: Path) -> None:
    options = [
        *FAST,
        "training.learning_rate=100",
        "training.optimizer=sgd",
        "training.warmup=0",
        "training.clip=0",
        "training.epochs=20",
    ]
    with pytest.raises(TrainingError, match=r"no longer finite.*training.learning_rate=10$"):
        plait.fit(table, "label", out=tmp_path / "run", overrides=options, quiet=True)


def test_early_stopping_and_the_best_epoch(tmp_path: Path, table: Path) -> None:
    model = plait.fit(
        table,
        "label",
        out=tmp_path / "run",
        overrides=[*FAST, "training.epochs=200", "training.patience=3"],
        quiet=True,
    )
    assert model.record["epochs"] < 200
    assert model.record["epochs"] - model.record["best_epoch"] == 3
    last = plait.fit(
        table, "label", out=tmp_path / "last", overrides=[*FAST, "training.keep=last"], quiet=True
    )
    assert last.record["best_epoch"] == last.record["epochs"] == 3
    assert not (tmp_path / "last" / "best.safetensors").exists()


def test_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    settings = sections.TrainingRecipe(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert (
        learning_rate(99, 100, sections.TrainingRecipe(learning_rate=1.0, schedule="constant", warmup=0))
        == 1.0
    )


def test_weight_decay_spares_biases_norms_and_embeddings() -> None:
    model = torch.nn.ModuleDict(
        {"e": torch.nn.Embedding(3, 2), "n": torch.nn.LayerNorm(2), "l": torch.nn.Linear(2, 2)}
    )
    optimizer = optimizer_for(model, sections.TrainingRecipe(weight_decay=0.5))
    decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert [id(p) for p in decayed] == [id(model["l"].weight)]


@pytest.mark.parametrize(
    ("rows", "epochs"), [(10, 500), (35, 500), (500, 40), (9_600, 40), (32_000, 12), (1_000_000, 8)]
)
def test_epochs_by_the_number_of_rows(rows: int, epochs: int) -> None:
    assert plan_training(sections.TrainingRecipe(), rows).epochs == epochs
    assert plan_training(sections.TrainingRecipe(epochs=7), rows).epochs == 7


def fit_briefly(table: Path, out: Path, *overrides: str) -> None:
    """Train for four steps, enough for every option to show."""
    brief = [*FAST, "training.epochs=1", "training.batch_size=8", "training.keep=last", *overrides]
    plait.fit(table, "label", out=out, overrides=brief, evaluate=False, quiet=True)


@pytest.mark.parametrize(
    "override",
    [
        "training.optimizer=sgd",
        "training.optimizer=adam",
        "training.weight_decay=0.9",
        "training.warmup=0",
        "training.schedule=constant",
        "training.clip=0.01",
        "training.batch_size=16",
        "training.precision=bf16",
        "training.learning_rate=0.01",
        "training.epsilon=0.1",
        "model.modality_dropout=0.6",
        "model.missing=zero",
        "training.epochs=2",
        "modalities.image.crop=0.5",
        "modalities.image.flip=false",
        "modalities.image.rotate=90",
        "modalities.image.colour=0.9",
        "modalities.image.erase=1",
        "modalities.image.mean=0",
        "modalities.image.std=1",
        "modalities.image.fit=crop",
        "modalities.image.background=0",
        "modalities.text.words=1",
        "modalities.text.characters=3",
        "modalities.text.vocabulary=300",
        "modalities.text.drop=0.5",
        "modalities.text.max_tokens=3",
        "modalities.text.lowercase=false",
        "modalities.number.bins=4",
        "modalities.number.embedding=none",
        "modalities.category.max_values=1",
        "modalities.category.min_count=30",
        "task_defaults.classification.label_smoothing=0.2",
        "task_defaults.classification.class_weights=balanced",
        "split.valid=0.3",
        "split.stratify=false",
        "split.test=0.1",
    ],
)
def test_every_option_of_the_recipe_changes_something(
    tmp_path_factory: pytest.TempPathFactory, override: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "options"
    if not folder.exists():
        rows = make_rows(folder, 40)
        rows[3]["photo"] = rows[8]["shop"] = ""
        rows[5]["text"] = rows[5]["text"].upper()
        for row in rows[30:]:
            row["label"] = "red"
        from PIL import Image

        for row in rows[:3]:
            Image.new("RGBA", (30, 14), (0, 100, 0, 90)).save(folder / row["photo"])
        write_csv(folder / "train.csv", rows)
        fit_briefly(folder / "train.csv", folder / "plain")
    out = folder / override.replace("/", "_")
    fit_briefly(folder / "train.csv", out, override)
    assert not same(folder / "plain", out)


def test_tensorboard_writes_events(tmp_path: Path, table: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensorboard's own making
        plait.fit(
            table,
            "label",
            out=tmp_path / "run",
            overrides=[*FAST, "training.trackers=[tensorboard]"],
            quiet=True,
        )
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert not (tmp_path / "run" / "log.csv").exists()


def test_several_targets_with_missing_labels(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for i, row in enumerate(rows):
        row["value"] = "" if i % 3 == 1 else row["price"] * 2 + 1
        row["label"] = "" if i % 5 == 0 else row["label"]
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, ["label", "value"], out=tmp_path / "run", overrides=FAST, quiet=True)
    answers = model.predict(table)
    assert {"label", "value", "problem"} <= set(answers.column_names)
    assert set(model.record["evaluation"]["validation"]["targets"]) == {"label", "value"}


def test_multilabel_and_unlabelled_rows(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    data = pa.table(
        {
            "text": [row["text"] for row in rows],
            "tags": pa.array(
                [None if i % 10 == 0 else [["warm"], ["cold", "big"], []][i % 3] for i in range(len(rows))]
            ),
        }
    )
    model = plait.fit(data, "tags", out=tmp_path / "run", quiet=True)
    assert model.record["rows"]["train"] + model.record["rows"]["valid"] == len(rows) - 5
    assert model.predict({"text": "there is a leaf near house number 3"})["tags"].to_pylist() == [
        ["big", "cold"]
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 20, "expected two or more classes in the training rows, found only one class, 'a'"),
        ([None] * 20, "has no labels at all|cells of type null"),
        (["a", *[None] * 19], "expected two or more labelled rows to train on, found 1"),
    ],
)
def test_targets_that_cannot_be_learned(tmp_path: Path, labels: list[Any], message: str) -> None:
    data = pa.table({"x": [float(i) for i in range(20)], "label": pa.array(labels, pa.string())})
    with pytest.raises(plait.PlaitError, match=message):
        plait.fit(data, "label", out=tmp_path / "run", quiet=True)


def test_tables_of_two_rows_train(tmp_path: Path) -> None:
    rows = [
        {"x": 1.0, "z": "a b c", "label": "a"},
        {"x": 2.0, "z": "d e f", "label": "b"},
        {"x": 3.0, "z": "d e g", "label": "b"},
    ]
    model = plait.fit(rows, "label", out=tmp_path / "run", overrides=["training.epochs=1"], quiet=True)
    assert model.predict(rows).num_rows == 3


def test_environment_is_recorded(trained: Any) -> None:
    model, _ = trained
    environment = json.loads((model.folder / "metrics.json").read_text())["environment"]
    assert environment["precision"] in ("fp32", "bf16")
    assert environment["threads"] >= 1
    assert {"torch", "python", "allocator", "channels_last", "compile"} <= set(environment)


def test_a_resumed_sum_is_the_same_to_the_last_digit() -> None:
    losses = list(torch.rand(200, generator=torch.Generator().manual_seed(0)))
    expected = sum_in_order(losses)
    for stop in range(1, 200, 7):
        before = torch.tensor(sum_in_order(losses[:stop]), dtype=torch.float64)
        assert sum_in_order([before, *losses[stop:]]) == expected


def test_large_tables_of_frozen_encoders_go_in_large_batches() -> None:
    recipe = sections.TrainingRecipe()
    plans = [plan_training(recipe, rows, frozen=frozen) for rows in (400, 4000) for frozen in (False, True)]
    assert [(plan.epochs, plan.batch_size) for plan in plans] == [(42, 32), (42, 32), (40, 32), (20, 128)]
    as_asked = plan_training(sections.TrainingRecipe(epochs=3, batch_size=8), 4000, frozen=True)
    assert (as_asked.epochs, as_asked.batch_size) == (3, 8)


@pytest.mark.parametrize("has_empty_rows", [True, False])
def test_a_row_without_inputs_is_answered_by_the_rows_like_it(has_empty_rows: bool, tmp_path: Path) -> None:
    """Without training rows like it, it is answered by the shares of all. With them, an empty cell says
    something: here all rows without a number are of one class, the rarest.
    """
    rows = [{"x": float(i % 2), "y": "ab"[i % 2]} for i in range(60)]
    rows += [{"x": None if has_empty_rows else 2.0, "y": "c"}] * 20
    model = plait.fit(
        rows,
        "y",
        out=tmp_path / "run",
        overrides=["training.epochs=30", "columns.x.modality=number"],
        quiet=True,
    )
    answers = model.predict([{"x": None}, {"x": 0.0}])
    assert answers["y"].to_pylist() == ["c" if has_empty_rows else "a", "a"]
    if not has_empty_rows:
        shares = [answers[f"y_probability_{label}"][0].as_py() for label in "abc"]
        assert shares == pytest.approx([3 / 8, 3 / 8, 1 / 4], abs=0.02)


def test_a_share_is_no_more_than_all() -> None:
    with pytest.raises(ValueError, match="a share from 0 to 1, or auto"):
        sections.TrainingRecipe(unaugmented=1.2)


@pytest.mark.parametrize(("share", "augmented"), [(0.2, 8), (0.0, 10), (1.0, 0)])
def test_the_last_epochs_see_cells_as_they_are(
    share: float, augmented: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augments, take_batch = [], Dataset.batch

    def batch(self: Dataset, rows: torch.Tensor, generator: torch.Generator | None = None) -> Any:
        if len(self) > 24:  # the training rows, not those that validate
            augments.append(generator is not None)
        return take_batch(self, rows, generator)

    monkeypatch.setattr(Dataset, "batch", batch)
    rows = [{"x": float(i), "y": "ab"[i % 2]} for i in range(48)]
    overrides = [
        "training.epochs=10",
        "training.batch_size=64",
        f"training.unaugmented={share}",
        "training.patience=0",
        "training.refit=off",
        "columns.x.modality=number",
    ]
    plait.fit(rows, "y", out=tmp_path / "run", overrides=overrides, quiet=True, evaluate=False)
    assert augments == [True] * augmented + [False] * (10 - augmented)
