"""A model for each target alone, beside the one for all of them: what sharing gained or cost."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.preprocessing import Preprocessing
from plait.evaluation import scores
from plait.model.network import MultimodalModel
from plait.nn.device import Settings
from plait.prediction.predictor import Predictor
from plait.recipe.recipe import Recipe
from plait.training import start
from plait.training.loop import Training, train


def fit(
    recipe: Recipe,
    asked: Recipe,
    data: Mapping[str, Dataset],
    settings: Settings,
    folder: Path,
    screen: Screen,
) -> dict[str, Any]:
    """For each target that is answered, trained alone on the same cells and with the same seed: its
    main metric on validation and test rows, with intervals. `recipe` is the resolved one of the model
    for all, `asked` the one that it came from.
    """
    found: dict[str, Any] = {}
    whole = data["train"].preprocessing
    for target, task in whole.tasks.items():
        if task.compares:
            continue
        inputs = {c: m for c, m in whole.inputs.items() if c in task.read(whole.inputs)}
        alone = Preprocessing(inputs, {target: task}, whole.several & set(inputs))
        sides = {side: Dataset(some.prepared, alone, _labelled(some, target)) for side, some in data.items()}
        if len(sides["train"]) < 2:
            continue
        columns = {c: column for c, column in recipe.columns.items() if column.role != "input" or c in inputs}
        update = {
            "tasks": {target: recipe.tasks[target]},
            "columns": columns,
            "ensemble": None,
            "training": asked.training,
        }
        own = recipe.model_copy(update=update).for_rows(len(sides["train"]))
        torch.manual_seed(recipe.seed)
        model = MultimodalModel.build(own, alone)
        start.begin(model, sides["train"])
        screen.say(
            f"{target} alone, to compare with: {len(sides['train']):,} rows, {own.training.epochs} epochs"
        )
        with tempfile.TemporaryDirectory(dir=folder) as place:
            train(Training(model, own, settings, sides["train"], sides["valid"], Path(place), screen))
        found[target] = {
            side: _score(model.cpu(), alone, settings, own, sides[kind])
            for side, kind in (("validation", "valid"), ("test", "test"))
        }
    return found


def _labelled(data: Dataset, target: str) -> Any:
    return data.rows[data.prepared.batch.labelled[target][data.rows]].numpy()


def _score(
    model: MultimodalModel, preprocessing: Preprocessing, settings: Settings, recipe: Recipe, data: Dataset
) -> dict[str, float] | None:
    """The target's main metric with its interval; None without rows."""
    if not len(data):
        return None
    predictor = Predictor(model, preprocessing, settings, recipe)
    ((target, task),) = preprocessing.tasks.items()
    (outputs,) = predictor.outputs(data, [predictor.columns])
    score = scores.bootstrap(
        task, outputs[target].numpy(), data.prepared.batch.targets[target][data.rows].numpy(), 1000
    )[task.score]
    return {"value": score.value, "low": score.low, "high": score.high}


def show(found: Mapping[str, Any], record: Mapping[str, Any], screen: Screen) -> None:
    """A table of both, for rows of the test, or without them of the validation."""
    rows = []
    for target, sides in found.items():
        side = "test" if sides["test"] else "validation"
        whole = record["evaluation"].get(side, {}).get("targets", {}).get(target)
        if whole and sides[side]:
            both, alone = whole["metrics"][whole["score"]], sides[side]
            interval = f"{alone['low']:.3f} to {alone['high']:.3f}"
            gained = both["value"] - alone["value"]
            rows.append(
                [
                    target,
                    whole["score"],
                    side,
                    f"{both['value']:.3f}",
                    f"{alone['value']:.3f}",
                    interval,
                    f"{gained:+.3f}",
                ]
            )
    if rows:
        headers = ["target", "metric", "rows", "one model ", "alone ", "its interval", "difference "]
        screen.table("\nall targets in one model, against a model for each alone", headers, rows)
