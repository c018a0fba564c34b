"""What every member keeps: any task, any subset of inputs, the same answers after saving and loading;
and the sums behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge

from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.members.base import Examples, Lesson, members
from plait.members.base_linear import Space, solve
from plait.nn import device
from plait.recipe.recipe import load
from plait.table.table import Table
from plait.tasks.base_prediction import fit_temperature

ROWS, SEEN = 90, 60
SMALL = {"trees": {"rounds": 20}}  # options that make a member faster


def make(tasks: dict[str, str]) -> tuple[Examples, Plan]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    kind = np.array(["low", "middle", "high"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    words = np.where(x[:, 1] > 0, "a warm sunny day", "a cold rainy night")
    columns = {
        "a": pa.array(x[:, 0], mask=rng.random(ROWS) < 0.1),
        "v": pa.array(x[:, 1:].tolist(), pa.list_(pa.float32(), 2)),
        "shop": pa.array(np.where(x[:, 2] > 0, "north", "south")),
        "text": pa.array([f"{w} number {i}" for i, w in enumerate(words)]),
        "kind": pa.array(kind),
        "warm": pa.array(x[:, 1] > 0).cast(pa.int64()),
        "price": pa.array(x @ np.array([2.0, -1.0, 0.5])),
        "tags": pa.array([[t for t, on in zip("pq", row[:2] > 0, strict=True) if on] for row in x]),
    }
    table = Table(
        pa.table({k: c for k, c in columns.items() if k not in TASKS or k in tasks}), Path.cwd(), "t"
    )
    training = {"epochs": 40, "precision": "fp32", "channels_last": "off", "allocator": "off"}
    asked = {"training": training, "columns": {"text": {"modality": "text"}}, "split": {"valid": 0}}
    plan = Plan.make(table, load({**asked, "tasks": tasks}), tasks)
    preprocessing = Preprocessing.fit(table, plan, np.arange(SEEN))
    views = {"network": Dataset(preprocessing.prepare(table), preprocessing)}
    return Examples(
        views, Features.fit(views, {"network": list(preprocessing.inputs)}, np.arange(SEEN))
    ), plan


TASKS = {"kind": "classification", "warm": "classification", "price": "regression", "tags": "multilabel"}


def lesson(examples: Examples, plan: Plan, folder: Path) -> Lesson:
    data = examples.views["network"]
    settings = device.settings(plan.recipe.training, False)
    train, valid = examples.take(np.arange(SEEN)), examples.take(np.arange(SEEN, ROWS))
    return Lesson(train, valid, "network", plan, settings, data.preprocessing.tasks, 0, folder)


@pytest.mark.parametrize("name", members.names())
def test_a_member_learns_every_task_and_is_the_same_after_saving(name: str, tmp_path: Path) -> None:
    examples, plan = make(TASKS)
    kind, config = members.find(name), members.configure(name, SMALL.get(name, {}))
    one = lesson(examples, plan, tmp_path)
    member = kind.fit(config, one)
    columns = list(one.train.views["network"].preprocessing.inputs)
    subsets = [tuple(columns), ("a",), ("text", "v"), ()]
    found = member.outputs(one.valid, subsets)
    assert [set(f) for f in found] == [set(TASKS)] * len(subsets)
    for target, output in found[0].items():
        y, _ = one.valid.target(target)
        assert len(output) == ROWS - SEEN
        assert torch.isfinite(torch.cat([f[target].flatten() for f in found])).all()
        assert not torch.equal(output, found[1][target]), "hiding columns changes nothing"
        without = found[3][target]
        torch.testing.assert_close(
            without, without[:1].expand_as(without), msg="without any input all rows are answered alike"
        )
        assert one.tasks[target].measure(output.numpy(), y.numpy())
    member.save(tmp_path)
    again = kind.load(
        config, tmp_path, plan, one.settings, ("network", one.train.views["network"].preprocessing)
    )
    for before, after in zip(found, again.outputs(one.valid, subsets), strict=True):
        for target in TASKS:
            torch.testing.assert_close(before[target], after[target], rtol=1e-5, atol=1e-5)
    y, _ = one.valid.target("kind")
    assert one.tasks["kind"].measure(found[0]["kind"].numpy(), y.numpy())["accuracy"] > 0.6


@pytest.mark.parametrize("name", members.names())
def test_a_member_never_sees_what_it_is_not_given(name: str, tmp_path: Path) -> None:
    """Labels of rows that are held out, and those that are missing, change nothing but when to stop."""
    found = []
    for changed in (False, True):
        examples, plan = make({"kind": "classification"})
        batch = examples.prepared.batch
        batch.labelled["kind"][:5] = False
        if changed:
            batch.targets["kind"][:5] = 0
        one = lesson(examples, plan, tmp_path)
        member = members.find(name).fit(members.configure(name, SMALL.get(name, {})), one)
        found.append(member.outputs(one.valid, [("a", "v")])[0]["kind"])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(("rows", "ngrams"), [(40, False), (40, True), (200, False), (200, True)])
def test_linear_is_scikit_learns_minimum(rows: int, ngrams: bool) -> None:
    """Among the rows (40 of them, 100 numbers), and directly (200); of numbers, and of n-grams, most of
    which are zeros, beside them.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 100)).astype(np.float32) / 10
    label = rng.integers(0, 3, rows)
    label[:3] = [0, 1, 2]
    examples, _ = make({"kind": "classification", "price": "regression"})
    tasks = examples.views["network"].preprocessing.tasks
    strength = 1e-3
    parts: list[Any] = [x[:, :30], sparse.csr_matrix(x[:, 30:]) if ngrams else x[:, 30:]]
    space = Space(parts)
    w, b = solve(
        space,
        tasks["kind"],
        torch.from_numpy(label),
        strength,
        torch.zeros(space.width, 3).double(),
        torch.zeros(3).double(),
        1000,
    )
    theirs = LogisticRegression(C=1 / (strength * rows), max_iter=5000, tol=1e-8).fit(x, label)
    ours = torch.from_numpy(x @ space.weights(w).numpy() + b.numpy()).softmax(1)
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=2e-3)
    y = torch.from_numpy(rng.normal(size=rows).astype(np.float32))
    w, b = solve(
        space,
        tasks["price"],
        y,
        strength,
        torch.zeros(space.width, 1).double(),
        torch.tensor(0.0).double(),
        1000,
    )
    theirs = Ridge(alpha=strength * rows / 2).fit(x, y)  # the mean of squares against half of |W|^2
    np.testing.assert_allclose((x @ space.weights(w).numpy())[:, 0] + float(b), theirs.predict(x), atol=2e-3)


