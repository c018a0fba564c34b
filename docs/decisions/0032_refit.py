"""A network on frozen embeddings before and after it is trained again on all rows: the figures of 0032.

Run it with `python docs/decisions/0032_refit.py stamps` (or `emoji`). Rows that `benchmarks/accuracy.py`
tests on are left out; those that validate there are held out here, and a fifth of the others validates. Needs
transformers and the weights of `minilm` and `efficientnet_lite0`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import torch

import plait
from plait.api import fit as fitting
from plait.data.dataset import Dataset
from plait.prediction.predictor import Predictor
from plait.table.table import Table
from plait.training.loop import Training

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import accuracy
from measure import interval

METRICS = ("accuracy", "log_loss")


def measured(training: Training) -> list[float]:
    """Score the network on the rows that are held out."""
    data = training.train_data
    held_out = Dataset(data.prepared, data.preprocessing, training.plan.split.test)
    predictor = Predictor(training.model.cpu().eval(), data.preprocessing, training.settings, training.plan)
    ((target, task),) = predictor.tasks.items()
    labels = held_out.prepared.batch.targets[target][held_out.rows]
    metrics = task.measure(predictor.outputs(held_out)[target].numpy(), labels.numpy())
    return [metrics[name] for name in METRICS]


def compare(job: accuracy.Job, seed: int) -> tuple[list[float], list[float]]:
    """Train once and again. Return the scores of both."""
    refit, before, after = fitting.refit, [], []

    def between(training: Training, epochs: int) -> int:
        before.extend(measured(training))
        rows = refit(training, epochs)
        after.extend(measured(training))
        return rows

    sides = {"train": "train", "valid": "test", "test": None}
    rows = job.table(seed)
    used = [*job.inputs, job.target, *([job.group] if job.group else [])]
    columns = {name: rows[name] for name in used}
    columns["side"] = [sides[side] for side in rows[job.split]]
    roles = {job.group: "group"} if job.group else {}
    options = [*accuracy.PRETRAINED, "split.column=side", "quality=network", "training.refit=on"]
    options += [f"split.group={job.group}"] if job.group else []
    table = Table(pa.table(columns), job.path.parent, job.name)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(fitting, "refit", between):
        plait.fit(
            table,
            job.target,
            out=Path(folder) / "run",
            columns={**dict(job.media), **roles},
            overrides=options,
            seed=seed,
            quiet=True,
            evaluate=False,
        )
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("stamps", "emoji"))
    parser.add_argument("--seeds", type=int, default=accuracy.FOLDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    pairs = [compare(accuracy.JOBS[arguments.job], seed) for seed in range(arguments.seeds)]
    before, after = np.array(pairs).transpose(1, 2, 0)
    for name, first, second in zip(METRICS, before, after, strict=True):
        print(
            f"{name}: {interval(first)}, refitted {interval(second)}, difference {interval(second - first)}"
        )


if __name__ == "__main__":
    main()
