"""Ensembles as a user meets them, and the sums that weigh their members."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

import plait
from plait.api.fit import resume
from plait.console import Screen
from plait.data.plan_ensemble import plan_ensemble
from plait.data.split import folds
from plait.ensemble.selection import MIN_WEIGHT, bagged, greedy
from plait.errors import ArtifactError, Interrupted, RecipeError
from plait.members import linear, trees
from plait.recipe import recipe as recipes
from plait.recipe.sections import SplitRecipe
from plait.runs import files
from plait.runs.deadline import Deadline
from plait.table.schema import Column, Schema
from plait.table.table import Table
from plait.tasks.classification import Classification
from plait.training import loop
from support import tiny_models
from support.tables import FAST, make_rows, write_csv

TREES = "ensemble.members={forest: {name: trees, rounds: 10}, line: linear}"


def task(classes: int = 3) -> Classification:
    return Classification(list(range(classes)), [10] * classes, "none", 0.0)


def answers(strengths: Sequence[float], rows: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """Labels of three classes, and the logits of models that know them as well as these strengths say."""
    labels = torch.randint(0, 3, (rows,), generator=generator)
    hits = torch.nn.functional.one_hot(labels, 3).float()
    outputs = [strength * hits + torch.randn(rows, 3, generator=generator) for strength in strengths]
    return labels, outputs


def loss(outputs: list[Tensor], weights: Sequence[float], labels: Tensor) -> float:
    """The loss of the mean of these models' answers."""
    mean = task().mix(torch.stack(outputs), torch.tensor(weights))
    return float(task().loss(mean, labels, torch.ones(len(labels), dtype=torch.bool)))


def test_greedy_selection_finds_what_trying_all_weights_finds() -> None:
    labels, outputs = answers((1.5, 1.2, 0.0), 200, torch.Generator().manual_seed(0))
    weights = greedy(outputs, task(), labels, 50)
    assert sum(weights) == pytest.approx(1)
    assert weights[2] < 0.1
    assert weights[0] > weights[1] > 0.1

    steps = np.linspace(0, 1, 21)
    losses = []
    for first, second in itertools.product(steps, steps):
        if first + second <= 1:
            losses.append(loss(outputs, (first, second, 1 - first - second), labels))
    assert loss(outputs, weights, labels) <= min(losses) + 1e-3


def test_a_model_that_answers_no_numbers_has_no_weight() -> None:
    labels, outputs = answers((1.5, 1.2), 200, torch.Generator().manual_seed(0))
    outputs[0][7] = torch.nan
    assert greedy(outputs, task(), labels, 10) == [0.0, 1.0]
    assert sum(greedy(outputs[:1], task(), labels, 10)) == 1


class TestBaggedSelection:
    """Five good models and a bad one."""

    strengths = (1.5, 1.4, 1.5, 1.4, 1.5, 0.0)

    def test_it_is_flattered_less_by_few_rows(self) -> None:
        generator = torch.Generator().manual_seed(0)
        test_labels, test_outputs = answers(self.strengths, 5000, generator)
        losses: dict[int, list[float]] = {1: [], 20: []}
        for _ in range(5):
            labels, outputs = answers(self.strengths, 60, generator)
            for bags, test_losses in losses.items():
                weights = bagged(outputs, task(), labels, 20, bags, 0)
                test_losses.append(loss(test_outputs, weights, test_labels))
        assert np.mean(losses[20]) < np.mean(losses[1])

    def test_weights_add_up_to_one_and_none_is_small(self) -> None:
        labels, outputs = answers(self.strengths, 60, torch.Generator().manual_seed(0))
        weights = bagged(outputs, task(), labels, 20, 20, 0)
        assert sum(weights) == pytest.approx(1)
        assert all(weight == 0 or weight >= MIN_WEIGHT for weight in weights)

    def test_models_far_behind_the_best_one_have_no_weight(self) -> None:
        """Every selection knows the best one: none has to do with the others."""
        labels, outputs = answers((3.0, 0.3, 0.3, 0.3, 0.3, 0.3), 200, torch.Generator().manual_seed(0))
        assert bagged(outputs, task(), labels, 20, 20, 0)[0] > 0.95

    def test_a_seed_gives_the_same_weights(self) -> None:
        labels, outputs = answers(self.strengths, 60, torch.Generator().manual_seed(0))
        weights = bagged(outputs, task(), labels, 20, 20, 0)
        assert bagged(outputs, task(), labels, 20, 20, 0) == weights

    def test_one_bag_is_greedy_selection(self) -> None:
        labels, outputs = answers(self.strengths, 60, torch.Generator().manual_seed(0))
        assert bagged(outputs, task(), labels, 20, 1, 0) == greedy(outputs, task(), labels, 20)

    def test_only_one_selection_is_made_without_time(self) -> None:
        labels, outputs = answers(self.strengths, 60, torch.Generator().manual_seed(0))
        is_over = Deadline(ends=0.0)
        once = bagged(outputs, task(), labels, 20, 2, 0, is_over)
        assert once == bagged(outputs, task(), labels, 20, 20, 0, is_over)
        assert once != bagged(outputs, task(), labels, 20, 20, 0)

    def test_a_single_model_has_all_weight(self) -> None:
        labels, outputs = answers(self.strengths, 60, torch.Generator().manual_seed(0))
        assert bagged(outputs[:1], task(), labels, 20, 20, 0) == [1.0]


