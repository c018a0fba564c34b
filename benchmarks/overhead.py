"""What plait's training loop costs over a plain loop, step by step, and how long it takes to start:
benchmarks/overhead.py

Both loops train the same model with the same fused optimizer, on batches of four rows of one number, so
that nearly all of a step is overhead. The plain loop is handed its batches ready-made; plait's cuts
them, sets the learning rate, counts, watches for Ctrl-C and draws its bar.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import torch

from measure import machine, median, page, read_arguments, table
from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.recipe import recipe
from plait.table.table import Table
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, train_epoch
from plait.training.objective import losses, weighed
from plait.training.schedule import optimizer_for
from plait.training.step import Step


class Sizes(NamedTuple):
    rows: int
    rounds: int
    starts: int  # how often each command is started


FULL, QUICK, BATCH = Sizes(8000, 9, 15), Sizes(40, 1, 1), 4
LOOPS = ("plain", "plain, batches cut in the loop", "plait")
EMPTY_STEP = "plait, everything but the step"


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    sizes = QUICK if arguments.quick else FULL
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=sizes.rows)
    data = Table(pa.table({"x": x, "y": x + rng.normal(size=sizes.rows)}), Path(), "data")
    options = [
        f"training.batch_size={BATCH}",
        "training.epochs=1",
        "training.clip=0",
        "training.unaugmented=0",
        "columns.x.encoder={name: tabular, width: 4}",
    ]
    settings = {"fusion": {"name": "logit_sum", "hidden": [4]}, "model": {"modality_dropout": 0.0}}
    plan = Plan.make(data, recipe.load(settings, options), "y")
    preprocessing = Preprocessing.fit(data, plan, np.arange(sizes.rows))
    prepared = preprocessing.prepare(data)
    model = MultimodalModel.build(plan, preprocessing)
    rows = Dataset(prepared, preprocessing)
    batches = [rows.batch(numbers) for numbers in torch.arange(sizes.rows).split(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        run = Training(
            model,
            plan,
            device.settings(plan.recipe.training, convolves=False),
            rows,
            Dataset(prepared, preprocessing, np.arange(0)),
            Path(folder),
            Screen(quiet=True),
        )
        durations: dict[str, list[float]] = {name: [] for name in (*LOOPS, EMPTY_STEP)}
        for _ in range(sizes.rounds):
            durations["plain"].append(plain(model, plan, batches))
            durations["plain, batches cut in the loop"].append(cutting(model, plan, rows))
            durations["plait"].append(ours(run))
            durations[EMPTY_STEP].append(without_step(run))
    page("overhead.md", report(durations, start_up(sizes.starts), sizes), arguments)


def report(durations: dict[str, list[float]], starts: dict[str, float], sizes: Sizes) -> str:
    steps = sizes.rows / BATCH
    base = median(durations["plain"])
    lines = []
    for name, times in durations.items():
        line = [name, f"{median(times) / steps * 1e6:.0f}", "", ""]
        if name in LOOPS:
            line[2:] = [f"{(median(times) - base) / steps * 1e6:+.0f}", f"{median(times) / base:.2f}x"]
        lines.append(line)
    start_lines = [[command, f"{milliseconds:.0f}"] for command, milliseconds in starts.items()]
    return f"""# What the loop and the start cost

Made by `benchmarks/overhead.py`, medians of {sizes.rounds} interleaved rounds of {steps:.0f} steps,
one thread; {machine()}.

{table(["loop", "us a step", "over the plain loop, us", "ratio"], lines)}

Any loop has to cut batches somewhere (index-select of every tensor, augmentation). The plain loop gets its
batches ready-made. plait's loop adds learning rate, losses, progress, checkpoints and Ctrl-C. The last row
is the loop alone, measured with an empty step. The difference between two loops holds the noise of two
steps besides.

{table(["start", f"ms (median of {sizes.starts})"], start_lines)}"""


def plain(model: MultimodalModel, plan: Plan, batches: list) -> float:
    """Time a plain loop over batches that are ready, in seconds."""
    optimizer = optimizer_for(model, plan.training)
    begun = perf_counter()
    for batch in batches:
        loss = sum(weighed(losses(model, batch), {}).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def cutting(model: MultimodalModel, plan: Plan, rows: Dataset) -> float:
    """Time a plain loop that shuffles and cuts its batches, in seconds."""
    optimizer = optimizer_for(model, plan.training)
    begun = perf_counter()
    for numbers in rows.shuffled(BATCH, 0):
        batch = rows.batch(numbers)
        loss = sum(weighed(losses(model, batch), {}).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def ours(run: Training) -> float:
    with Screen(quiet=True).bar("", 1) as bar:
        begun = perf_counter()
        train_epoch(run, Progress(), Checkpoint(run.folder, 1e6, run.plan), bar)
        return perf_counter() - begun


def without_step(run: Training) -> float:
    """Time the loop with an empty step: cutting batches, setting the rate, counting, watching."""
    with mock.patch.object(Step, "__call__", return_value=torch.zeros(())):
        return ours(run)


def start_up(times: int) -> dict[str, float]:
    """Start each command so often. Return the median milliseconds of each."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import plait": [sys.executable, "-c", "import plait"],
        "plait --help": [str(Path(sys.executable).with_name("plait")), "--help"],
    }
    durations: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times):
        for name, command in commands.items():
            begun = perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            durations[name].append((perf_counter() - begun) * 1e3)
    return {name: median(values) for name, values in durations.items()}


if __name__ == "__main__":
    main()
