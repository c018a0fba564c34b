"""The sums behind members. tests/contract/test_members.py has what holds for every member."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge

from plait.data.features import Features
from plait.members.base_linear import Space, solve
from plait.tasks.base_prediction import fit_temperature
from support.members import SEEN, TARGETS, make


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
    examples, _ = make(TARGETS)
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
    examples, _ = make(TARGETS)
    again = Features.from_state(examples.features.state(), examples.features.tensors())(examples.views)
    for before, after in zip(examples.blocks, again, strict=True):
        x, y = (b.x if isinstance(b.x, np.ndarray) else b.x.toarray() for b in (before, after))
        np.testing.assert_array_equal(x, y)


def test_means_of_answers() -> None:
    examples, _ = make(TARGETS)
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
    examples, _ = make(TARGETS)
    tasks = examples.views["network"].preprocessing.tasks
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=g)
    y = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    assert fit_temperature(tasks["kind"], logits * 5, y) == pytest.approx(5, rel=0.1)
    assert fit_temperature(tasks["kind"], logits, y) == pytest.approx(1, rel=0.1)
    assert fit_temperature(tasks["kind"], logits[:10] * 5, y[:10]) == 1, "ten rows say little"
    assert fit_temperature(tasks["price"], logits[:, 0], logits[:, 1]) == 1, "a number has no temperature"
