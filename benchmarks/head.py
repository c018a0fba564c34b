"""Train what comes after frozen encoders, beside the arithmetic alone: benchmarks/head.py

50,000 rows of three vectors of 512. The floor takes the same step on one batch, over and over: nothing is
read, shuffled or cut. plait's loop reads the vectors as they lie in memory once embedded, normalises them,
drops some out, clips, sets the rate, hides columns and writes checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional as F

from measure import machine, median, page, read_arguments, table
from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.pretrained import Config, Pretrained
from plait.fusion.concat import Concat
from plait.model.column import ColumnEncoder
from plait.model.fused import Fuser, blocks_of
from plait.model.network import MultimodalModel
from plait.model.stand_in import start_of
from plait.nn import device
from plait.nn.batch import Batch, Values
from plait.pretrained.network import Network
from plait.recipe import recipe
from plait.table.table import Table
from plait.tasks.base import Widths
from plait.tasks.classification import Classification
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, train_epoch

COLUMNS, HIDDEN = ("image", "text", "audio"), (256, 64)
FLOOR = "floor: one batch over and over, fp32"


class Sizes(NamedTuple):
    rows: int
    batch: int
    width: int


FULL, QUICK = Sizes(50_000, 256, 512), Sizes(64, 16, 8)


def draw(sizes: Sizes) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Draw a vector of each column, and the classes, which need all three."""
    g = torch.Generator().manual_seed(0)
    x = {c: torch.randn(sizes.rows, sizes.width, generator=g) for c in COLUMNS}
    image, text, audio = x.values()
    return x, (image[:, 0] * text[:, 1] + audio[:, 2] > 0).long()


def floor(x: torch.Tensor, y: torch.Tensor, sizes: Sizes, bf16: bool, unimodal: bool = False) -> float:
    """Time an epoch in which every step sees the same batch.

    With `unimodal`, each vector has a small network of its own besides. Return seconds.
    """
    fused = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU()
    )
    networks = nn.ModuleList(
        nn.Sequential(nn.Linear(sizes.width, HIDDEN[1]), nn.ReLU()) for _ in (COLUMNS if unimodal else ())
    )
    head = nn.Linear(HIDDEN[1], 1)
    for network in (fused, networks, head):
        network.to(x.device)
    parameters = [*fused.parameters(), *networks.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, fused=True)
    vectors = x.split(sizes.width, 1)
    begun = perf_counter()
    for _ in range(sizes.rows // sizes.batch):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            outputs = [head(fused(x))]
            for network, vector in zip(networks, vectors, strict=False):
                outputs.append(head(network(vector)))
            loss = sum(F.binary_cross_entropy_with_logits(output.squeeze(1).float(), y) for output in outputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    loss.item()  # a GPU may still be at work
    return perf_counter() - begun


def build_model(task: Classification, width: int, unimodal: bool) -> MultimodalModel:
    """Build a model of three frozen encoders whose vectors are in the table already."""
    config = Config(dropout=0.0, pool="mean", unit=False)
    encoders = {}
    for column in COLUMNS:
        encoder = Pretrained(Network("", "0" * 24, {}, ""), "grid", width, config)
        encoders[column] = ColumnEncoder(column, encoder, start_of("learned", is_frozen=True))
    widths = dict.fromkeys(COLUMNS, width)
    blocks = blocks_of(COLUMNS, ())
    task.build(Widths(HIDDEN[-1], widths, list(blocks), late_fusion=unimodal))
    fuser = Fuser(widths, Concat(widths, HIDDEN, 0.0), blocks, unimodal)
    return MultimodalModel(list(COLUMNS), encoders, None, {COLUMNS: fuser}, {"label": task})


def ours(
    x: dict[str, torch.Tensor], y: torch.Tensor, sizes: Sizes, unimodal: bool, precision: str, folder: Path
) -> float:
    """Time an epoch of plait's loop, in seconds."""
    options = [
        f"training.batch_size={sizes.batch}",
        "training.epochs=1",
        f"model.unimodal_weight={float(unimodal)}",
        f"training.precision={precision}",
        "training.unaugmented=0",
        "split.valid=0",
    ]
    cells = pa.table({**{c: [0.0, 1.0] for c in COLUMNS}, "label": ["a", "b"]})
    loaded = recipe.load({"fusion": {"name": "concat", "hidden": HIDDEN}}, options)
    plan = Plan.make(Table(cells, Path(), "data"), loaded, "label")
    task = Classification([0, 1], [1, 1], "none", 0.0)
    model = build_model(task, sizes.width, unimodal)

    one_token = torch.ones(sizes.rows, dtype=torch.long)
    present = torch.ones(sizes.rows, dtype=torch.bool)
    values = {c: Values(v[:, None], one_token, encoded=True) for c, v in x.items()}
    everywhere = dict.fromkeys(COLUMNS, present)
    rows = torch.arange(sizes.rows)
    batch = Batch(values, everywhere, everywhere, rows, {"label": y}, {"label": present})
    preprocessing = Preprocessing(dict.fromkeys(COLUMNS), {"label": task})  # type: ignore[arg-type]
    data = Dataset(Prepared(batch), preprocessing)

    settings = device.settings(plan.recipe.training, convolves=False)
    run = Training(model, plan, settings, data, data, folder, Screen(quiet=True))
    with Screen(quiet=True).bar("", 1) as bar:
        begun = perf_counter()
        train_epoch(run, Progress(), Checkpoint(folder, 1e6, plan), bar)
        return perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = read_arguments(parser)
    sizes, rounds = (QUICK, 1) if arguments.quick else (FULL, arguments.rounds)
    torch.set_num_threads(1)
    x, y = draw(sizes)
    batch, target = torch.cat([v[: sizes.batch] for v in x.values()], 1), y[: sizes.batch].float()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = {
            FLOOR: lambda: floor(batch, target, sizes, False),
            "plait, fp32, no unimodal heads": lambda: ours(x, y, sizes, False, "fp32", folder),
            "floor with unimodal networks, fp32": lambda: floor(batch, target, sizes, False, True),
            "plait, fp32": lambda: ours(x, y, sizes, True, "fp32", folder),
            "floor: one batch over and over, bf16": lambda: floor(batch.bfloat16(), target, sizes, True),
            "plait, bf16, no unimodal heads": lambda: ours(x, y, sizes, False, "bf16", folder),
            "floor with unimodal networks, bf16": lambda: floor(batch.bfloat16(), target, sizes, True, True),
            "plait, bf16": lambda: ours(x, y, sizes, True, "bf16", folder),
        }
        durations: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                durations[name].append(program())
    base = median(durations[FLOOR])
    lines = []
    for name, times in durations.items():
        lines.append([name, f"{sizes.rows / median(times):,.0f}", f"{median(times) / base:.2f}x"])
    page(
        "head.md",
        f"""# Training what comes after frozen encoders

Made by `benchmarks/head.py`, medians of {rounds} interleaved epochs of {sizes.rows:,} rows of three vectors
of {sizes.width}, batches of {sizes.batch}, one thread; {machine()}. plait's unimodal losses
(`model.unimodal_weight`,
on by default) need three more small networks.

{table(["", "rows a second", "time against the floor in fp32"], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
