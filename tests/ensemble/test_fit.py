"""Ensembles as a user meets them, and the sums that weigh their members."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.api.fit import resume
from plait.data.plan_ensemble import plan_ensemble
from plait.data.split import folds
from plait.ensemble.selection import MIN_WEIGHT, bagged, greedy
from plait.errors import Interrupted, RecipeError
from plait.recipe import recipe as recipes
from plait.recipe.sections import SplitRecipe
from plait.table.schema import Column, Schema
from plait.table.table import Table
from plait.tasks.classification import Classification
from plait.training import loop
from support import tiny_models
from support.tables import FAST, make_rows, write_csv

TREES = "ensemble.members={forest: {name: trees, rounds: 10}, line: linear}"


def task(classes: int = 3) -> Classification:
    return Classification(list(range(classes)), [10] * classes, "none", 0.0)


def test_greedy_selection_finds_what_trying_all_shares_finds() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (200,), generator=g)
    right = torch.nn.functional.one_hot(y, 3).float()
    outputs = [right * strength + torch.randn(200, 3, generator=g) for strength in (1.5, 1.2, 0.0)]
    share = greedy(outputs, task(), y, 50)
    assert sum(share) == pytest.approx(1)
    everywhere = torch.ones(200, dtype=torch.bool)

    def loss(s: Any) -> float:
        return float(task().loss(task().mix(torch.stack(outputs), torch.tensor(s)), y, everywhere))

    steps = np.linspace(0, 1, 21)
    best = min(loss((a, b, 1 - a - b)) for a, b in itertools.product(steps, steps) if a + b <= 1)
    assert loss(share) <= best + 1e-3
    assert share[2] < 0.1
    assert share[0] > share[1] > 0.1


def test_bagged_selection_is_flattered_less_by_few_rows() -> None:
    g = torch.Generator().manual_seed(0)

    def answers(rows: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y = torch.randint(0, 3, (rows,), generator=g)
        right = torch.nn.functional.one_hot(y, 3).float()
        return y, [
            strength * right + torch.randn(rows, 3, generator=g)
            for strength in (1.5, 1.4, 1.5, 1.4, 1.5, 0.0)
        ]

    test_y, test = answers(5000)
    everywhere = torch.ones(5000, dtype=torch.bool)
    losses: dict[int, list[float]] = {1: [], 20: []}
    for _ in range(5):
        y, outputs = answers(60)
        for bags, found in losses.items():
            share = bagged(outputs, task(), y, 20, bags, 0)
            assert sum(share) == pytest.approx(1)
            assert all(s == 0 or s >= MIN_WEIGHT for s in share) or bags == 1
            found.append(
                float(task().loss(task().mix(torch.stack(test), torch.tensor(share)), test_y, everywhere))
            )
    assert bagged(outputs, task(), y, 20, 1, 0) == greedy(outputs, task(), y, 20)
    assert bagged(outputs, task(), y, 20, 20, 0) == bagged(outputs, task(), y, 20, 20, 0)
    assert np.mean(losses[20]) < np.mean(losses[1])
    assert bagged(outputs[:1], task(), y, 20, 20, 0) == [1.0]


def test_folds_hold_every_row_out_once_and_split_no_group() -> None:
    rng = np.random.default_rng(0)
    table = Table(pa.table({"y": rng.integers(0, 3, 100), "g": np.arange(100) // 4}), Path.cwd(), "t")
    rows = np.sort(rng.permutation(100)[:80])
    for recipe in (SplitRecipe(), SplitRecipe(group="g"), SplitRecipe(stratify=False)):
        parts = folds(table, rows, 5, recipe.group, "y" if recipe.stratify else "", 0)
        assert len(parts) == 5
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(80))
        if recipe.group:
            of = [set((rows[part] // 4).tolist()) for part in parts]
            assert all(not a & b for a, b in itertools.combinations(of, 2))
    assert len(folds(table, rows[:3], 5, None, "y", 0)) == 3


def test_an_ensemble_answers_alike_after_loading(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = plait.fit(table, "label", overrides=[*FAST, TREES, "ensemble.folds=3"], out=out, quiet=True)
    found = model.record["members"]["label"]
    assert set(found) == {"network", "forest", "line"}
    assert sum(one["weight"] for one in found.values()) == pytest.approx(1)
    rows = model.record["evaluation"]["validation"]["targets"]["label"]["rows"]
    assert rows == (10 if found["network"]["weight"] else 48), "the network predicts its validation rows"
    assert all(one["rows"] == rows for one in found.values() if one["weight"])
    page = (out / "report.html").read_text()
    assert "<h2>Members</h2>" in page
    assert all(f"<td>{name}</td>" in page for name in found)
    again = plait.load(out, quiet=True)
    rows = [
        {"photo": None, "text": "the sky is near", "price": 2.0},
        {"text": None, "photo": None, "shop": "north"},
    ]
    for given in (table, rows):
        a, b = model.predict(given), again.predict(given)
        assert a.column_names == b.column_names
        assert a["label"].equals(b["label"])
        for c in ("red", "green", "blue"):
            np.testing.assert_allclose(
                a[f"label_probability_{c}"].to_numpy(), b[f"label_probability_{c}"].to_numpy(), atol=1e-5
            )
    assert again.embed(table).shape[0] == 48
    evaluation = again.evaluate(table).targets["label"]
    assert evaluation.metrics["accuracy"].value > 0.9
    assert len(evaluation.subsets) == 14


def test_members_without_a_part_in_the_answer_are_not_kept(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = plait.fit(table, "label", overrides=[*FAST, TREES, "ensemble.folds=2"], out=out, quiet=True)
    kept = json.loads((out / "ensemble.json").read_text())["bags"]
    assert {b["name"] for b in kept} == {
        n for n, one in model.record["members"]["label"].items() if one["weight"]
    }


def test_scores_of_members_are_of_rows_that_they_had_not_seen(tmp_path: Path) -> None:
    """Labels by lot: trees know all that they have seen by heart, and nothing of what they have not."""
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            **{f"x{i}": rng.normal(size=200) for i in range(8)},
            "y": rng.permutation(np.repeat(["a", "b"], 100)),
        }
    )
    overrides = [
        "training.epochs=1",
        "ensemble.members={forest: {name: trees, least: 1, leaves: 31, rounds: 60}, line: linear}",
    ]
    model = plait.fit(table, "y", overrides=overrides, out=tmp_path / "run", quiet=True)
    scores = {name: one["value"] for name, one in model.record["members"]["y"].items()}
    assert 0.35 < scores["forest"] < 0.65
    assert (
        0.35 < model.record["evaluation"]["validation"]["targets"]["y"]["metrics"]["accuracy"]["value"] < 0.65
    )


def test_an_ensemble_is_no_worse_than_its_worst_member(tmp_path: Path) -> None:
    """The squared error of a mean is at most the mean of the squared errors, on the same rows. The network
    predicts a fifth of the rows out of fold; taken for the mean of the target on the others, it would make
    the ensemble worse than any member.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    noise = rng.normal(size=300)
    columns = {f"x{i}": x[:, i] for i in range(4)}
    table = pa.table({**columns, "y": 100 + x.sum(1) + x[:, 0] * x[:, 1] + 0.1 * noise})
    overrides = ["training.epochs=40", "ensemble.members={line: linear}", "ensemble.folds=2"]
    model = plait.fit(table, "y", overrides=overrides, out=tmp_path / "run", quiet=True)

    members = model.record["members"]["y"]
    assert members["network"]["weight"] > 0.3
    validation = model.record["evaluation"]["validation"]["targets"]["y"]
    assert validation["metrics"]["rmse"]["value"] <= max(one["value"] for one in members.values())
    assert {one["rows"] for one in members.values()} == {validation["rows"]} == {60}