def test_folds_hold_every_row_out_once_and_split_no_group() -> None:
    rng = np.random.default_rng(0)
    table = Table(pa.table({"y": rng.integers(0, 3, 100), "g": np.arange(100) // 4}), Path.cwd(), "t")
    rows = np.sort(rng.permutation(100)[:80])
    for recipe in (SplitRecipe(), SplitRecipe(group="g"), SplitRecipe(stratify=False)):
        held_out = folds(table, rows, 5, recipe.group, "y" if recipe.stratify else "", 0)
        assert len(held_out) == 5
        np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), np.arange(80))
        if recipe.group:
            groups = [set((rows[places] // 4).tolist()) for places in held_out]
            assert all(not first & second for first, second in itertools.combinations(groups, 2))
    assert len(folds(table, rows[:3], 5, None, "y", 0)) == 3


@pytest.mark.parametrize(
    ("name", "meaning"), [("network", "the run's own network"), ("stack", "the stacked model")]
)
def test_names_that_an_ensemble_uses_itself_are_refused(name: str, meaning: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' is the name of {meaning}; give the member another"):
        recipes.load({"ensemble": {"members": {name: "linear"}}})


def test_an_ensemble_answers_alike_after_loading(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = plait.fit(table, "label", overrides=[*FAST, TREES, "ensemble.folds=3"], out=out, quiet=True)
    members = model.record["members"]["label"]
    assert set(members) == {"network", "forest", "line"}
    assert sum(member["weight"] for member in members.values()) == pytest.approx(1)
    rows = model.record["evaluation"]["validation"]["targets"]["label"]["rows"]
    assert rows == (10 if members["network"]["weight"] else 48), "the network predicts its validation rows"
    assert all(member["rows"] == rows for member in members.values() if member["weight"])
    page = (out / "report.html").read_text()
    assert "<h2>Members</h2>" in page
    assert all(f"<td>{name}</td>" in page for name in members)

    loaded = plait.load(out, quiet=True)
    incomplete = [
        {"photo": None, "text": "the sky is near", "price": 2.0},
        {"text": None, "photo": None, "shop": "north"},
    ]
    for data in (table, incomplete):
        before = model.predict(data)
        after = loaded.predict(data)
        assert before.column_names == after.column_names
        assert before["label"].equals(after["label"])
        for name in ("red", "green", "blue"):
            column = f"label_probability_{name}"
            np.testing.assert_allclose(before[column].to_numpy(), after[column].to_numpy(), atol=1e-5)
    assert loaded.embed(table).shape[0] == 48
    evaluation = loaded.evaluate(table).targets["label"]
    assert evaluation.metrics["accuracy"].value > 0.9
    assert len(evaluation.subsets) == 14


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an ensemble with a stacked model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x.sum(1)})
    overrides = ["training.epochs=1", "ensemble.folds=2", "ensemble.stack=true", TREES]
    out = tmp_path_factory.mktemp("stacked") / "run"
    plait.fit(table, "y", overrides=overrides, out=out, quiet=True)
    return out


@pytest.fixture(scope="module")
def lined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an ensemble with a linear model, which has all weight but that of a network."""
    x = np.random.default_rng(0).normal(size=(80, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x.sum(1)})
    overrides = ["training.epochs=1", "ensemble.folds=2", "ensemble.members={line: linear}"]
    out = tmp_path_factory.mktemp("lined") / "run"
    plait.fit(table, "y", overrides=overrides, out=out, quiet=True)
    return out


DAMAGES = {
    "unknown": lambda state: state.update(speed=1),
    "no columns": lambda state: state.pop("columns"),
    "unknown in a mixture": lambda state: state["weights"]["y"].update(power=2),
    "no temperature": lambda state: state["weights"]["y"].pop("temperature"),
    "unknown in a bag": lambda state: state["bags"][0].update(kind="x"),
    "no bags": lambda state: state.update(bags=[]),
    "no target": lambda state: state.update(weights={}),
    "no weights": lambda state: state["weights"]["y"].update(weights={}),
    "weights of no sum": lambda state: state["weights"]["y"].update(weights={"forest": 0.0}),
    "a temperature of 0": lambda state: state["weights"]["y"].update(temperature=0.0),
    "another view": lambda state: state["bags"][0].update(view="elsewhere", name="line"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_ensemble_is_refused(stacked: Path, tmp_path: Path, damage: str) -> None:
    out = Path(shutil.copytree(stacked, tmp_path / "run"))
    state = files.read_checked(out / "ensemble.json")
    DAMAGES[damage](state)
    files.write_checked(out / "ensemble.json", state)  # as a stranger would: with the right checksum
    with pytest.raises(ArtifactError, match=r"is damaged: (.|\n)*; copy the folder again"):
        plait.load(out, quiet=True)


def test_damaged_tensors_of_an_ensemble_are_refused(stacked: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(stacked, tmp_path / "run"))
    (out / "members" / "ensemble.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is damaged"):
        plait.load(out, quiet=True)


@pytest.mark.parametrize(
    ("name", "tensor", "change"),
    [
        ("linear", "y/weight", lambda tensor: tensor * torch.nan),
        ("linear", "y/weight", lambda tensor: tensor.repeat(1, 2)),
        ("linear", "y/bias", lambda tensor: tensor.short()),
        ("ensemble", "features/0/mean", lambda tensor: tensor * torch.nan),
        ("ensemble", "features/0/scale", lambda tensor: tensor.repeat(2)),
    ],
)
def test_tensors_that_cannot_answer_are_refused(
    lined: Path, tmp_path: Path, name: str, tensor: str, change: Callable[[Tensor], Tensor]
) -> None:
    out = Path(shutil.copytree(lined, tmp_path / "run"))
    path = next((out / "members").rglob(f"{name}.safetensors"))
    tensors, metadata = files.read_tensors(path)
    tensors[tensor] = change(tensors[tensor])
    files.write_tensors(path, tensors, metadata)  # as a stranger would: with the right checksum
    with pytest.raises(ArtifactError, match="is damaged"):
        plait.load(out, quiet=True)


def test_bars_reach_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: dict[str, Counted] = {}

    @contextmanager
    def counted(screen: Screen, title: str, total: int) -> Iterator[Counted]:
        bars[title] = Counted(total)
        yield bars[title]

    monkeypatch.setattr(Screen, "bar", counted)
    rows = [{"text": f"word {i} of {i % 7}", "x": float(i), "y": "ab"[i % 2]} for i in range(60)]
    overrides = ["training.epochs=1", "ensemble.folds=2", TREES]
    plait.fit(rows, "y", columns={"text": "text"}, overrides=overrides, out=tmp_path / "run", quiet=True)
    for title in ("preparing for members", "training members"):
        assert bars[title].steps == bars[title].total > 0


@dataclass
class Counted:
    """A progress bar that only counts."""

    total: int
    steps: int = 0

    def advance(self, steps: int = 1) -> None:
        self.steps += steps

    def draw(self, note: str | None = None) -> None:
        pass


def test_members_without_a_weight_are_not_saved(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = plait.fit(table, "label", overrides=[*FAST, TREES, "ensemble.folds=2"], out=out, quiet=True)
    saved = json.loads((out / "ensemble.json").read_text())["bags"]
    members = model.record["members"]["label"]
    assert {bag["name"] for bag in saved} == {name for name in members if members[name]["weight"]}


def test_texts_alone_are_answered_without_the_network(tmp_path: Path) -> None:
    """Only the view of n-grams is left where the network has no weight, and that view has no targets."""
    rng = np.random.default_rng(0)
    words = {"red": ["crimson", "scarlet"], "blue": ["navy", "azure"]}
    rows = []
    for i in range(160):
        colour = list(words)[i % 2]
        chosen = rng.choice(words[colour], 2)
        rows.append({"text": f"{chosen[0]} thing {i} and a {chosen[1]} one", "colour": colour})
    overrides = [
        "training.epochs=1",
        "training.learning_rate=1e-6",
        "ensemble.members={line: linear}",
        "split.test=0.2",
    ]
    out = tmp_path / "run"
    model = plait.fit(rows, "colour", overrides=overrides, out=out, quiet=True)
    assert list(model.answering.views) == ["ngrams"]
    for answering in (model, plait.load(out, quiet=True)):
        assert answering.predict(rows)["colour"].to_pylist() == [row["colour"] for row in rows]
        assert answering.evaluate(rows).targets["colour"].metrics["accuracy"].value == 1


def test_members_are_scored_on_out_of_fold_predictions(tmp_path: Path) -> None:
    """Labels are drawn by lot: trees learn training rows by heart, and can know nothing of the others."""
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=200) for i in range(8)}
    table = pa.table({**columns, "y": rng.permutation(np.repeat(["a", "b"], 100))})
    overrides = [
        "training.epochs=1",
        "ensemble.members={forest: {name: trees, least: 1, leaves: 31, rounds: 60}, line: linear}",
    ]
    model = plait.fit(table, "y", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert 0.35 < model.record["members"]["y"]["forest"]["value"] < 0.65
    validation = model.record["evaluation"]["validation"]["targets"]["y"]
    assert 0.35 < validation["metrics"]["accuracy"]["value"] < 0.65


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
    assert validation["metrics"]["rmse"]["value"] <= max(member["value"] for member in members.values())
    assert {member["rows"] for member in members.values()} == {validation["rows"]} == {60}


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


def test_a_member_whose_answers_are_no_numbers_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = linear.Linear.outputs

    def no_numbers(*arguments: Any) -> list[dict[str, Tensor]]:
        """Answer as a model does whose weights are no numbers."""
        answers = outputs(*arguments)
        return [{target: output * torch.nan for target, output in subset.items()} for subset in answers]

    monkeypatch.setattr(linear.Linear, "outputs", no_numbers)
    x = np.random.default_rng(0).normal(size=60)
    table = pa.table({"x": x, "y": 2 * x})
    members = "ensemble.members={forest: {name: trees, rounds: 5}, line: linear}"
    out = tmp_path / "run"
    model = plait.fit(table, "y", overrides=["training.epochs=1", "ensemble.folds=2", members], out=out)
    assert "line" not in model.record["members"]["y"]
    assert "line: left out of 'y', since some of its answers are no numbers" in capsys.readouterr().err
    assert np.isfinite(plait.load(out, quiet=True).predict(table)["y"]).all()


def grouped_rows() -> list[dict[str, object]]:
    """Groups of four rows. The target `b` has labels in one group only."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for row in range(48):
        x = float(rng.normal())
        rows.append(
            {"x": x, "day": row, "group": f"g{row // 4}", "a": 2 * x, "b": x if row // 4 == 3 else None}
        )
    return rows


@pytest.mark.parametrize("valid", [0.2, 0.0])
def test_a_target_that_a_fold_holds_out_whole(tmp_path: Path, valid: float) -> None:
    """No member can be judged by such a target: the network answers it."""
    small = "{name: tabm, epochs: 2, width: 8}"
    members = f"ensemble.members={{line: linear, forest: {{name: trees, rounds: 3}}, tabm: {small}}}"
    overrides = ["training.epochs=2", "split.group=group", f"split.valid={valid}", members]
    model = plait.fit(grouped_rows(), ["a", "b"], overrides=overrides, out=tmp_path / "run", quiet=True)
    assert set(model.record["members"]) == {"a"}
    answers = plait.load(tmp_path / "run").predict(grouped_rows())
    assert answers["b"].null_count == 0
    assert answers.equals(model.predict(grouped_rows()))


def test_a_fold_holds_out_all_numbers_above_zero(tmp_path: Path) -> None:
    rows = grouped_rows()
    for row in rows:
        row["b"] = abs(float(str(row["b"] or 0)))
    members = "ensemble.members={line: linear, forest: {name: trees, rounds: 3}}"
    overrides = ["training.epochs=2", "split.group=group", "tasks.b.transform=log", members]
    model = plait.fit(
        rows, "b", columns={"a": "ignored"}, overrides=overrides, out=tmp_path / "run", quiet=True
    )
    answers = model.predict(rows)["b"].to_numpy()
    assert np.isfinite(answers).all()
    assert (answers >= 0).all()


def test_time_splits_without_validation_rows_have_no_members(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["training.epochs=2", "split.time=day", "split.valid=0", TREES]
    columns = {"group": "ignored", "b": "ignored"}
    model = plait.fit(grouped_rows(), "a", columns=columns, overrides=overrides, out=tmp_path / "run")
    assert "members" not in model.record
    assert "leaves none to weigh members by (forest, line)" in capsys.readouterr().err


def test_where_time_splits_earlier_rows_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation rows are the only fold, and choose nothing for themselves."""
    rounds = []
    boost = trees._boost

    def recording(folds: list[trees._Fold], job: int, most: int, deadline: Deadline) -> list[int]:
        rounds.append([len(fold.held_y) for fold in folds])
        return boost(folds, job, most, deadline)

    monkeypatch.setattr(trees, "_boost", recording)
    rng = np.random.default_rng(0)
    table = pa.table({"day": np.arange(100), "a": rng.normal(size=100), "y": rng.normal(size=100)})
    overrides = ["training.epochs=1", "split.time=day", TREES]
    model = plait.fit(table, "y", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert rounds == [[20, 16]], "the last fifth of the rows, and the last fifth of those before"
    assert all(len(bag.folds) == 1 for bag in model.answering.bags)


def test_stacking_and_repeats(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = [*FAST, TREES, "ensemble.folds=2", "ensemble.repeats=2", "ensemble.stack=true"]
    model = plait.fit(table, "label", overrides=overrides, out=out, quiet=True)
    for bag in model.answering.bags:
        assert len(bag.folds) == (1 if bag.name == "network" else 4)
    mixture = model.answering.mixtures["label"]
    assert mixture.stack is not None
    assert mixture.stack.weight.shape == (6, 3)
    assert model.predict(table)["label"].equals(plait.load(out, quiet=True).predict(table)["label"])


def test_only_the_runs_network_has_late_fusion(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = []
    train = loop.train

    def recording(run: loop.Training) -> object:
        members.append(run.model)
        return train(run)

    monkeypatch.setattr("plait.members.network.train", recording)
    overrides = [*FAST, "training.epochs=1", "ensemble.folds=2", "ensemble.members={again: network}"]
    model = plait.fit(table, "label", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert model.network.model.task("label").late_fusion is not None
    assert len(members) == 2
    assert all(member.task("label").late_fusion is None for member in members)


@pytest.mark.parametrize("quality", ["good", "best"])
@pytest.mark.parametrize(("rows", "repeats"), [(1999, 3), (2000, 1)])
def test_members_are_trained_several_times_on_few_rows(quality: str, rows: int, repeats: int) -> None:
    columns = (Column(name="x", role="input", modality="number"), Column(name="y", role="target"))
    schema = Schema(columns=columns, rows=rows)
    plan = plan_ensemble(recipes.load({"quality": quality}), schema, rows)
    assert plan.repeats == repeats
    assert plan.stack == (quality == "best" and rows == 2000)
    recipe = recipes.load({"ensemble": {"members": {"line": "linear"}, "repeats": 2}})
    assert plan_ensemble(recipe, schema, rows).repeats == 2


def test_each_target_has_its_own_weights(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for i, row in enumerate(rows):
        row["size"] = row["price"] * 2 + 1 if i % 7 else ""
    table = write_csv(tmp_path / "t.csv", rows)
    overrides = [*FAST, TREES, "ensemble.folds=2"]
    targets = ["label", "size"]
    model = plait.fit(table, targets, overrides=overrides, out=tmp_path / "run", quiet=True)
    assert set(model.record["members"]) == {"label", "size"}
    size = model.record["evaluation"]["validation"]["targets"]["size"]
    assert model.record["members"]["size"]["line"]["rows"] == size["rows"] <= 41, "7 of 48 have no label"
    assert size["metrics"]["rmse"]["value"] < 1.5


# The members of `quality: good` that need no pretrained weights.
WITHOUT_WEIGHTS = {"network", "linear", "tabm", "trees", "random trees"}


def test_quality_leaves_out_members_without_weights(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """plait says so. A recipe that names pretrained weights which are not installed is an error."""
    from plait.pretrained import files

    def absent(name: str) -> Path:
        raise RecipeError(f"the weights of {name} are not here")

    monkeypatch.setattr(files, "find", absent)
    model = plait.fit(table, "label", overrides=FAST, quality="good", out=tmp_path / "run")
    assert (
        "without pretrained vectors of images: the weights of efficientnet_lite0 are not here"
        in capsys.readouterr().err
    )
    assert set(model.record["members"]["label"]) == WITHOUT_WEIGHTS
    named = "ensemble.members={mine: {name: network, encoders: {image: pretrained}}}"
    with pytest.raises(RecipeError, match="weights of efficientnet_lite0 are not here"):
        plait.fit(table, "label", overrides=[*FAST, named], out=tmp_path / "other", quiet=True)


def test_a_resume_trains_members_anew_but_not_the_network(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.members.trees import Trees
    from plait.training.step import Step

    out = tmp_path / "run"
    fit = Trees.fit
    overrides = [*FAST, TREES, "ensemble.folds=2"]
    monkeypatch.setattr(Trees, "fit", classmethod(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(Interrupted, match="--resume"):
        plait.fit(table, "label", overrides=overrides, out=out, quiet=True)
    monkeypatch.setattr(Trees, "fit", fit)
    steps: list[int] = []
    monkeypatch.setattr(Step, "__call__", lambda *_: steps.append(1))
    resumed = resume(out, quiet=True)
    assert not steps, "the network is trained already"
    monkeypatch.undo()
    uninterrupted = plait.fit(table, "label", overrides=overrides, out=tmp_path / "other", quiet=True)
    for record in (resumed.record, uninterrupted.record):
        for score in record["members"]["label"].values():
            del score["seconds"]  # no two fits take the same time
    assert resumed.record["members"] == uninterrupted.record["members"]


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
    assert set(resumed.record["members"]["label"]) == WITHOUT_WEIGHTS
    assert len(resumed.plan.ensemble.left_out) == 2


def test_a_light_member_trains_no_encoder_of_media_or_texts(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 40))
    vectors = f"{{text: {{name: pretrained, model: {tiny_models.bert(tmp_path / 'bert')}}}}}"
    light = f"{{name: network, light: true, encoders: {vectors}}}"
    complete = f"{{name: network, encoders: {vectors}}}"
    members = f"ensemble.members={{light: {light}, all: {complete}}}"
    overrides = [*FAST, members, "ensemble.folds=2"]
    model = plait.fit(table, "label", overrides=overrides, out=tmp_path / "run", quiet=True)

    views = {name: view for name, view in model.answering.views.items() if name != "network"}
    assert views, "one of the members has a weight"
    for name, view in views.items():
        left_out = {"photo"} if name.endswith(", light") else set()
        assert set(model.inputs) - set(view.preprocessing.inputs) == left_out
    assert model.predict({"text": "a red apple"}).num_rows == 1
