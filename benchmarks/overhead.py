"""What plait's training loop costs over a plain loop, step by step, and how long it takes to start:
benchmarks/overhead.py

Both loops train the same model with the same fused optimizer, on batches of four rows of one number, so
that nearly all of a step is overhead. The plain loop is handed its batches ready-made; plait's cuts
them, sets the learning rate, counts, watches for Ctrl-C and draws its bar.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import torch

from measure import machine, median, page, table
from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.recipe import recipe, sections
from plait.table.table import Table
from plait.training import loop
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, _epoch
from plait.training.objective import FUSED, losses, weighed
from plait.training.schedule import optimizer_for

ROWS, BATCH, ROUNDS = 8000, 4, 9
WHOLE = ("plain", "plain, batches cut in the loop", "plait")


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    data = Table(pa.table({"x": x, "y": x + rng.normal(size=ROWS)}), Path(), "data")
    options = [
        f"training.batch_size={BATCH}",
        "training.epochs=1",
        "training.clip=0",
        "columns.x.encoder={name: tabular, width: 4}",
    ]
    chosen = recipe.load(
        {"fusion": {"name": "logit_sum", "hidden": [4]}, "model": {"modality_dropout": 0.0}}, options
    )
    plan = Plan.make(data, chosen, "y")
    preprocessing = Preprocessing.fit(data, plan, np.arange(ROWS))
    prepared = preprocessing.prepare(data)
    model = MultimodalModel.build(plan, preprocessing)
    settings = device.settings(plan.recipe.training, convolves=False)
    rows = Dataset(prepared, preprocessing)
    ready = [rows.batch(part) for part in torch.arange(ROWS).split(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        run = Training(
            model,
            plan,
            settings,
            rows,
            Dataset(prepared, preprocessing, np.arange(0)),
            Path(folder),
            Screen(quiet=True),
        )
        found: dict[str, list[float]] = {name: [] for name in (*WHOLE, "plait, everything but the step")}
        for _ in range(ROUNDS):
            found["plain"].append(plain(model, ready))
            found["plain, batches cut in the loop"].append(cutting(model, rows))
            found["plait"].append(ours(run))
            found["plait, everything but the step"].append(without_step(run))
    steps = ROWS / BATCH
    base = median(found["plain"])
    lines = []
    for name, times in found.items():
        whole = name in WHOLE
        over, ratio = f"{(median(times) - base) / steps * 1e6:+.0f}", f"{median(times) / base:.2f}x"
        lines.append(
            [name, f"{median(times) / steps * 1e6:.0f}", over if whole else "", ratio if whole else ""]
        )
    starts = [[command, f"{milliseconds:.0f}"] for command, milliseconds in start_up().items()]
    page(
        "overhead.md",
        f"""# What the loop and the start cost

Made by `benchmarks/overhead.py`, medians of {ROUNDS} interleaved rounds of {steps:.0f} steps, one thread; {machine()}.

{table(["loop", "us a step", "over the plain loop, us", "ratio"], lines)}

Cutting a batch (index-select of every tensor, augmentation) is work that any loop has to do somewhere; the plain loop is
given its batches ready. plait's loop adds learning rate, losses, progress, checkpoints and Ctrl-C. The last row is the loop
by itself, measured with an empty step; the difference between whole loops holds the noise of two steps besides.

{table(["start", "ms (median of 15)"], starts)}""",
    )


def plain(model: MultimodalModel, batches: list) -> float:
    optimizer = optimizer_for(model, sections.TrainingRecipe())
    begun = perf_counter()
    for batch in batches:
        loss = sum(weighed(losses(model, batch), {FUSED: 1.0}).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def cutting(model: MultimodalModel, rows: Dataset) -> float:
    optimizer = optimizer_for(model, sections.TrainingRecipe())
    begun = perf_counter()
    for part in rows.shuffled(BATCH, 0):
        batch = rows.batch(part)
        loss = sum(weighed(losses(model, batch), {FUSED: 1.0}).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def ours(run: Training) -> float:
    with Screen(quiet=True).bar("", 1) as bar:
        begun = perf_counter()
        _epoch(run, Progress(), Checkpoint(run.folder, 1e6), bar)
        return perf_counter() - begun


def without_step(run: Training) -> float:
    """The loop with nothing to do in it: what it costs to cut batches, set the rate, count, and watch."""
    step, nothing = loop._step_in_memory, torch.zeros(())
    loop._step_in_memory = lambda run, batch, unlabelled: nothing
    try:
        return ours(run)
    finally:
        loop._step_in_memory = step


def start_up() -> dict[str, float]:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import plait": [sys.executable, "-c", "import plait"],
        "plait --help": [str(Path(sys.executable).with_name("plait")), "--help"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(15):
        for name, command in commands.items():
            begun = perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            found[name].append((perf_counter() - begun) * 1e3)
    return {name: median(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