def test_validation_rows_are_stacked_on_where_time_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    table = pa.table({"day": np.arange(120), "a": x[:, 0], "b": x[:, 1], "y": x.sum(1)})
    overrides = ["training.epochs=1", "split.time=day", "ensemble.stack=true"]
    members = "ensemble.members={forest: {name: trees, rounds: 20}, line: linear}"
    model = plait.fit(table, "y", overrides=[*overrides, members], out=tmp_path / "run", quiet=True)
    validation = model.record["evaluation"]["validation"]["targets"]["y"]
    assert validation["rows"] == 24
    assert validation["metrics"]["r2"]["value"] > 0.9


def test_stacking_and_repeats(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = [*FAST, TREES, "ensemble.folds=2", "ensemble.repeats=2", "ensemble.stack=true"]
    model = plait.fit(table, "label", overrides=overrides, out=out, quiet=True)
    bags = {b.name: b for b in model.answering.bags}
    assert all(len(b.folds) == 4 for name, b in bags.items() if name != "network")
    weights = model.answering.mixtures["label"]
    assert weights.stack is not None
    assert weights.stack[0].shape == (6, 3)
    assert model.predict(table)["label"].equals(plait.load(out, quiet=True).predict(table)["label"])


def test_columns_vote_in_the_recipes_own_network_only(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = []
    train = loop.train

    def recording(run: loop.Training) -> object:
        members.append(run.model)
        return train(run)

    monkeypatch.setattr("plait.members.network.train", recording)
    overrides = [*FAST, "training.epochs=1", "ensemble.folds=2", "ensemble.members={again: network}"]
    whole = plait.fit(table, "label", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert whole.network.model.task("label").late_fusion is not None
    assert len(members) == 2
    assert all(m.task("label").late_fusion is None for m in members)


@pytest.mark.parametrize("quality", ["good", "best"])
@pytest.mark.parametrize(("rows", "repeats"), [(1999, 3), (2000, 1)])
def test_members_are_trained_over_and_over_on_few_rows(quality: str, rows: int, repeats: int) -> None:
    columns = (Column(name="x", role="input", modality="number"), Column(name="y", role="target"))
    schema = Schema(columns=columns, rows=rows)
    assert plan_ensemble(recipes.load({"quality": quality}), schema, rows).repeats == repeats
    asked = {"ensemble": {"members": {"line": "linear"}, "repeats": 2}}
    assert plan_ensemble(recipes.load(asked), schema, rows).repeats == 2


def test_several_targets_have_shares_of_their_own(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for i, row in enumerate(rows):
        row["size"] = row["price"] * 2 + 1 if i % 7 else ""
    overrides = [*FAST, TREES, "ensemble.folds=2"]
    model = plait.fit(
        write_csv(tmp_path / "t.csv", rows),
        ["label", "size"],
        overrides=overrides,
        out=tmp_path / "run",
        quiet=True,
    )
    assert set(model.record["members"]) == {"label", "size"}
    size = model.record["evaluation"]["validation"]["targets"]["size"]
    assert model.record["members"]["size"]["line"]["rows"] == size["rows"] <= 41, "7 of 48 have no label"
    assert model.record["evaluation"]["validation"]["targets"]["size"]["metrics"]["rmse"]["value"] < 1.5


def test_what_quality_stands_for(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vectors whose weights are not installed are left out, and said so; asked for by name, they are an
    error.
    """
    from plait.pretrained import files

    def absent(name: str) -> Path:
        raise RecipeError(f"the weights of {name} are not here")

    monkeypatch.setattr(files, "find", absent)
    model = plait.fit(table, "label", overrides=FAST, quality="good", out=tmp_path / "run")
    assert (
        "without pretrained vectors of images: the weights of efficientnet_lite0 are not here"
        in capsys.readouterr().err
    )
    assert set(model.record["members"]["label"]) == {"network", "linear", "trees"}
    named = "ensemble.members={mine: {name: network, encoders: {image: pretrained}}}"
    with pytest.raises(RecipeError, match="weights of efficientnet_lite0 are not here"):
        plait.fit(table, "label", overrides=[*FAST, named], out=tmp_path / "other", quiet=True)


def test_interrupted_members_are_trained_anew_beside_the_same_network(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.members.trees import Trees

    out = tmp_path / "run"
    fit, asked = Trees.fit, [*FAST, TREES, "ensemble.folds=2"]
    monkeypatch.setattr(Trees, "fit", classmethod(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(Interrupted, match="--resume"):
        plait.fit(table, "label", overrides=asked, out=out, quiet=True)
    monkeypatch.setattr(Trees, "fit", fit)
    epochs: list[int] = []
    monkeypatch.setattr("plait.training.loop._epoch", lambda *_: epochs.append(1))
    resumed = resume(out, quiet=True)
    assert not epochs, "the network is trained already"
    monkeypatch.undo()
    whole = plait.fit(table, "label", overrides=asked, out=tmp_path / "whole", quiet=True)
    assert resumed.record["members"] == whole.record["members"]


def test_a_resumed_member_trains_for_as_many_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member's fold has fewer rows than the run's own network, and so more epochs."""
    epochs = []

    def stop(run: loop.Training) -> None:
        epochs.append(run.plan.training.epochs)
        raise KeyboardInterrupt

    rows = [{"text": f"thing {i} of {i % 7}", "x": float(i % 5), "y": "ab"[i % 2]} for i in range(200)]
    table = write_csv(tmp_path / "t.csv", rows)
    bert = tiny_models.bert(tmp_path / "bert")
    member = f"{{name: network, light: true, encoders: {{text: {{name: pretrained, model: {bert}}}}}}}"
    overrides = [f"ensemble.members={{light: {member}}}", "split.valid=0.04", "training.patience=1"]
    monkeypatch.setattr("plait.members.network.train", stop)
    with pytest.raises(Interrupted):
        plait.fit(
            table,
            "y",
            columns={"text": "text"},
            overrides=overrides,
            out=tmp_path / "run",
            quiet=True,
        )
    with pytest.raises(Interrupted):
        resume(tmp_path / "run", quiet=True)
    assert epochs == [100, 100]


def test_a_resume_leaves_out_what_the_first_fit_left_out(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.members.trees import Trees
    from plait.pretrained import files

    def absent(name: str) -> Path:
        raise RecipeError(f"the weights of {name} are not here")

    monkeypatch.setattr(files, "find", absent)
    with monkeypatch.context() as patched:
        patched.setattr(Trees, "fit", classmethod(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)))
        with pytest.raises(Interrupted, match="--resume"):
            plait.fit(table, "label", overrides=FAST, quality="good", out=tmp_path / "run", quiet=True)
    resumed = resume(tmp_path / "run", quiet=True)
    assert set(resumed.record["members"]["label"]) == {"network", "linear", "trees"}
    assert len(resumed.plan.ensemble.left_out) == 2


def test_a_light_member_leaves_out_what_would_have_to_be_trained(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 40))
    vectors = f"{{text: {{name: pretrained, model: {tiny_models.bert(tmp_path / 'bert')}}}}}"
    light, whole = (
        f"{{name: network, light: true, encoders: {vectors}}}",
        f"{{name: network, encoders: {vectors}}}",
    )
    members = f"ensemble.members={{light: {light}, all: {whole}}}"
    model = plait.fit(
        table, "label", overrides=[*FAST, members, "ensemble.folds=2"], out=tmp_path / "run", quiet=True
    )
    views = model.answering.views
    light = next((v for name, v in views.items() if name.endswith(", light")), None)
    whole = next((v for name, v in views.items() if name != "network" and not name.endswith(", light")), None)
    assert light or whole, "one of them has a share"
    if light:
        assert set(model.inputs) - set(light.preprocessing.inputs) == {"photo"}
    if whole:
        assert set(whole.preprocessing.inputs) == set(model.inputs)
    assert model.predict({"text": "a red apple"}).num_rows == 1
