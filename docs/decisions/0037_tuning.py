"""Is a text encoder worth tuning on the target, on processors? The figures of decision 0037.

Run it with `python docs/decisions/0037_tuning.py FOLDER`, the folder of `benchmarks/multabench.py`. It trains
on its inner folds, so no row that tests there is read. The states below the last blocks of MiniLM are
computed once. The blocks above are trained with the head, or stay as they are. Needs transformers and the
weights of `minilm`.
"""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from plait.pretrained import files

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from multabench import JOBS, rows_of, split

BLOCKS = 2  # that are tuned
LONGEST = 64  # tokens
BATCH = 64
RATE, TUNED_RATE = 1e-3, 1e-4
EPOCHS = {False: 30, True: 6}  # of the frozen and of the tuned encoder

TEXTS = {"goodreads": ["Title", "FirstAuthor", "Publisher", "Description"], "bikewale": ["bike_name"]}
LEAST_PRICE = 3000.0  # a few are 0 or 1, which says that there is none


@dataclass
class Data:
    """Rows of a table: the states (T, L, D) of its different texts below the tuned blocks, and their masks.

    `text` has the place of each row's text, `numbers` (N, C) and `y` (N,) have mean 0 and variance 1. The
    rows from `trained` on are held out.
    """

    states: Tensor
    mask: Tensor
    text: Tensor
    numbers: Tensor
    y: Tensor
    trained: int


class Model(nn.Module):
    """The last blocks of the encoder, and a network on the mean of its vectors and the numbers."""

    def __init__(self, blocks: nn.ModuleList, numbers: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.of_text = nn.Linear(384, 128)
        self.of_numbers = nn.Linear(numbers, 64)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Dropout(0.1), nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 1)
        )

    def vectors(self, data: Data, texts: Tensor) -> Tensor:
        """Return the vectors (T, D) of some texts."""
        mask = data.mask[texts]
        longest = int(mask.sum(1).max())
        mask = mask[:, :longest]
        x = data.states[texts, :longest].float()
        hidden = torch.zeros(mask.shape).masked_fill(~mask, -1e9)[:, None, None]
        for block in self.blocks:
            output = block(x, hidden)
            x = output[0] if isinstance(output, tuple) else output
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.of_text(F.layer_norm(vectors, (384,))), self.of_numbers(numbers)], 1)
        return self.head(joined)[:, 0]


def standard(x: np.ndarray, trained: int) -> Tensor:
    """Scale numbers to mean 0 and variance 1 over the rows that train; a missing one becomes 0."""
    x = (x - np.nanmean(x[:trained], 0)) / np.nanstd(x[:trained], 0)
    return torch.tensor(np.nan_to_num(x), dtype=torch.float32)


def numbers_of(rows: pd.DataFrame) -> np.ndarray:
    """Return the columns of numbers, on the scale of their logarithms where they are not negative."""
    columns = []
    for name in rows:
        x = pd.to_numeric(rows[name].astype(str).str.replace(",", ""), errors="coerce")
        if x.notna().mean() > 0.5:
            columns.append(np.log1p(x) if x.min() >= 0 else x)
    return np.stack(columns, 1)


