"""The classic recipe in plait, as classic.py's worker: classic_plait.py fp32|bf16 FOLDER"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plait.console import Screen
from plait.data.arguments import recipe_from
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.model.network import MultimodalModel
from plait.nn import device
from plait.nn.batch import Batch, Values
from plait.prediction.predictor import Predictor
from plait.table.table import Table
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.loop import Training, train_epoch

precision, folder = sys.argv[1], Path(sys.argv[2])
data = np.load(folder / "data.npz")
size, side, batch_size = len(data["label"]), data["images"].shape[1], int(data["batch"])


class InOrder(Dataset):
    """Rows that are never shuffled, to compare losses epoch by epoch."""

    def shuffled(self, batch_size: int, seed: int, alike: bool = False) -> list[torch.Tensor]:
        return list(self.rows.split(batch_size))


def setting() -> tuple[Plan, Preprocessing, Prepared]:
    """Plan the classic recipe, and put the images and token ids in place of files and texts."""
    options = [f"training.precision={precision}", f"training.batch_size={batch_size}", "split.valid=0"]
    options += [f"modalities.image.size={side}", "training.unaugmented=0"]
    recipe = recipe_from("classic", columns={"image": "image", "words": "text"}, overrides=options)
    cells = {"image": ["a"] * size, "words": ["a b"] * size, "label": data["label"]}
    table = Table(pa.table(cells), Path(), "data")
    plan = Plan.make(table, recipe, "label")
    preprocessing = Preprocessing.fit(table, plan, np.arange(size))

    values = {
        "image": Values(torch.from_numpy(data["images"])),
        "words": Values(torch.from_numpy(data["words"]), torch.full((size,), data["words"].shape[1])),
    }
    everywhere = torch.ones(size, dtype=torch.bool)
    present = dict.fromkeys(values, everywhere)
    labels = {"label": torch.from_numpy(data["label"])}
    batch = Batch(values, present, present, torch.arange(size), labels, {"label": everywhere})
    return plan, preprocessing, Prepared(batch)


# Keras's weights, and the ends of the names of ours; what comes before is the model's own affair
NAMES = {
    "Embedding0.0": "embedding.weight",
    "LSTM0.0": "lstm.weight_ih_l0",
    "LSTM0.1": "lstm.weight_hh_l0",
    "LSTM0.2": "lstm.bias_ih_l0",
}
LAYERS = {
    **{f"Conv2D{number}": f"convolutions.{number}" for number in range(3)},
    "Dense0": "fusion.mlp.0",
    "Dense1": "fusion.mlp.2",
    "Dense2": "of_label.head",
}
for layer, ending in LAYERS.items():
    NAMES |= {f"{layer}.0": f"{ending}.weight", f"{layer}.1": f"{ending}.bias"}


def copy_weights(model: MultimodalModel) -> None:
    """Copy Keras's weights: axes are in another order, the LSTM's gates in the same.

    Raises `ValueError` where a name does not end as any parameter does, or as two.
    """
    parameters = dict(model.named_parameters())
    for name, array in np.load(folder / "weights.npz").items():
        (target,) = (p for p in parameters if f".{p}".endswith(f".{NAMES[name]}"))
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2 and not name.startswith("Embedding"):
            array = array.T
        if parameters[target].shape != array.shape:
            raise ValueError(f"{target}: {tuple(parameters[target].shape)} is not {array.shape} of {name}")
        parameters[target].data.copy_(torch.from_numpy(np.ascontiguousarray(array)))


plan, preprocessing, prepared = setting()
settings = device.settings(plan.recipe.training, convolves=True)


def training(rows: int, kind: type[Dataset] = Dataset) -> Training:
    torch.manual_seed(0)
    model = MultimodalModel.build(plan, preprocessing)
    copy_weights(model)
    train_data, nothing = (kind(prepared, preprocessing, np.arange(count)) for count in (rows, 0))
    return Training(model, plan, settings, train_data, nothing, folder, Screen(quiet=True))


def epoch(run: Training, progress: Progress) -> float:
    with Screen(quiet=True).bar("", 1) as bar:
        train_epoch(run, progress, Checkpoint(folder, 1e6, plan), bar)
    progress.epoch += 1
    return progress.loss_sum / -(-len(run.train_data) // batch_size)


run = training(4 * batch_size)
predictor: Predictor | None = None
sys.stdin.readline()
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    what, *number = line.split()
    answer: dict[str, Any]
    if what == "logits":
        predictor = Predictor(run.model, preprocessing, settings, plan)
        rows = Dataset(prepared, preprocessing).batch(torch.arange(2 * batch_size))
        logits = predictor.of_batch(rows)["label"][:, 0]
        count = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        answer = {"logits": logits.tolist(), "parameters": count}
        predictor = None
    elif what == "curve":
        ordered, progress = training(size, InOrder), Progress()
        answer = {"loss": [epoch(ordered, progress) for _ in range(int(number[0]))]}
        del ordered
    elif what == "train":
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        epoch(run, Progress())
        ms = 1e3 * (time.perf_counter() - begun) / 4
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer = {"ms": ms, "rss_mb": used.ru_maxrss / 1024, "faults": (used.ru_minflt - before) / 4}
    else:
        predictor = predictor or Predictor(run.model, preprocessing, settings, plan)
        count, seconds, dataset = int(number[0]), [], Dataset(prepared, preprocessing)
        for _ in range(12 if count == 1 else 3):
            begun = time.perf_counter()
            predictor.of_batch(dataset.batch(torch.arange(count)))
            seconds.append(time.perf_counter() - begun)
        answer = {"ms": 1e3 * float(np.median(seconds))}
    print(json.dumps(answer), flush=True)
