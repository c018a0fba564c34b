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
from plait.training.loop import Training, _epoch

precision, folder = sys.argv[1], Path(sys.argv[2])


class InOrder(Dataset):
    """Never shuffled, to compare losses epoch by epoch."""

    def shuffled(self, batch_size: int, seed: int) -> list[torch.Tensor]:
        return list(self.rows.split(batch_size))


def setting() -> tuple[Plan, Preprocessing, Prepared]:
    """The classic recipe, with the given pictures and token ids in place of files and sentences."""
    data = np.load(folder / "data.npz")
    cells = {"picture": ["a"] * 320, "words": ["a b"] * 320, "label": data["label"]}
    table = Table(pa.table(cells), Path(), "data")
    overrides = [f"training.precision={precision}", "split.valid=0"]
    asked = recipe_from("classic", columns={"picture": "image", "words": "text"}, overrides=overrides)
    plan = Plan.make(table, asked, "label")
    preprocessing = Preprocessing.fit(table, plan, np.arange(320))
    length = torch.full((320,), 100)
    values = {
        "picture": Values(torch.from_numpy(data["pictures"])),
        "words": Values(torch.from_numpy(data["words"]), length),
    }
    present = {name: torch.ones(320, dtype=torch.bool) for name in values}
    batch = Batch(
        values,
        present,
        torch.arange(320),
        {"label": torch.from_numpy(data["label"])},
        {"label": present["words"]},
    )
    return plan, preprocessing, Prepared(batch)


LAYERS = {
    **{f"Conv2D{i}": f"encoders.of_picture.encoder.convolutions.{i}" for i in range(3)},
    "Dense0": "fusion.mlp.0",
    "Dense1": "fusion.mlp.2",
    "Dense2": "tasks.of_label.head",
}
TEXT = "encoders.of_words.encoder"
LSTM = {0: f"{TEXT}.lstm.weight_ih_l0", 1: f"{TEXT}.lstm.weight_hh_l0", 2: f"{TEXT}.lstm.bias_ih_l0"}


def copy_weights(model: MultimodalModel) -> None:
    """Keras's weights into ours: axes in another order, the LSTM's gates in the same."""
    given = {name: torch.from_numpy(array) for name, array in np.load(folder / "weights.npz").items()}
    own: dict[str, Any] = dict(model.named_parameters())
    own[f"{TEXT}.embedding.weight"].data.copy_(given.pop("Embedding0.0"))
    for name, array in given.items():
        layer, _, index = name.partition(".")
        target = LSTM[int(index)] if layer == "LSTM0" else f"{LAYERS[layer]}.{('weight', 'bias')[int(index)]}"
        moved = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T if array.ndim == 2 else array
        own[target].data.copy_(moved)


plan, preprocessing, prepared = setting()
settings = device.settings(plan.recipe.training, convolves=True)


def training(rows: int, kind: type[Dataset] = Dataset) -> Training:
    torch.manual_seed(0)
    preprocessing.tasks["label"].build_head(64, {})
    model = MultimodalModel.build(plan, preprocessing)
    copy_weights(model)
    data = kind(prepared, preprocessing, np.arange(rows))
    return Training(
        model,
        plan,
        settings,
        data,
        Dataset(prepared, preprocessing, np.arange(0)),
        folder,
        Screen(quiet=True),
    )


def epoch(run: Training, progress: Progress) -> float:
    with Screen(quiet=True).bar("", 1) as bar:
        _epoch(run, progress, Checkpoint(folder, 1e6), bar)
    progress.epoch += 1
    return progress.loss_sum / -(-len(run.train_data) // 32)


run = training(128)
predictor: Predictor | None = None
sys.stdin.readline()
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    what, *number = line.split()
    answer: dict[str, Any]
    if what == "logits":
        count = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        rows = Dataset(prepared, preprocessing).batch(torch.arange(64))
        answer = {
            "logits": Predictor(run.model, preprocessing, settings, plan)
            .of_batch(rows, [run.model.columns])[0]["label"][:, 0]
            .tolist(),
            "parameters": count,
        }
    elif what == "curve":
        one, progress = training(320, InOrder), Progress()
        answer = {"loss": [epoch(one, progress) for _ in range(int(number[0]))]}
        del one
    elif what == "train":
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        epoch(run, Progress())
        ms = 1e3 * (time.perf_counter() - begun) / 4
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer = {"ms": ms, "rss_mb": used.ru_maxrss / 1024, "faults": (used.ru_minflt - before) / 4}
    else:
        predictor = predictor or Predictor(run.model, preprocessing, settings, plan)
        count, found, data = int(number[0]), [], Dataset(prepared, preprocessing)
        for _ in range(12 if count == 1 else 3):
            begun = time.perf_counter()
            predictor.of_batch(data.batch(torch.arange(count)), [run.model.columns])
            found.append(time.perf_counter() - begun)
        answer = {"ms": 1e3 * float(np.median(found))}
    print(json.dumps(answer), flush=True)