@torch.no_grad()
def states_of(texts: list[str], body: nn.Module, tokenizer: AutoTokenizer) -> tuple[Tensor, Tensor]:
    """Return the states (T, L, D) of texts below the tuned blocks, and which tokens there are (T, L)."""
    ids = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
    lengths = np.array([len(of_text) for of_text in ids])
    states = torch.zeros(len(ids), lengths.max(), 384, dtype=torch.bfloat16)
    mask = torch.arange(lengths.max()) < torch.tensor(lengths)[:, None]
    for places in np.array_split(np.argsort(lengths), len(ids) // BATCH + 1):
        longest = lengths[places].max()
        padded = torch.zeros(len(places), longest, dtype=torch.long)
        for row, place in enumerate(places):
            padded[row, : lengths[place]] = torch.tensor(ids[place])
        output = body(padded, attention_mask=mask[places, :longest].long(), output_hidden_states=True)
        states[places, :longest] = output.hidden_states[-1 - BLOCKS].bfloat16()
    return states, mask


def data_of(name: str, train: pd.DataFrame, held_out: pd.DataFrame, body: nn.Module) -> Data:
    """Turn the rows of a table into states and numbers."""
    rows = pd.concat([train, held_out], ignore_index=True)
    y = rows.pop(JOBS[name].target).to_numpy(dtype=float)
    if name == "bikewale":
        y = np.log(np.maximum(y, LEAST_PRICE))
    texts = rows[TEXTS[name]].fillna("").astype(str).agg(". ".join, axis=1)
    different, places = np.unique(texts, return_inverse=True)
    tokenizer = AutoTokenizer.from_pretrained(files.find("minilm"))
    states, mask = states_of(list(different), body, tokenizer)
    numbers = standard(numbers_of(rows.drop(columns=TEXTS[name])), len(train))
    return Data(states, mask, torch.from_numpy(places), numbers, standard(y, len(train)), len(train))


@torch.no_grad()
def all_vectors(model: Model, data: Data) -> Tensor:
    """Return the vectors (T, D) of all texts."""
    model.eval()
    return torch.cat([model.vectors(data, some) for some in torch.arange(len(data.mask)).split(256)])


@torch.no_grad()
def error(model: Model, data: Data, vectors: Tensor, places: Tensor) -> float:
    """Return the mean squared error of some rows, in units of the target's variance."""
    output = model(vectors[data.text[places]], data.numbers[places])
    return float(F.mse_loss(output, data.y[places]))


def train(data: Data, blocks: nn.ModuleList, tuned: bool) -> tuple[float, float]:
    """Train until the best epoch on an eighth of the rows. Return the error held out, and the seconds."""
    torch.manual_seed(0)
    begun = perf_counter()
    model = Model(deepcopy(blocks), data.numbers.shape[1])
    model.blocks.requires_grad_(tuned)
    order = torch.randperm(data.trained)
    valid, rows = order[: len(order) // 8], order[len(order) // 8 :]
    held_out = torch.arange(data.trained, len(data.y))
    groups = [{"params": model.blocks.parameters(), "lr": TUNED_RATE}]
    groups.append({"params": [p for n, p in model.named_parameters() if "blocks" not in n], "lr": RATE})
    optimizer = torch.optim.AdamW(groups)
    steps = EPOCHS[tuned] * (len(rows) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [TUNED_RATE, RATE], total_steps=steps + 1)

    # Vectors of a frozen encoder are computed once.
    fixed = None if tuned else all_vectors(model, data)
    best, held_out_error = float("inf"), float("nan")
    for _ in range(EPOCHS[tuned]):
        for places in rows[torch.randperm(len(rows))].split(BATCH):
            model.train()
            texts, inverse = data.text[places].unique(return_inverse=True)
            vectors = model.vectors(data, texts) if fixed is None else fixed[texts]
            loss = F.mse_loss(model(vectors[inverse], data.numbers[places]), data.y[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        vectors = all_vectors(model, data) if fixed is None else fixed
        loss = error(model, data, vectors, valid)
        if loss < best:
            best, held_out_error = loss, error(model, data, vectors, held_out)
    return held_out_error, perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    arguments = parser.parse_args()
    body = AutoModel.from_pretrained(files.find("minilm")).eval()
    blocks = body.encoder.layer[-BLOCKS:]
    for name, job in JOBS.items():
        for fold in range(arguments.folds):
            outer, _ = split(rows_of(job, arguments.folder / f"{name}.csv"), fold)
            data = data_of(name, *split(outer, fold), body)
            for tuned in (False, True):
                loss, seconds = train(data, blocks, tuned)
                label = "tuned" if tuned else "frozen"
                print(f"{name}, fold {fold}, {label}: error {loss:.3f}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
