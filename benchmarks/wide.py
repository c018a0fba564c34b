"""A fit of tables with many columns of numbers, beside a network of scikit-learn's of the same depth
that reads all of them as one vector: benchmarks/wide.py

2,000 rows of normal numbers, two classes that three of the columns tell; 40 epochs in batches of 32 for
both (the default recipe). plait's time is that of the whole fit: reading, encoding, training, scores of
inputs by themselves, and report. "One by one" encodes each column by its own small network, as other
encoders than `tabular` are, where plain cells are encoded at once.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from sklearn.neural_network import MLPClassifier

import plait
from measure import machine, median, page, table

ROWS, COLUMNS, ROUNDS = 2000, (10, 30, 100), 3


def numbers(columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, columns))
    return x, np.where(x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=ROWS) > 0, "yes", "no")


def ours(columns: int) -> float:
    x, y = numbers(columns)
    cells = pa.table({**{f"n{i}": x[:, i] for i in range(columns)}, "y": y})
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plait.fit(cells, "y", out=Path(folder) / "run", quiet=True)
    return perf_counter() - begun


def one_by_one(columns: int) -> float:
    with mock.patch("plait.model.together", return_value=None):
        return ours(columns)


def scikit_learn(columns: int) -> float:
    x, y = numbers(columns)
    begun = perf_counter()
    with warnings.catch_warnings(action="ignore"):  # 40 epochs are no convergence
        MLPClassifier((128, 64), batch_size=32, max_iter=40, n_iter_no_change=40, random_state=0).fit(x, y)
    return perf_counter() - begun


def main() -> None:
    torch.set_num_threads(1)
    ours(3)  # what is imported once
    tried = {
        "plait": ours,
        "plait, columns one by one": one_by_one,
        "scikit-learn, training alone": scikit_learn,
    }
    rows: list[list[object]] = []
    for columns in COLUMNS:
        found: dict[str, list[float]] = {name: [] for name in tried}
        for _ in range(ROUNDS):
            for name, call in tried.items():
                found[name].append(call(columns))
        rows.append([columns, *(f"{median(seconds):.1f}" for seconds in found.values())])
        print(*rows[-1], flush=True)
    page(
        "wide.md",
        f"""# Tables of many columns

Made by `benchmarks/wide.py`, seconds, medians of {ROUNDS} interleaved runs; {ROWS:,} rows, one thread; {machine()}.

{table(["columns of numbers", *tried], rows)}""",
    )


if __name__ == "__main__":
    main()