def test_blocks_are_scaled_alike() -> None:
    examples, _ = make(TASKS)
    blocks = {b.column: b for b in examples.take(np.arange(SEEN)).blocks}
    for column in ("a", "v"):
        x, present = blocks[column].x, blocks[column].present
        assert not x[~present].any()
        assert (x[present] ** 2).sum(1).mean() == pytest.approx(1, rel=1e-3)
    text = blocks["text"].x
    np.testing.assert_allclose(np.sqrt(text.multiply(text).sum(1)), 1, rtol=1e-5)
    assert set(np.unique(blocks["shop"].x.toarray())) == {0, 1}
    hidden = blocks["a"].only(["v"])
    assert not hidden.x.any()
    assert not hidden.present.any()


def test_features_are_the_same_after_saving() -> None:
    examples, _ = make(TASKS)
    again = Features.from_state(examples.features.state(), examples.features.tensors())(examples.views)
    for before, after in zip(examples.blocks, again, strict=True):
        x, y = (b.x if isinstance(b.x, np.ndarray) else b.x.toarray() for b in (before, after))
        np.testing.assert_array_equal(x, y)


def test_means_of_answers() -> None:
    examples, _ = make(TASKS)
    tasks = examples.views["network"].preprocessing.tasks
    share = torch.tensor([0.25, 0.75])
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=g)
    torch.testing.assert_close(
        tasks["kind"].mix(logits, share).softmax(-1), (logits.softmax(-1) * share[:, None, None]).sum(0)
    )
    one = torch.randn(2, 5, 1, generator=g)
    torch.testing.assert_close(
        tasks["warm"].mix(one, share).sigmoid(), (one.sigmoid() * share[:, None, None]).sum(0)
    )
    two = torch.randn(2, 5, 2, generator=g)
    torch.testing.assert_close(
        tasks["tags"].mix(two, share).sigmoid(), (two.sigmoid() * share[:, None, None]).sum(0)
    )
    number = torch.randn(2, 5, generator=g)
    torch.testing.assert_close(tasks["price"].mix(number, share), 0.25 * number[0] + 0.75 * number[1])


def test_the_temperature_undoes_what_was_put_on() -> None:
    examples, _ = make(TASKS)
    tasks = examples.views["network"].preprocessing.tasks
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=g)
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    assert fit_temperature(tasks["kind"], logits * 5, y) == pytest.approx(5, rel=0.1)
    assert fit_temperature(tasks["kind"], logits, y) == pytest.approx(1, rel=0.1)
    assert fit_temperature(tasks["kind"], logits[:10] * 5, y[:10]) == 1, "ten rows say little"
    assert fit_temperature(tasks["price"], logits[:, 0], logits[:, 1]) == 1, "a number has no temperature"
