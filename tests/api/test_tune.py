"""Tuning as a user meets it: it chooses, goes on where it was stopped, and refuses other trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plait
from plait.api import fit as api
from plait.api.tune import suiting
from plait.errors import ArtifactError, Interrupted, RecipeError
from plait.recipe.recipe import load
from plait.table.read import read
from support.tables import make_rows, write_csv

SMALL = ["training.epochs=3", "columns.photo.role=ignored", "columns.text.encoder={name: bag, width: 8}"]
SPACE = {
    "tuning": {
        "space": {
            "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "fusion": {"choices": ["concat", {"name": "logit_sum", "hidden": [8]}]},
            "training.batch_size": {"low": 4, "high": 9, "whole": True},
        }
    }
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "t.csv", make_rows(tmp_path, 40))


def tuned(table: Path, out: Path, trials: int, **arguments: Any) -> plait.Model:
    return plait.tune(
        table, "label", out=out, trials=trials, recipe=SPACE, overrides=SMALL, quiet=True, **arguments
    )


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "tuning" / "journal.jsonl").read_text().splitlines()]


def drawn(out: Path) -> list[list[str]]:
    """The overrides of each trial."""
    return attributes(out, "overrides")


def attributes(out: Path, name: str) -> list[Any]:
    """What the journal says of the trials under a name, in their order."""
    entries = [entry.get("user_attr", {}) for entry in journal(out)]
    return [attribute[name] for attribute in entries if name in attribute]


def test_the_best_trial_is_the_recipe_of_the_last_fit(table: Path, tmp_path: Path) -> None:
    model = tuned(table, tmp_path / "run", 5)
    scores = [entry["values"][0] for entry in journal(tmp_path / "run") if entry.get("values")]
    best = drawn(tmp_path / "run")[int(np.argmax(scores))]
    expected = load(SPACE, [*SMALL, *best])
    assert model.plan.training.learning_rate == expected.training.learning_rate
    assert model.plan.fusion.name == expected.fusion.name
    assert drawn(tmp_path / "run")[0] == [], "the first trial is the recipe as it is"
    assert len({str(d) for d in drawn(tmp_path / "run")}) == 5
    assert {p.name for p in (tmp_path / "run" / "tuning").iterdir()} == {"about.json", "journal.jsonl"}
    assert model.predict({"text": "a red apple"}).num_rows == 1


def test_alignments_are_tuned_by_what_they_have(table: Path, tmp_path: Path) -> None:
    model = plait.tune(
        table,
        align=["photo", "text"],
        out=tmp_path / "run",
        trials=2,
        overrides=["training.epochs=1"],
        quiet=True,
    )
    assert model.alignments == {"alignment": ["photo", "text"]}
    tried = {override.split("=")[0] for override in drawn(tmp_path / "run")[1]}
    assert {"training.learning_rate", "tasks.alignment.temperature", "tasks.alignment.dropout"} <= tried
    assert not {"training.mixup", "fusion", "model.unimodal_weight", "model.modality_dropout"} & tried


def test_only_options_that_suit_all_tasks_are_tried(table: Path) -> None:
    rows = read(table)
    assert "training.mixup" in suiting(load(None), rows, ["label"])
    both = suiting(load(None, ["tasks.text=generation"]), rows, ["label", "text"])
    assert "training.mixup" not in both
    assert "fusion" in both
    assert suiting(
        load({"tuning": {"space": {"training.warmup": {"low": 0, "high": 1}}}}), rows, ["label"]
    ).keys() == {"training.warmup"}


def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(table, tmp_path / "uninterrupted", 4)
    fit, count = api.fit, []

    def stop(*arguments: Any, **named: Any) -> Any:
        count.append(1)
        if len(count) == 3:
            raise Interrupted("stopped")
        return fit(*arguments, **named)

    monkeypatch.setattr(api, "fit", stop)
    with pytest.raises(Interrupted, match="go on with the same command"):
        tuned(table, tmp_path / "resumed", 4)
    monkeypatch.undo()
    tuned(table, tmp_path / "resumed", 4)
    uninterrupted, resumed = drawn(tmp_path / "uninterrupted"), drawn(tmp_path / "resumed")
    assert resumed[:2] == uninterrupted[:2]
    assert resumed[3:] == uninterrupted[2:], "the stopped one is drawn again"
    names = ("weights.safetensors", "recipe.yaml")
    for name in names:
        expected = (tmp_path / "uninterrupted" / name).read_bytes()
        assert (tmp_path / "resumed" / name).read_bytes() == expected


def test_trials_that_lag_behind_are_stopped_early(table: Path, tmp_path: Path) -> None:
    space = {
        "tuning": {
            "space": {
                "training.learning_rate": {"choices": [1e-9, 5e-3]},
                "training.warmup": {"choices": [0, 0.1]},
            }
        }
    }
    options = [*SMALL, "training.epochs=6", "training.batch_size=4"]
    plait.tune(table, "label", out=tmp_path / "run", trials=14, recipe=space, overrides=options, quiet=True)
    ends = attributes(tmp_path / "run", "end")
    assert len(ends) == 14
    assert "stopped early" in ends[5:]
    assert set(ends[:5]) == {"complete"}


def test_trials_of_something_else_are_refused(table: Path, tmp_path: Path) -> None:
    tuned(table, tmp_path / "run", 1)
    with pytest.raises(RecipeError, match="already holds a trained model"):
        tuned(table, tmp_path / "run", 2)
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(RecipeError, match="begun with other recipe"):
        plait.tune(table, "label", out=tmp_path / "run", overrides=SMALL, quiet=True)
    with pytest.raises(RecipeError, match="begun with other seed"):
        tuned(table, tmp_path / "run", 2, seed=1)


def test_what_cannot_be_tried_is_an_error(table: Path, tmp_path: Path) -> None:
    wrong = {"tuning": {"space": {"training.learning_rat": {"low": 1, "high": 2}}}}
    with pytest.raises(RecipeError, match="learning_rate"):
        plait.tune(table, "label", out=tmp_path / "a", recipe=wrong, trials=2, overrides=SMALL, quiet=True)
    with pytest.raises(RecipeError, match="low <= high"):
        plait.tune(
            table,
            "label",
            out=tmp_path / "b",
            recipe={"tuning": {"space": {"seed": {"low": 2, "high": 1}}}},
            quiet=True,
        )
    with pytest.raises(RecipeError, match="chooses by validation rows"):
        plait.tune(table, "label", out=tmp_path / "c", overrides=[*SMALL, "split.valid=0"], quiet=True)


def stopped_before_the_last_fit(table: Path, out: Path) -> Path:
    """Try two recipes, stop before the last fit, and return the journal."""
    fits: list[Any] = []
    fit = api.fit

    def stop(*arguments: Any, **named: Any) -> Any:
        fits.append(named)
        if len(fits) == 3:
            raise Interrupted("stopped")
        return fit(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "fit", stop)
        with pytest.raises(Interrupted):
            tuned(table, out, 2)
    return out / "tuning" / "journal.jsonl"


@pytest.mark.parametrize("override", ["fusion=evil:Fusion", "training.batch_size=8e", "recipe=x", "="])
def test_a_strangers_journal_names_no_other_options(override: str, table: Path, tmp_path: Path) -> None:
    path = stopped_before_the_last_fit(table, tmp_path / "run")
    lines = []
    for entry in journal(tmp_path / "run"):
        if "overrides" in entry.get("user_attr", {}):
            entry["user_attr"]["overrides"] = [override]
        lines.append(json.dumps(entry))
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactError, match="is in no search space"):
        tuned(table, tmp_path / "run", 2)


def test_a_damaged_journal_is_named(table: Path, tmp_path: Path) -> None:
    path = stopped_before_the_last_fit(table, tmp_path / "run")
    path.write_text("{damaged\n" + path.read_text())
    with pytest.raises(ArtifactError, match=r"journal.jsonl' is damaged"):
        tuned(table, tmp_path / "run", 2)


def test_changed_images_are_another_table(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 40)
    table = write_csv(tmp_path / "t.csv", rows)
    small = [
        "training.epochs=1",
        "modalities.image.size=16",
        "columns.photo.encoder={name: cnn, channels: [4]}",
    ]
    begin = {"out": tmp_path / "run", "trials": 1, "overrides": small, "quiet": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "fit", lambda *arguments, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted, match="0 trials are saved"):
            plait.tune(table, "label", **begin)
    (tmp_path / rows[0]["photo"]).write_bytes((tmp_path / rows[1]["photo"]).read_bytes())
    with pytest.raises(RecipeError, match="other files"):
        plait.tune(table, "label", **begin)
