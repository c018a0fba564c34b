"""A trained model in use: predict, evaluate, embed, load in another process. Then bad input."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import plait
from plait.errors import ArtifactError, BadCellsError, RecipeError, TableError
from plait.evaluation.bootstrap import bootstrap
from plait.evaluation.scores import subset_name
from plait.prediction.artifact import FORMAT
from plait.table.problems import Problem, tell
from support.answers import assert_same_answers
from support.damage import forge
from support.tables import FAST, make_rows, write_csv


def test_predictions_keep_rows_and_order_and_name_bad_cells(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    rows = make_rows(tmp_path, 9, seed=5)
    (tmp_path / "cut.png").write_bytes((tmp_path / rows[0]["photo"]).read_bytes()[:60])
    rows[2]["photo"], rows[4]["photo"], rows[6]["price"] = "cut.png", "gone.png", "much"
    answers = model.predict(write_csv(tmp_path / "new.csv", rows))
    assert answers.column_names == [
        "label",
        "label_probability_blue",
        "label_probability_green",
        "label_probability_red",
        "problem",
    ]
    labels = answers["label"].to_pylist()
    has_photo = [i for i in range(len(rows)) if i not in (2, 4)]
    assert [labels[i] for i in has_photo] == [rows[i]["label"] for i in has_photo]
    problems = answers["problem"].to_pylist()
    assert [i for i, p in enumerate(problems) if p] == [2, 4, 6]
    assert "photo: broken or cut short" in problems[2]
    assert "photo: no such file" in problems[4]
    assert "gone.png" in problems[4]
    assert problems[6] == "price: expected a number, came 'much'"
    total = sum(answers[c].to_numpy() for c in answers.column_names if "probability" in c)
    assert np.allclose(total, 1, atol=1e-5)


def test_any_subset_of_inputs_and_one_row(trained: Any, tmp_path: Path) -> None:
    model, path = trained
    only_text = model.predict({"text": "a cherry", "photo": None})
    assert only_text["label"].to_pylist() == ["red"]

    expected = model.predict(path)["label_probability_red"].to_pylist()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for number in (0, 40):
        row = {**rows[number], "price": float(rows[number]["price"])}
        by_itself = model.predict(row, root=path.parent)["label_probability_red"].to_pylist()
        assert by_itself == pytest.approx([expected[number]], abs=2e-2)
    assert model.predict(pa.table({"text": pa.array([], pa.string())})).num_rows == 0


def test_absent_columns_are_warned_of_once_and_none_is_an_error(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = trained
    loud = plait.load(model.folder)
    loud.predict([{"text": "a leaf", "Photo": "x.png", "shop": "north"}] * 3)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: 2 inputs are not in the table, treated as missing in every row: "
        "'photo' (did you mean 'Photo'?), 'price'"
    )
    with pytest.raises(
        TableError, match=r"none of the model's input columns \(photo, text, price, shop\); it has a"
    ):
        loud.predict({"a": 1})


def test_a_fresh_process_without_the_data_answers_the_same(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    new = write_csv(tmp_path / "new.csv", make_rows(tmp_path, 12, seed=3))
    expected = model.predict(new)
    shutil.copytree(model.folder, tmp_path / "elsewhere")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "plait",
            "predict",
            str(tmp_path / "elsewhere"),
            str(new),
            "-o",
            str(tmp_path / "out.parquet"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    import pyarrow.parquet as pq

    assert_same_answers(pq.read_table(tmp_path / "out.parquet"), expected)


def test_evaluation_has_intervals_subsets_and_a_baseline(
    trained: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, _ = trained
    table = write_csv(tmp_path / "test.csv", make_rows(tmp_path, 30, seed=7))
    evaluation = model.evaluate(table).show()
    target = evaluation.targets["label"]
    assert target.rows == 30
    assert (
        target.metrics["accuracy"].low <= target.metrics["accuracy"].value <= target.metrics["accuracy"].high
    )
    assert target.baseline["accuracy"] == pytest.approx(1 / 3)
    assert len(target.subsets) == 2**4 - 2
    single_inputs = {s: score.value for s, score in target.subsets if len(s) == 1}
    assert single_inputs[("photo",)] > single_inputs[("shop",)]
    shown = capsys.readouterr().out
    assert "baseline" in shown
    assert "photo + text + price" in shown
    json.dumps(evaluation.to_dict())


def test_a_model_says_what_it_is(trained: Any) -> None:
    model, _ = trained
    text = repr(model)
    assert text.startswith(
        f"<plait.Model {str(model.folder)!r}: label from 4 inputs (photo, text, price, shop)"
    )
    assert "72 training rows" in text
    assert "label: accuracy 1.000 on validation rows" in text


def test_hidden_columns_are_evaluated_as_absent_ones(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    rows = make_rows(tmp_path, 30, seed=9)
    by_subset = {
        s: score.value
        for s, score in model.evaluate(write_csv(tmp_path / "a.csv", rows)).targets["label"].subsets
    }
    fewer = [{k: v for k, v in row.items() if k not in ("photo", "text")} for row in rows]
    score = model.evaluate(write_csv(tmp_path / "b.csv", fewer)).targets["label"].metrics["accuracy"].value
    assert score == by_subset[("price", "shop")]


def test_an_empty_cell_says_something_a_missing_column_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        # Nine in ten of the odd rows have no `weight`, one in ten of the even ones.
        is_empty = i % 2 == (rng.random() < 0.9)
        rows.append(
            {
                "weight": None if is_empty else rng.normal(),
                "length": rng.normal(),
                "kind": "odd" if i % 2 else "even",
            }
        )
    model = plait.fit(rows, "kind", out=tmp_path / "run", overrides=["training.epochs=20"], quiet=True)

    def odd(row: dict[str, Any]) -> float:
        return float(model.predict(row)["kind_probability_odd"][0].as_py())

    assert odd({"weight": None, "length": 0.0}) > 0.75
    assert odd({"weight": 0.0, "length": 0.0}) < 0.25
    assert 0.3 < odd({"length": 0.0}) < 0.7, "a table without the column"


def test_the_plain_columns_of_a_wide_table_are_one_subset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {f"n{i}": rng.normal() for i in range(50)}
        | {"words": f"some {rng.integers(9)} words here", "y": "ab"[j % 2]}
        for j in range(60)
    ]
    model = plait.fit(
        rows,
        "y",
        out=tmp_path / "run",
        columns={"words": "text"},
        overrides=["training.epochs=1"],
        quiet=True,
    )
    subsets = model.evaluate(rows).targets["y"].subsets
    names = {subset_name(s, subsets): len(s) for s, _ in subsets}
    assert names == {"words": 1, "all but words": 50}
    assert "all but words" in (tmp_path / "run" / "report.html").read_text()


def test_bootstrap_interval_covers_the_binomial_one() -> None:
    from plait.tasks.base import tasks

    task = tasks.find("classification").fit(
        tasks.configure("classification", {}), pa.chunked_array([["a", "b", "c"]]), "y"
    )
    target = np.zeros(400, dtype=np.int64)
    output = np.tile([9.0, 0.0, 0.0], (400, 1)).astype(np.float32)
    output[:100] = [0.0, 9.0, 0.0]
    score = bootstrap(task.score_rows(output, target), task.metrics, 1000)["accuracy"]
    expected = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert score.value == 0.75
    assert score.high - score.low == pytest.approx(2 * expected, rel=0.15)


def test_embeddings(trained: Any) -> None:
    model, path = trained
    vectors = model.embed(path)
    assert vectors.shape == (90, 64)
    assert np.isfinite(vectors).all()


# ---------------------------------------------------------------- bad input to fit


def spoil(folder: Path, rows: list[dict[str, Any]], count: int) -> Path:
    for i in range(count):
        rows[i]["photo"] = f"nowhere/{i}.png"
    return write_csv(folder / "train.csv", rows)


def test_few_bad_cells_are_listed_and_count_as_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = spoil(tmp_path, make_rows(tmp_path, 60), 2)
    plait.fit(table, "label", out=tmp_path / "run", overrides=FAST)
    listed = (tmp_path / "run" / "problems.csv").read_text().splitlines()
    assert listed[0] == "row,column,file,reason"
    assert listed[1] == f"0,photo,{tmp_path}/nowhere/0.png,no such file"
    assert len(listed) == 3
    assert "photo: 2 x no such file" in capsys.readouterr().err


def test_the_number_of_a_single_cell_agrees_with_its_noun() -> None:
    told: list[str] = []
    tell([Problem(0, "photo", "x.png", "not an image: its first bytes are 00")], told.append)
    assert told == ["1 cell could not be read, treated as missing:\n  photo: 1 x not an image"]


def test_many_bad_cells_are_an_error_that_shows_the_root(tmp_path: Path) -> None:
    table = spoil(tmp_path, make_rows(tmp_path, 60), 4)
    with pytest.raises(BadCellsError) as raised:
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    text = str(raised.value)
    assert "column 'photo': 4 of 60 cells cannot be read: more than 5%" in text
    assert text.count("no such file") == 4
    assert f"resolved against {tmp_path}" in text


def test_strict_takes_no_bad_cell(tmp_path: Path) -> None:
    table = spoil(tmp_path, make_rows(tmp_path, 60), 1)
    with pytest.raises(BadCellsError, match="none may be, under strict"):
        plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, strict=True, quiet=True)


def test_the_same_image_on_both_sides_is_warned_of(
    tmp_path: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for row in rows:
        row["photo"] = rows[0]["photo"]
    plait.fit(write_csv(tmp_path / "train.csv", rows), "label", out=tmp_path / "run", overrides=FAST)
    assert "1 file is in both the training and the validation rows" in capsys.readouterr().err


def test_long_texts_are_cut_and_counted(
    tmp_path: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows[0]["text"] = "word " * 500
    options = [*FAST, "columns.text.encoder=lstm"]
    plait.fit(write_csv(tmp_path / "train.csv", rows), "label", out=tmp_path / "run", overrides=options)
    assert "column 'text': 1 cell is longer than max_tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "lable"}, "no column 'lable': did you mean 'label'"),
        ({"target": []}, "which column is to be predicted"),
        ({"overrides": ["training.epoch=5"]}, "recipe: no option 'training.epoch': did you mean 'epochs'"),
        ({"overrides": ["training.epochs=many"]}, "option 'training.epochs' is 'many'"),
        ({"overrides": ["epochs"]}, "expected name=value"),
        ({"overrides": ["fusion=concatt"]}, "no component 'concatt' in fusion: did you mean 'concat'"),
        (
            {"overrides": ["columns.text.encoder=cnn"]},
            "encoder 'cnn' takes grid, but text gives tokens; use .*lstm or .*transformer",
        ),
        (
            {"overrides": ["columns.text.encoder={name: lstm, widht: 3}"]},
            "encoders/lstm: no option 'widht': did you mean 'width'",
        ),
        ({"recipe": "clasic"}, "no recipe 'clasic': did you mean 'classic'"),
        ({"recipe": "mine.yaml"}, "no recipe file 'mine.yaml'"),
        ({"columns": {"price": "numbr"}}, "no modality or role 'numbr': did you mean 'number'"),
        ({"overrides": ["split.column=splitt"]}, "no column 'splitt'"),
        ({"overrides": ["columns.photo.encoder=os:system"]}, "is no component"),
    ],
)
def test_wrong_arguments_get_the_nearest_name(
    tmp_path: Path, table: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(plait.PlaitError, match=message):
        plait.fit(table, **{"target": "label", "out": tmp_path / "run", "quiet": True, **arguments})


def test_valid_and_test_tables_given_apart(tmp_path: Path, table: Path) -> None:
    test = write_csv(tmp_path / "test.csv", make_rows(tmp_path, 12, seed=2))
    model = plait.fit(table, "label", valid=test, test=test, out=tmp_path / "run", overrides=FAST, quiet=True)
    assert model.record["rows"] == {"train": 48, "valid": 12, "test": 12}
    assert model.predict(test).num_rows == 12


# ---------------------------------------------------------------- artifacts


def test_damaged_artifacts_are_refused(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    with pytest.raises(ArtifactError, match="no folder"):
        plait.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"is no trained model of plait: it lacks plan.json"):
        plait.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    weights = (copy / "weights.safetensors").read_bytes()
    (copy / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ArtifactError, match="is damaged"):
        plait.load(copy)
    (copy / "weights.safetensors").write_bytes(weights)
    (copy / "state.json").write_text(
        (copy / "state.json").read_text().replace(f'"format": {FORMAT}', '"format": 99')
    )
    with pytest.raises(ArtifactError, match="has format 99"):
        plait.load(copy)


def test_models_of_older_formats_are_refused_with_advice(trained: Any, tmp_path: Path) -> None:
    """The folder of a model of format 7 has a schema, a recipe with all numbers, and no plan."""
    model, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    (copy / "plan.json").rename(copy / "schema.json")
    (copy / "state.json").write_text('{"format": 7, "inputs": {}, "tasks": {}, "several": []}')
    with pytest.raises(
        ArtifactError, match=f"has format 7; this plait reads {FORMAT}. Train the model again"
    ):
        plait.load(copy)


@pytest.mark.parametrize(
    ("field", "damage"), [("columns", {"photo": 3}), ("split", {"train": "1-x"}), ("seed", None)]
)
def test_a_damaged_plan_is_refused(trained: Any, tmp_path: Path, field: str, damage: Any) -> None:
    model, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    forge(copy / "plan.json", **{field: damage})
    with pytest.raises(ArtifactError, match=f"plan.json' is damaged: {field}"):
        plait.load(copy)


def test_loading_never_imports_what_the_folder_names(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Encoder: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    columns = json.loads((copy / "plan.json").read_text())["columns"]
    columns["text"]["encoder"] = {"name": "evil:Encoder"}
    forge(copy / "plan.json", columns=columns)
    with pytest.raises(RecipeError, match="never imports foreign code"):
        plait.load(copy)
    assert not (tmp_path / "ran").exists()


def test_a_finished_run_is_not_overwritten(trained: Any) -> None:
    model, path = trained
    with pytest.raises(RecipeError, match="already holds a trained model"):
        plait.fit(path, "label", out=model.folder, quiet=True)


def test_images_of_a_folder_of_classes(tmp_path: Path) -> None:
    for label, value in (("dark", 20), ("light", 230)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (12, 12), value + i).save(tmp_path / "photos" / label / f"{i}.png")
    options = [
        "training.epochs=12",
        "modalities.image.size=16",
        "columns.image.encoder={name: cnn, channels: [4], pool: mean}",
    ]
    model = plait.fit(
        tmp_path / "photos",
        "label",
        out=tmp_path / "run",
        overrides=[*options, "training.learning_rate=0.02"],
        quiet=True,
    )
    assert model.predict({"image": "dark/3.png"}, root=tmp_path / "photos")["label"].to_pylist() == ["dark"]
    assert model.predict(tmp_path / "photos")["label"].to_pylist() == ["dark"] * 10 + ["light"] * 10

    flat = tmp_path / "flat"
    flat.mkdir()
    for name, value in (("a", 225), ("b", 25), ("c", 235)):
        Image.new("L", (12, 12), value).save(flat / f"{name}.png")
    (flat / "README.md").write_text("new photos")
    assert model.predict(flat)["label"].to_pylist() == ["light", "dark", "light"]


def test_a_folder_of_classes_is_read_by_a_model_of_a_table(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    for row in make_rows(tmp_path / "old", 6):
        (tmp_path / "new" / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "old" / row["photo"], tmp_path / "new" / row["label"])
    answers = model.predict(tmp_path / "new")
    assert len(answers) == 6
    assert answers["problem"].null_count == 6
    assert model.evaluate(tmp_path / "new", subsets=False).targets["label"].rows == 6


def test_answers_beside_the_table_always_have_the_same_columns(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    rows = make_rows(tmp_path, 6, seed=5)
    answers = model.predict(rows, tmp_path, keep=True)
    assert answers.column_names[: len(rows[0])] == list(rows[0])
    expected = [row["label"] for row in rows]
    assert answers["label_answer"].to_pylist() == expected, "even where all answers are right"
    assert answers["label"].to_pylist() == [row["label"] for row in rows]
    wrong = model.predict([{**row, "label": "blue"} for row in rows], tmp_path, keep=True)
    assert wrong.column_names == answers.column_names


def test_rows_of_classes_that_training_lacks_are_wrong(tmp_path: Path) -> None:
    rows = [{"x": float(row % 2), "y": "ab"[row % 2]} for row in range(80)]
    model = plait.fit(rows, "y", overrides=["training.epochs=20"], out=tmp_path / "run", quiet=True)
    unseen = [{"x": 0.0, "y": "c"}] * 20
    scores = model.evaluate([*rows, *unseen], subsets=False)
    target = scores.targets["y"]
    assert (target.rows, target.unseen) == (100, 20)
    assert target.metrics["accuracy"].value == pytest.approx(0.8)
    assert target.metrics["roc_auc"].value == 1


def test_classes_that_only_test_rows_have_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [{"x": float(row % 2), "y": "ab"[row % 2]} for row in range(80)]
    test = [{"x": 0.0, "y": "c"}, {"x": 0.0, "y": "a"}]
    out = tmp_path / "run"
    plait.fit(train, "y", test=test, overrides=["training.epochs=2"], out=out).evaluate(test).show()
    note = "among them 1 row with a label that training lacks"
    assert note in capsys.readouterr().out
    assert note in (out / "report.html").read_text(encoding="utf-8")
    assert note in (out / "README.md").read_text(encoding="utf-8")


def test_answers_worse_than_the_baseline_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the test rows the slope has another sign."""
    x = np.linspace(-1, 1, 200)
    train, test = pa.table({"x": x, "y": x}), pa.table({"x": x, "y": -x})
    plait.fit(train, "y", test=test, overrides=["training.epochs=8"], out=tmp_path / "run")
    (line,) = [part for part in capsys.readouterr().err.split("warning: ") if part.startswith("y: on test")]
    assert "is worse than the baseline's" in " ".join(line.split())
