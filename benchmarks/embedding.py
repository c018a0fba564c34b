"""Embedding cells by frozen networks, beside the loop that most people write: benchmarks/embedding.py

The loop goes through the table in its order, in batches of 32, in fp32: tokenizer with padding, network, and
mean of the tokens; for images Pillow, resize, and the same network. plait reads the same cells through
`fit`'s own steps, without its cache, and puts them where training takes them. Needs transformers, and the
weights of `minilm` and `efficientnet_lite0` (README, "Pretrained encoders").
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from PIL import Image
from torch import Tensor

import standins
from measure import machine, median, page, read_arguments, sample_table, seconds, table
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.prediction.view import View
from plait.pretrained import files
from plait.pretrained.network import Network
from plait.samples import stamps
from plait.table.read import read
from plait.table.table import Table

BATCH = 32
WORDS = (20, 250)  # of a long text, at least and at most
ROUNDS = 3


def short_texts(path: Path, count: int) -> list[str]:
    """Return the sentences of the stamps."""
    return [text for text in pa.csv.read_csv(path)["sentence"].to_pylist() if text][:count]


def long_texts(sentences: Sequence[str], count: int) -> list[str]:
    """Join sentences to texts of very different lengths."""
    rng = np.random.default_rng(0)
    words = " ".join(sentences).split()
    texts = []
    for length in rng.integers(*WORDS, count):
        start = int(rng.integers(0, max(len(words) - length, 1)))
        texts.append(" ".join(words[start : start + length]))
    return texts


def images(path: Path, count: int) -> list[str]:
    """Return the paths of the stamps' images."""
    names = [name for name in pa.csv.read_csv(path)["picture"].to_pylist() if name]
    return [str(path.parent / name) for name in names][:count]


def text_loop(texts: Sequence[str], model: str) -> Callable[[], Tensor]:
    """Return the loop over texts that most people write."""
    from transformers import AutoModel, AutoTokenizer

    folder = files.find(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder).eval()
    longest = min(256, network.config.max_position_embeddings)

    @torch.no_grad()
    def run() -> Tensor:
        vectors = []
        for first in range(0, len(texts), BATCH):
            batch = tokenizer(
                list(texts[first : first + BATCH]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            state = network(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            vectors.append((state * mask).sum(1) / mask.sum(1))
        return torch.cat(vectors)

    return run


def image_loop(paths: Sequence[str], model: str) -> Callable[[], Tensor]:
    """Return the loop over images that most people write."""
    folder = files.find(model)
    architecture = files.read_json(folder, "config.json")
    network = Network(model, files.identity(folder), architecture, "vision_config").trained().eval()
    size = files.read_json(folder, "preprocessor_config.json")["size"]
    side = size if isinstance(size, int) else size["height"]

    @torch.no_grad()
    def run() -> Tensor:
        vectors = []
        for first in range(0, len(paths), BATCH):
            batch = []
            for path in paths[first : first + BATCH]:
                pixels = np.asarray(Image.open(path).convert("RGB").resize((side, side)), dtype=np.float32)
                batch.append(torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1))
            output = network(torch.stack(batch))
            state = output if isinstance(output, Tensor) else output.last_hidden_state
            vectors.append(state.flatten(2).mean(-1) if state.ndim == 4 else state.mean(1))
        return torch.cat(vectors)

    return run


def ours(cells: Sequence[str], modality: str, model: str) -> Callable[[], object]:
    """Return plait's own way from cells to vectors. The network is loaded already."""
    rows = pa.table({"cell": list(cells), "y": [float(row % 7) for row in range(len(cells))]})
    overrides = [
        f"columns.cell.modality={modality}",
        f"encoders.{modality}={{name: pretrained, model: {model}}}",
    ]
    cell_table: Table = read(rows)
    plan = Plan.make(cell_table, recipe_from(None, overrides=overrides), "y")
    typed = plan.read(cell_table)
    view = View.fit("embedding", plan, typed)
    view.prepare(typed.take(np.arange(min(len(cells), 2))), targets=False)
    return lambda: view.prepare(typed, targets=False)


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    count, rounds = 600, ROUNDS
    if arguments.quick:
        count, rounds = 40, 1
        standins.write_samples("stamps")
        standins.pretrained_networks()
    path = sample_table(stamps)
    sentences = short_texts(path, count)
    texts = long_texts(sentences, count // 4)
    pictures = images(path, count // 2)
    jobs = {
        "short texts, minilm": (text_loop(sentences, "minilm"), ours(sentences, "text", "minilm"), sentences),
        "long texts, minilm": (text_loop(texts, "minilm"), ours(texts, "text", "minilm"), texts),
        "images, efficientnet_lite0": (
            image_loop(pictures, "efficientnet_lite0"),
            ours(pictures, "image", "efficientnet_lite0"),
            pictures,
        ),
    }

    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in jobs}
    for _ in range(rounds):
        for name, (loop, plait_way, _cells) in jobs.items():
            times[name][0].extend(seconds(loop, 1))
            times[name][1].extend(seconds(plait_way, 1))

    rows = []
    for name, (loop_times, our_times) in times.items():
        cells = len(jobs[name][2])
        theirs, mine = cells / median(loop_times), cells / median(our_times)
        rows.append([name, f"{cells:,}", f"{theirs:,.1f}", f"{mine:,.1f}", f"{mine / theirs:.1f}x"])
    headers = ["cells", "number", "plain loop, cells a second", "plait, cells a second", "ratio"]
    text = (
        f"# Embedding\n\nMade by `benchmarks/embedding.py`, medians of {rounds}, in turns; {machine()},\n"
        f"{torch.get_num_threads()} thread(s). Both read the cells from the table or from files.\n\n"
        f"{table(headers, rows)}"
    )
    page("embedding.md", text, arguments)


if __name__ == "__main__":
    main()
