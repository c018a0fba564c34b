"""A fit of tables with many columns of numbers, beside scikit-learn: benchmarks/wide.py

scikit-learn's network has the same depth and reads all columns as one vector. 2,000 rows of normal
numbers, two classes that three of the columns tell; 40 epochs in batches of 32 for both (the default
recipe). plait's time is that of the complete fit: reading, encoding, training, scores of inputs by
themselves, and report. "One by one" encodes each column by a small network of its own, as encoders other
than `tabular` do; without it, all plain cells are encoded at once.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from sklearn.neural_network import MLPClassifier

import plait
from measure import machine, median, page, read_arguments, table
from plait.model import network


class Sizes(NamedTuple):
    rows: int
    columns: tuple[int, ...]
    rounds: int
    epochs: int


FULL, QUICK = Sizes(2000, (10, 30, 100), 3, 40), Sizes(60, (3,), 1, 1)


def numbers(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the inputs and the classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns))
    return x, np.where(x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=rows) > 0, "yes", "no")


def ours(columns: int, sizes: Sizes) -> float:
    """Time a fit of plait, in seconds."""
    x, y = numbers(sizes.rows, columns)
    cells = pa.table({**{f"n{i}": x[:, i] for i in range(columns)}, "y": y})
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = [f"training.epochs={sizes.epochs}", "training.refit=off", "quality=network"]
        plait.fit(cells, "y", out=Path(folder) / "run", overrides=options, quiet=True)
    return perf_counter() - begun


def one_by_one(columns: int, sizes: Sizes) -> float:
    """Time a fit of plait that encodes each column alone."""
    with mock.patch.object(network, "together", return_value=None):
        return ours(columns, sizes)


def scikit_learn(columns: int, sizes: Sizes) -> float:
    """Time a fit of scikit-learn's network."""
    x, y = numbers(sizes.rows, columns)
    begun = perf_counter()
    epochs = {"max_iter": sizes.epochs, "n_iter_no_change": sizes.epochs}
    with warnings.catch_warnings(action="ignore"):  # it has not converged after so few epochs
        MLPClassifier((128, 64), batch_size=32, random_state=0, **epochs).fit(x, y)
    return perf_counter() - begun


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    sizes = QUICK if arguments.quick else FULL
    torch.set_num_threads(1)
    ours(3, QUICK)  # imports happen once
    programs = {
        "plait": ours,
        "plait, columns one by one": one_by_one,
        "scikit-learn, training alone": scikit_learn,
    }
    lines: list[list[object]] = []
    for columns in sizes.columns:
        durations: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(sizes.rounds):
            for name, program in programs.items():
                durations[name].append(program(columns, sizes))
        lines.append([columns, *(f"{median(times):.1f}" for times in durations.values())])
        print(*lines[-1], flush=True)
    page(
        "wide.md",
        f"""# Tables of many columns

Made by `benchmarks/wide.py`, seconds, medians of {sizes.rounds} interleaved runs; {sizes.rows:,} rows,
one thread; {machine()}.

{table(["columns of numbers", *programs], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
