"""Train a model for each target by itself, to measure what sharing one model gained or cost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.prepare import Sides
from plait.data.preprocessing import Preprocessing
from plait.errors import count
from plait.evaluation.bootstrap import bootstrap
from plait.model.network import MultimodalModel
from plait.nn.device import Settings
from plait.prediction.predictor import Predictor
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.runs.folder import Record
from plait.training import start
from plait.training.loop import Training, train

RESAMPLES = 1000  # of the rows, for an interval


def fit(
    plan: Plan,
    sides: Sides,
    settings: Settings,
    folder: Path,
    screen: Screen,
    deadline: Deadline = NO_LIMIT,
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Train a model for each target by itself, on the same cells and with the same seed.

    Return by target its main metric on validation and test rows, with intervals. Targets with fewer than
    two training rows are left out, and so are those for which no time is left.
    """
    scores_by_target = {}
    for number, target in enumerate(plan.targets):
        if deadline.is_over:
            left_out = ", ".join(plan.targets[number:])
            screen.say(f"time limit: no time is left for single-target models of {left_out}")
            break
        train_rows = _labelled(sides.train, target)
        if len(train_rows) < 2:
            continue
        valid_rows = _scored(sides.valid, target)
        test_rows = _scored(sides.test, target)
        target_plan = plan.for_target(target, train_rows, valid_rows, test_rows)

        preprocessing = _for_target(sides.preprocessing, target, target_plan)
        target_sides = Sides.cut(sides.prepared, preprocessing, target_plan.split)
        in_time = deadline.part(1 / (len(plan.targets) - number))
        predictor = _train(target_plan, target_sides, settings, folder, screen, in_time)
        scores_by_target[target] = {
            "validation": _score(predictor, target_sides.valid),
            "test": _score(predictor, target_sides.test),
        }
    return scores_by_target


def _for_target(joint: Preprocessing, target: str, plan: Plan) -> Preprocessing:
    """Keep what one target's plan needs of the preprocessing for all targets, as it was fitted."""
    inputs = {column: joint.inputs[column] for column in plan.columns}
    tasks = {target: joint.tasks[target]}
    return Preprocessing(inputs, tasks, joint.several & inputs.keys())


def _train(
    plan: Plan, sides: Sides, settings: Settings, folder: Path, screen: Screen, deadline: Deadline
) -> Predictor:
    """Train a model for the only target of a plan. Its files lie in a folder that is deleted."""
    (target,) = plan.targets
    torch.manual_seed(plan.seed)
    model = MultimodalModel.build(plan, sides.preprocessing)
    start.begin(model, sides.train)

    rows, epochs = count(len(sides.train), "row"), count(plan.training.epochs, "epoch")
    screen.say(f"single-target model of {target}, to compare: {rows}, {epochs}")
    with tempfile.TemporaryDirectory(dir=folder) as run_folder:
        training = Training(
            model, plan, settings, sides.train, sides.valid, Path(run_folder), screen, deadline=deadline
        )
        train(training)
    return Predictor(model.cpu(), sides.preprocessing, settings, plan)


def _labelled(data: Dataset, target: str) -> np.ndarray:
    """Return the numbers of the rows that have a label."""
    is_labelled = data.prepared.batch.labelled[target][data.rows]
    rows: np.ndarray = data.rows[is_labelled].numpy()
    return rows


def _scored(data: Dataset, target: str) -> np.ndarray:
    """Return the numbers of the rows that a target is scored on."""
    batch = data.prepared.batch
    task = data.preprocessing.tasks[target]
    is_scored = task.scorable(batch.targets[target][data.rows], batch.labelled[target][data.rows])
    rows: np.ndarray = data.rows[is_scored].numpy()
    return rows


def _score(predictor: Predictor, data: Dataset) -> dict[str, float] | None:
    """Return the target's main metric with its interval; None without rows."""
    if not len(data):
        return None
    ((target, task),) = predictor.tasks.items()
    outputs = predictor.outputs(data)
    truth = data.prepared.batch.targets[target][data.rows].numpy()
    rows = task.score_rows(outputs[target].numpy(), truth)
    metric = {task.score: task.metrics[task.score]}
    score = bootstrap(rows, metric, RESAMPLES)[task.score]
    return {"value": score.value, "low": score.low, "high": score.high}


def show(scores_by_target: Record, record: Record, screen: Screen) -> None:
    """Print the joint model's scores beside those of `fit`, on test rows, or else on validation rows."""
    rows = []
    for target, sides in scores_by_target.items():
        side = "test" if sides["test"] else "validation"
        single = sides[side]
        joint = record["evaluation"].get(side, {}).get("targets", {}).get(target)
        if not joint or not single:
            continue

        metric = joint["score"]
        value = joint["metrics"][metric]["value"]
        interval = f"{single['low']:.3f} to {single['high']:.3f}"
        difference = f"{value - single['value']:+.3f}"
        rows.append([target, metric, side, f"{value:.3f}", f"{single['value']:.3f}", interval, difference])
    if rows:
        headers = ["target", "metric", "rows", "all targets ", "single ", "its interval", "difference "]
        screen.table("\none model of all targets, beside a single-target model of each", headers, rows)
