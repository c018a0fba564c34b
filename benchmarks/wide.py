"""A fit of tables with many columns of numbers, beside scikit-learn: benchmarks/wide.py

2,000 rows of normal numbers, two classes that three of the columns tell. plait's time is that of the complete
fit: reading, encoding, training, scores of inputs by themselves, and report; that of scikit-learn is for
training alone. Its boosting has its default options, as plait's `fast` has. Its network has the same depth
as plait's and reads all columns as one vector; 40 epochs in batches of 32 for both. "One by one" encodes each
column by a small network of its own, as encoders other than `tabular` do; without it, all plain cells are
encoded at once.
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
from sklearn.ensemble import HistGradientBoostingClassifier
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


def fit(columns: int, sizes: Sizes, *options: str) -> float:
    """Time a fit of plait, in seconds."""
    x, y = numbers(sizes.rows, columns)
    cells = pa.table({**{f"n{i}": x[:, i] for i in range(columns)}, "y": y})
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plait.fit(cells, "y", out=Path(folder) / "run", overrides=options, quiet=True)
    return perf_counter() - begun


def fast(columns: int, sizes: Sizes) -> float:
    """Time a fit with the default options; a quick one has one epoch."""
    epochs = [f"training.epochs={sizes.epochs}"] if sizes == QUICK else []
    return fit(columns, sizes, "quality=fast", *epochs)


def network_alone(columns: int, sizes: Sizes) -> float:
    """Time a fit of the network alone, for a number of epochs."""
    options = ("training.refit=off", "training.patience=0", "quality=network")
    return fit(columns, sizes, f"training.epochs={sizes.epochs}", *options)


def one_by_one(columns: int, sizes: Sizes) -> float:
    """Time a fit of plait that encodes each column alone."""
    with mock.patch.object(network, "together", return_value=None):
        return network_alone(columns, sizes)


def boosting(columns: int, sizes: Sizes) -> float:
    """Time a fit of scikit-learn's boosting."""
    x, y = numbers(sizes.rows, columns)
    begun = perf_counter()
    HistGradientBoostingClassifier(random_state=0).fit(x, y)
    return perf_counter() - begun


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
    network_alone(3, QUICK)  # imports happen once
    programs = {
        "plait, fast": fast,
        "scikit-learn's boosting": boosting,
        "plait, network": network_alone,
        "plait, columns one by one": one_by_one,
        "scikit-learn's network": scikit_learn,
    }
    lines: list[list[object]] = []
    for columns in sizes.columns:
        durations: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(sizes.rounds):
            for name, program in programs.items():
                durations[name].append(program(columns, sizes))
        ratio = median(durations["plait, fast"]) / median(durations["scikit-learn's boosting"])
        shown = [f"{median(times):.1f}" for times in durations.values()]
        lines.append([columns, *shown, f"{ratio:.1f}x"])
        print(*lines[-1], flush=True)
    page(
        "wide.md",
        f"""# Tables of many columns

Made by `benchmarks/wide.py`, seconds, medians of {sizes.rounds} interleaved runs; {sizes.rows:,} rows,
one thread; {machine()}.

{table(["columns of numbers", *programs, "fast / boosting"], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
