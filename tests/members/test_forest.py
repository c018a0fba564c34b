"""Trees as arrays answer as LightGBM does, and arrays that are no trees are refused."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
import torch
from torch import Tensor

from plait.members.base_trees import KINDS, Forest

NUMBERS = 8
OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {},
    "multiclass": {"num_class": 3},
    "regression": {},
    "huber": {"alpha": 1.5},
}


def table(rows: int, missing: float, seed: int) -> np.ndarray:
    """Return rows of numbers, some of them whole, with a share of missing ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, NUMBERS)).astype(np.float32)
    x[:, 0] = np.round(x[:, 0])
    x[rng.random(x.shape) < missing] = np.nan
    return x


def grown(objective: str, missing: float, leaves: int = 7, rounds: int = 30) -> lightgbm.Booster:
    x = table(600, missing, seed=0)
    total = np.nan_to_num(x).sum(1)
    targets = {"binary": total > 0, "multiclass": np.digitize(total, [-2, 2])}
    y = targets.get(objective, total).astype(np.float64)
    parameters = {"objective": objective, "num_leaves": leaves, "verbosity": -1, "num_threads": 1, "seed": 0}
    parameters |= {"max_bin": 63, "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1}
    return lightgbm.train({**parameters, **OBJECTIVES[objective]}, lightgbm.Dataset(x, y), rounds)


@pytest.mark.parametrize("leaves", [2, 7, 40])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_forest_answers_as_lightgbm_does(objective: str, missing: float, leaves: int) -> None:
    booster = grown(objective, missing, leaves)
    forest = Forest.of_text(booster.model_to_string(num_iteration=20))
    for share in (0.0, 0.3, 1.0):
        x = table(500, share, seed=1)
        x[::5, 0] = 0
        expected = np.asarray(booster.predict(x, raw_score=True, num_iteration=20)).reshape(len(x), -1)
        np.testing.assert_allclose(forest(x), expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(forest(x[7:8]), forest(x)[7:8])
    assert forest(table(0, 0, seed=1)).shape == (0, forest.outputs)


def test_trees_of_one_leaf_answer_its_value() -> None:
    x = table(50, 0, seed=0)
    parameters = {"objective": "regression", "min_data_in_leaf": 1000, "verbosity": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, np.arange(50.0)), 3)
    forest = Forest.of_text(booster.model_to_string())
    np.testing.assert_allclose(forest(x)[:, 0], booster.predict(x, raw_score=True))


def changed(**arrays: Any) -> dict[str, Tensor]:
    """Return a tree of three nodes in which some arrays are others."""
    tree = {
        "feature": [2, -1, -1],
        "threshold": [0.5, 0.0, 0.0],
        "left": [1, 0, 0],
        "right": [2, 0, 0],
        "missing_left": [1, 0, 0],
        "value": [0.0, 1.0, 2.0],
        "sizes": [3],
    }
    kinds = {name: torch.from_numpy(np.zeros(0, kind)).dtype for name, kind in KINDS.items()}
    return {name: torch.tensor(values, dtype=kinds[name]) for name, values in {**tree, **arrays}.items()}


def test_a_tree_comes_back_from_its_arrays() -> None:
    forest = Forest.from_tensors(changed(), 1, 3)
    x = np.array([[0, 0, 0.4], [0, 0, 0.6], [0, 0, np.nan]], np.float32)
    assert forest(x)[:, 0].tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("arrays", "outputs"),
    [
        ({"feature": [3, -1, -1]}, 1),
        ({"feature": [-2, -1, -1]}, 1),
        ({"feature": [-1, -1, -1]}, 1),
        ({"feature": [2, 2, -1]}, 1),
        ({"left": [0, 0, 0]}, 1),
        ({"left": [-1, 0, 0]}, 1),
        ({"left": [3, 0, 0]}, 1),
        ({"left": [2, 0, 0]}, 1),
        ({"threshold": [float("nan"), 0, 0]}, 1),
        ({"value": [0, float("inf"), 0]}, 1),
        ({"value": [0, 0]}, 1),
        ({"sizes": [2]}, 1),
        ({"sizes": [3, 0]}, 1),
        ({"sizes": [-1, 4]}, 1),
        ({"sizes": [2**31 - 1, 2**31 - 1]}, 1),
        ({}, 2),
        ({}, 0),
    ],
)
def test_arrays_that_are_no_trees_are_refused(arrays: dict[str, Any], outputs: int) -> None:
    with pytest.raises(ValueError):
        Forest.from_tensors(changed(**arrays), outputs, 3)


def test_arrays_of_another_kind_are_refused() -> None:
    wrong = {"threshold": torch.zeros(3), "left": torch.zeros(1, 3, dtype=torch.int32)}
    for name, tensor in wrong.items():
        with pytest.raises(ValueError, match=f"'{name}' is"):
            Forest.from_tensors({**changed(), name: tensor}, 1, 3)
