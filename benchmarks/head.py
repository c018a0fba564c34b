"""Training what comes after frozen encoders, on 50,000 rows of three vectors of 512, beside the
arithmetic alone: benchmarks/head.py

The floor takes the same step on one batch, over and over: nothing is read, shuffled or cut. plait's own
loop reads the vectors as they lie in memory once embedded, normalises them, drops some out, clips, sets
the rate, hides columns and writes checkpoints.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional as F

from measure import machine, median, page, table
from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.pretrained import Config, Pretrained
from plait.fusion.concat import Concat
from plait.model.column import ColumnEncoder
from plait.model.fused import Fused, parts
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.nn.batch import Batch, Values
from plait.pretrained.network import Network
from plait.recipe import recipe
from plait.table.table import Table
from plait.tasks.classification import Classification
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, _epoch

ROWS, BATCH, WIDTH, COLUMNS = 50_000, 256, 512, ("picture", "text", "sound")
HIDDEN = (256, 64)


def rows() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = {c: torch.randn(ROWS, WIDTH, generator=g) for c in COLUMNS}
    a, b, c = x.values()
    return x, (a[:, 0] * b[:, 1] + c[:, 2] > 0).long()


def floor(x: torch.Tensor, y: torch.Tensor, bf16: bool, own: bool = False) -> float:
    """Seconds of an epoch in which every step sees the same batch; with `own` each vector has a small
    network of its own besides.
    """
    fused = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU()
    )
    alone = nn.ModuleList(
        nn.Sequential(nn.Linear(WIDTH, HIDDEN[1]), nn.ReLU()) for _ in (COLUMNS if own else ())
    )
    head = nn.Linear(HIDDEN[1], 1)
    optimizer = torch.optim.AdamW([*fused.parameters(), *alone.parameters(), *head.parameters()], fused=True)
    parts = x.split(WIDTH, 1)
    begun = perf_counter()
    for _ in range(ROWS // BATCH):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = [
                head(fused(x)),
                *(head(network(part)) for network, part in zip(alone, parts, strict=False)),
            ]
            loss = sum(F.binary_cross_entropy_with_logits(output.squeeze(1).float(), y) for output in outputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - begun


def ours(x: dict[str, torch.Tensor], y: torch.Tensor, alone: float, precision: str, folder: Path) -> float:
    """Seconds of an epoch of plait's loop."""
    options = [
        f"training.batch_size={BATCH}",
        "training.epochs=1",
        f"model.alone={alone}",
        f"training.precision={precision}",
        "training.unaugmented=0",
        "split.valid=0",
    ]
    asked = recipe.load({"fusion": {"name": "concat", "hidden": HIDDEN}}, options)
    cells = pa.table({**{c: [0.0, 1.0] for c in COLUMNS}, "label": ["a", "b"]})
    plan = Plan.make(Table(cells, Path(), "data"), asked, "label")
    encoders = {
        c: ColumnEncoder(
            Pretrained(Network("", "", {}, ""), "grid", WIDTH, Config(dropout=0.0, pool="mean", unit=False)),
            "learned",
        )
        for c in COLUMNS
    }
    task = Classification([0, 1], [1, 1], "none", 0.0)
    task.build_head(HIDDEN[-1], dict.fromkeys(COLUMNS, WIDTH))
    widths = dict.fromkeys(COLUMNS, WIDTH)
    fused = Fused(widths, Concat(widths, HIDDEN, 0.0), parts(COLUMNS, ()) if alone else {})
    model = MultimodalModel(COLUMNS, encoders, None, {COLUMNS: fused}, {"label": task})
    values = {c: Values(v[:, None], torch.ones(ROWS, dtype=torch.long), encoded=True) for c, v in x.items()}
    there = {c: torch.ones(ROWS, dtype=torch.bool) for c in COLUMNS}
    prepared = Prepared(
        Batch(values, there, torch.arange(ROWS), {"label": y}, {"label": torch.ones(ROWS, dtype=torch.bool)})
    )
    data = Dataset(prepared, Preprocessing(dict.fromkeys(COLUMNS), {"label": task}))  # type: ignore[arg-type]
    run = Training(
        model,
        plan,
        device.settings(asked.training, convolves=False),
        data,
        data,
        folder,
        Screen(quiet=True),
    )
    begun = perf_counter()
    _epoch(run, Progress(), Checkpoint(folder, 1e6), Screen(quiet=True).bar("", 1).__enter__())
    return perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x, y = rows()
    one, target = torch.cat([v[:BATCH] for v in x.values()], 1), y[:BATCH].float()
    with tempfile.TemporaryDirectory() as folder:
        tried = {
            "floor: one batch over and over, fp32": lambda: floor(one, target, False),
            "plait, fp32, no column by itself": lambda: ours(x, y, 0.0, "fp32", Path(folder)),
            "floor, and a small network for each column, fp32": lambda: floor(one, target, False, own=True),
            "plait, fp32": lambda: ours(x, y, 1.0, "fp32", Path(folder)),
            "floor: one batch over and over, bf16": lambda: floor(one.bfloat16(), target, True),
            "plait, bf16, no column by itself": lambda: ours(x, y, 0.0, "bf16", Path(folder)),
            "floor, and a small network for each column, bf16": lambda: floor(
                one.bfloat16(), target, True, own=True
            ),
            "plait, bf16": lambda: ours(x, y, 1.0, "bf16", Path(folder)),
        }
        found: dict[str, list[float]] = {name: [] for name in tried}
        for _ in range(arguments.rounds):
            for name, call in tried.items():
                found[name].append(call())
    base = median(found["floor: one batch over and over, fp32"])
    lines = [[name, f"{ROWS / median(v):,.0f}", f"{median(v) / base:.2f}x"] for name, v in found.items()]
    page(
        "head.md",
        f"""# Training what comes after frozen encoders

Made by `benchmarks/head.py`, medians of {arguments.rounds} interleaved epochs of {ROWS:,} rows of three vectors of {WIDTH},
batches of {BATCH}, one thread;
{machine()}. plait's
loss of each column by itself (`model.alone`, on by default) is three more small networks.

{table(["", "rows a second", "time against the floor in fp32"], lines)}""",
    )


if __name__ == "__main__":
    main()
