"""What a user gets who names no quality: a network, a linear model and trees, as one model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.errors import Interrupted
from plait.table.read import read
from support.recipes import quality
from support.tables import FAST
from support.training import StopAtStep

pytestmark = pytest.mark.default_quality

MEMBERS = {"network", "linear", "trees"}
ROWS = 60
EPOCHS = ["training.epochs=3"]


def rows(count: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Numbers, a category, two targets, a text to write, a time and a group."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        x, z = rng.normal(size=2)
        made.append(
            {
                "x": round(float(x), 4),
                "z": round(float(z), 4),
                "shop": "ab"[i % 2],
                "label": "yes" if x + z > 0 else "no",
                "size": round(float(3 * x - z), 3),
                "day": f"2024-01-{1 + i % 28:02d}",
                "family": f"f{i % 12}",
            }
        )
    return made


def fit(folder: Path, target: Any = "label", *overrides: str, **arguments: Any) -> plait.Model:
    others = {"label", "size", "day", "family"}.difference([target] if isinstance(target, str) else target)
    columns = {**dict.fromkeys(others, "ignored"), **arguments.pop("columns", {})}
    table = arguments.pop("table", None) or rows()
    overrides = (*EPOCHS, *overrides)
    return plait.fit(table, target, out=folder, columns=columns, overrides=overrides, quiet=True, **arguments)


def probabilities(model: plait.Model, table: list[dict[str, Any]]) -> list[float]:
    return model.predict(table)["label_probability_yes"].to_pylist()


def test_members_answer_together_and_are_loaded_again(tmp_path: Path) -> None:
    model = fit(tmp_path / "run")
    assert set(model.record["members"]["label"]) == MEMBERS
    unseen = rows(20, seed=1)
    answers = probabilities(model, unseen)
    assert probabilities(plait.load(tmp_path / "run"), unseen) == pytest.approx(answers)

    scores = model.evaluate(unseen).targets["label"]
    assert scores.metrics["accuracy"].value > scores.baseline["accuracy"]
    assert len(scores.subsets) == 6, "every subset of three inputs"
    assert model.embed(unseen).shape[0] == 20


def test_the_network_alone_can_be_asked_for(tmp_path: Path) -> None:
    model = fit(tmp_path / "run", quality="network")
    assert "members" not in model.record
    assert not (tmp_path / "run" / "ensemble.json").exists()


def test_several_targets_have_their_own_weights(tmp_path: Path) -> None:
    model = fit(tmp_path / "run", ["label", "size"])
    assert set(model.record["members"]) == {"label", "size"}
    answers = model.predict(rows(5, seed=1))
    assert {"label", "size"} <= set(answers.column_names)


@pytest.mark.parametrize("option", ["split.time=day", "split.group=family"])
def test_splits_by_time_and_by_group_have_members(option: str, tmp_path: Path) -> None:
    model = fit(tmp_path / "run", "label", option, columns={"day": "datetime", "family": "category"})
    assert set(model.record["members"]["label"]) == MEMBERS


def test_rows_without_a_label_are_left_to_the_network(tmp_path: Path) -> None:
    table = rows()
    for row in table[::4]:
        row["label"] = None
    model = fit(tmp_path / "run", "label", "training.unlabelled=1", table=table)
    assert model.record["members"]["label"]["trees"]["rows"] <= 45


@pytest.mark.parametrize("count", [4, 10, 25])
def test_tiny_tables_are_learned(count: int, tmp_path: Path) -> None:
    model = fit(tmp_path / "run", table=rows(count))
    assert ("members" in model.record) == (count == 25)
    assert len(model.predict(rows(3, seed=1))) == 3


def test_a_fold_without_a_number_above_zero_needs_no_trees(tmp_path: Path) -> None:
    table = rows()
    for i, row in enumerate(table):
        row["size"] = 1e9 if i == 3 else 0.0
    model = fit(tmp_path / "run", "size", "tasks.size={name: regression, transform: log}", table=table)
    assert "trees" not in model.record["members"]["size"]
    answers = plait.load(tmp_path / "run", quiet=True).predict(rows(3, seed=1))
    assert min(answers["size"].to_pylist()) >= 0


def test_a_class_that_some_folds_lack_is_learned(tmp_path: Path) -> None:
    table = rows()
    for row in table[7:11]:
        row["label"] = "perhaps"
    model = fit(tmp_path / "run", table=table)
    answers = model.predict(rows(3, seed=1))
    assert {"label_probability_perhaps", "label_probability_yes"} <= set(answers.column_names)


def test_a_table_of_texts_alone_has_members(tmp_path: Path) -> None:
    words = ["a warm sunny day", "a cold rainy night"]
    table = [{"text": f"{words[i % 2]} number {i}", "label": "ab"[i % 2]} for i in range(40)]
    model = plait.fit(
        table, "label", out=tmp_path / "run", columns={"text": "text"}, overrides=EPOCHS, quiet=True
    )
    assert set(model.record["members"]["label"]) == MEMBERS


ALONE = {
    "a text that is written": (["tasks.label=generation"], {}),
    "an alignment beside the target": ([], {"align": ["note", "other"]}),
    "a target with inputs of its own": (["tasks.label={name: classification, inputs: [x]}"], {}),
    "a model for each target": (["singles=true"], {}),
}


@pytest.mark.parametrize("name", ALONE)
def test_the_network_is_alone_where_members_cannot_learn(name: str) -> None:
    """Nobody asked for members, so this is no error, and nothing is said of them."""
    overrides, arguments = ALONE[name]
    table = rows()
    for i, row in enumerate(table):
        row |= {"note": f"a thing number {i} of many", "other": f"the other thing number {i} of many"}
    columns = {"note": "text", "other": "text"}
    plan = Plan.make(
        read(table), recipe_from(None, overrides=overrides, columns=columns, **arguments), "label"
    )
    assert not plan.ensemble.members
    assert not plan.ensemble.left_out


def test_members_show_in_a_table_and_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = [{"x": row["x"], "z": row["z"], "label": row["label"]} for row in rows()]
    plait.fit(table, "label", out=tmp_path / "run", overrides=EPOCHS)
    printed = capsys.readouterr().err
    assert "accuracy of each member's out-of-fold predictions" in printed
    assert "linear" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path / "stopped", callbacks=[StopAtStep(2)])
    stopped, other = fit(tmp_path / "stopped"), fit(tmp_path / "other")
    unseen = rows(9, seed=1)
    assert probabilities(stopped, unseen) == probabilities(other, unseen)


def test_the_command_takes_little_time_for_imports(tmp_path: Path) -> None:
    """torch's compiler, scikit-learn and Matplotlib take longer to import than a small table to learn."""
    script = (
        "import sys, plait\n"
        f"rows = [{{'x': float(i % 7), 'z': float(i % 5), 'label': 'ab'[i % 7 > 3]}} for i in range(40)]\n"
        f"plait.fit(rows, 'label', out={str(tmp_path / 'run')!r}, overrides={EPOCHS!r}, quiet=True)\n"
        "heavy = ('torch._dynamo', 'sklearn', 'matplotlib', 'scipy.stats', 'scipy.optimize', 'lightgbm')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_pictures_and_texts_have_members(table: Path, tmp_path: Path) -> None:
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    assert set(model.record["members"]["label"]) == MEMBERS
    assert len(model.predict([{"photo": None, "text": "a cherry"}])) == 1


def test_the_default_is_fast() -> None:
    assert recipe_from(None).quality == "fast"
    with quality("network"):
        assert recipe_from(None).quality == "network"
    assert recipe_from("classic").quality == "network"
