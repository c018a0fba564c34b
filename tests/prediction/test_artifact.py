"""A trained model: damage and forgery end with an `ArtifactError` that names the file and the entry."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
from plait.errors import ArtifactError, PlaitError, RecipeError
from plait.evaluation import report
from plait.nn.allocation import AllocationLimit
from plait.prediction import artifact
from plait.runs import files
from support.damage import POSITIONS, flips, forge

ENSEMBLE = ["ensemble.members={line: linear, trees: {name: trees, rounds: 10}}", "ensemble.folds=2"]


def rows(count: int = 60) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        number = float(rng.normal())
        words = "warm sunny" if number > 0 else "cold rainy"
        vector = [float(x) for x in rng.normal(size=2)]
        tags = ["p"] if number > 0.3 else ["p", "q"]
        made.append(
            {
                "x": number,
                "v": vector,
                "note": f"a {words} day {i}",
                "label": words,
                "y": number,
                "tags": tags,
            }
        )
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    brief = ["training.epochs=2", *ENSEMBLE]
    tasks = {"label": "classification", "y": "regression", "tags": "multilabel"}
    plait.fit(rows(), list(tasks), recipe={"tasks": tasks}, overrides=brief, out=out, quiet=True)
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["plan.json", "state.json", "metrics.json", "weights.safetensors"])
def test_any_flipped_byte_of_a_model_is_an_error(name: str, copy: Path) -> None:
    for _ in flips(copy / name):
        with pytest.raises(ArtifactError, match=r"is damaged|has format"):
            artifact.load(copy)


def test_any_flipped_byte_of_an_ensemble_is_an_error(copy: Path) -> None:
    loaded = [copy / "ensemble.json", *(copy / "members").rglob("*.safetensors")]
    assert len(loaded) > 2
    for path in loaded:
        for _ in flips(path, count=POSITIONS // 50):
            with pytest.raises(ArtifactError, match="is damaged"):
                plait.load(copy, quiet=True)
    assert plait.load(copy, quiet=True).predict(rows(3)).num_rows == 3


def test_files_of_a_model_have_one_mode(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    assert len(modes) == 1


STATES: list[tuple[str, str, Any, str]] = [
    ("inputs", "v", {"mean": [0.0]}, "std"),
    ("inputs", "v", {"mean": [0.0, 1.0], "std": [1.0]}, "do not go with"),
    ("inputs", "v", {"mean": [0.0], "std": [0.0]}, "above 0"),
    ("inputs", "v", {"mean": "many", "std": [1.0]}, "list"),
    ("inputs", "x", [], "expected names and values"),
    ("inputs", "note", {"tokenizer": {"model": 5}}, "did not match"),
    ("tasks", "label", {"classes": ["a", "b"], "counts": [1]}, "do not go with"),
    ("tasks", "label", {"classes": [], "counts": []}, "do not go with"),
    ("tasks", "label", {"classes": ["a", "a"], "counts": [1, 1]}, "do not go with"),
    ("tasks", "y", {"mean": 0.0, "std": -1.0}, "expected a number above 0"),
    ("tasks", "y", {"mean": None, "std": 1.0}, "mean|number"),
    ("tasks", "tags", {"labels": ["p", "q"], "shares": [0.5, 7.0]}, "between 0 and 1"),
]


@pytest.mark.parametrize(("part", "name", "state", "reason"), STATES)
def test_a_strangers_state_is_checked(part: str, name: str, state: Any, reason: str, copy: Path) -> None:
    states = json.loads((copy / "state.json").read_text())[part]
    forge(copy / "state.json", **{part: {**states, name: state}})
    with pytest.raises(ArtifactError, match=rf"state.json: {part}.{name} is damaged: .*({reason})"):
        plait.load(copy)


RECORDS: list[dict[str, Any]] = [
    {"history": [{"loss": "small"}]},
    {"history": 5},
    {"epochs": "many"},
    {"evaluation": {"validation": {}}},
    {"evaluation": {"elsewhere": {}}},
    {"environment": {"precision": "fp8", "frozen": "fp32"}},
    {"rows": {"train": None}},
    {"members": {"label": {"a": 5}}},
]


@pytest.mark.parametrize("entries", RECORDS)
def test_a_strangers_record_is_checked(entries: dict[str, Any], copy: Path) -> None:
    forge(copy / "metrics.json", **entries)
    with pytest.raises(ArtifactError, match=rf"metrics.json' is damaged: {next(iter(entries))}"):
        plait.load(copy)


def test_scores_that_are_not_numbers_survive(copy: Path) -> None:
    record = json.loads((copy / "metrics.json").read_text())
    record["history"][0]["valid_loss"] = None
    undefined = {"value": None, "low": None, "high": None}
    singles = {"label": {"validation": undefined, "test": None}}
    forge(copy / "metrics.json", history=record["history"], singles=singles)

    loaded = artifact.load(copy)
    assert np.isnan(loaded.record["history"][0]["valid_loss"])
    assert np.isnan(loaded.record["singles"]["label"]["validation"]["value"])
    assert loaded.record["singles"]["label"]["test"] is None, "the table has no test rows"
    report.write(copy, loaded)


def test_a_plan_of_another_width_takes_no_memory(copy: Path) -> None:
    plan = json.loads((copy / "plan.json").read_text())
    for width in (16, 10**9):
        plan["model"]["width"] = width
        forge(copy / "plan.json", model=plan["model"])
        with pytest.raises(PlaitError, match=r"damaged|expected float32|more than the .* bytes|width"):
            plait.load(copy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(10**6, 10**6),
        lambda: torch.nn.Embedding(10**9, 64),
        lambda: torch.nn.LSTM(10, 10**6),
        lambda: torch.zeros((10**6, 10**6)),
        lambda: torch.randn(size=(10**5, 10**6)),
        lambda: torch.arange(10**12),
        lambda: torch.eye(10**6),
        lambda: [torch.zeros(1000) for _ in range(10**6)],
    ],
)
def test_no_more_memory_is_taken_than_allowed(make: Any) -> None:
    with pytest.raises(ValueError, match="more than the 1,000,000 bytes"), AllocationLimit(10**6):
        make()


def test_weights_of_another_plan_are_refused(copy: Path) -> None:
    path = copy / "weights.safetensors"
    tensors, _ = files.read_tensors(path)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    for wrong in (
        {name: tensors[name].T.contiguous()},
        {name: tensors[name].double()},
        {"extra": torch.zeros(1)},
    ):
        files.write_tensors(path, {**tensors, **wrong})
        with pytest.raises(ArtifactError, match=r"the tensor '.*' is|has a tensor 'extra'"):
            plait.load(copy)


def test_a_report_follows_no_link_out_of_the_folder(copy: Path, tmp_path: Path) -> None:
    from plait.evaluation import report

    for name in ("report.html", "README.md"):
        (tmp_path / name).write_text("mine")
        (copy / name).unlink()
        (copy / name).symlink_to(tmp_path / name)
    report.write(copy, artifact.load(copy))
    assert (tmp_path / "report.html").read_text() == (tmp_path / "README.md").read_text() == "mine"
    assert not (copy / "report.html").is_symlink()


def test_a_folder_of_links_is_no_way_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "run"
    begin = {"overrides": ["training.epochs=1", *ENSEMBLE], "out": out, "quiet": True, "evaluate": False}
    out.mkdir()
    (out / "run.json").write_text("{}")
    (out / "members").symlink_to(outside)
    with pytest.raises(PlaitError, match="a link is in its place"):
        plait.fit(rows(), "label", **begin)
    assert not os.listdir(outside)


@pytest.mark.parametrize("identity", ["/", "../../..", "", "x" * 24, "0" * 23])
def test_a_networks_identity_is_no_path(identity: str) -> None:
    from plait.pretrained.network import Network

    with pytest.raises(RecipeError, match="is no hash of a network's files"):
        Network("model", identity, {}, "vision_config")
