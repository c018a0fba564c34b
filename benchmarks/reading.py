"""How long `plait inspect` takes, and how much memory, beside what pandas needs to read the same file:
benchmarks/reading.py

`inspect` reads the table, finds the convention of each column, and says what each column is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from measure import machine, median, page, read_arguments, table

WORDS = np.array(["red", "big", "old", "new", "blue", "fast", "slow", "tree", "house", "river"])

# The peak of memory is asked for from inside: what wait4 says begins with that of the parent process.
PEAK = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
INSPECT = "import sys, plait; plait.inspect(sys.argv[1])" + PEAK
PANDAS = "import sys, pandas; pandas.read_csv(sys.argv[1])" + PEAK
ROUNDS = 3


class Run(NamedTuple):
    """What a process took: seconds of its wall time, and its peak of memory in MB."""

    seconds: float
    memory: float


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    share = 0.001 if arguments.quick else 1.0
    tables: dict[str, Callable[[np.random.Generator], pa.Table]] = {
        "1,000,000 rows, 20 columns": lambda rng: many_rows(rng, int(1_000_000 * share)),
        "5,000 texts of 10 kB": lambda rng: long_texts(rng, int(5000 * share)),
        "200 rows, 100 columns": lambda rng: many_columns(rng, 200, max(int(100 * share), 20)),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in tables.items():
            path = Path(folder) / "table.csv"
            pa.csv.write_csv(make(np.random.default_rng(0)), path)
            ours, theirs = in_turns(path, 1 if arguments.quick else ROUNDS)
            size = path.stat().st_size / 1e6
            rows.append([
                name, f"{size:,.0f}", f"{ours.seconds:.2f}", f"{ours.memory:,.0f}", f"{theirs.seconds:.2f}",
                f"{theirs.memory:,.0f}", f"{ours.seconds / theirs.seconds:.1f}x",
            ])  # fmt: skip
    headers = ["table", "MB", "inspect, s", "MB of memory", "pandas.read_csv, s", "MB of memory", "ratio"]
    text = (
        f"# Reading\n\nMade by `benchmarks/reading.py`, two threads at most, medians of {ROUNDS}, in turns;\n"
        f"{machine()}. Each run is a process of its own, so its seconds\ninclude the start of Python and the "
        f"imports.\n\n{table(headers, rows)}"
    )
    page("reading.md", text, arguments)


def in_turns(path: Path, rounds: int) -> tuple[Run, Run]:
    """Run plait and pandas on a file in turns. Return the median of each."""
    ours = []
    theirs = []
    for _ in range(rounds):
        ours.append(run(INSPECT, path))
        theirs.append(run(PANDAS, path))
    return middle(ours), middle(theirs)


def run(script: str, path: Path) -> Run:
    """Run a script on a file in a process of its own."""
    begun = perf_counter()
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Run(perf_counter() - begun, int(done.stdout) / 1e3)


def middle(runs: list[Run]) -> Run:
    return Run(median([run.seconds for run in runs]), median([run.memory for run in runs]))


def many_rows(rng: np.random.Generator, rows: int) -> pa.Table:
    """8 numbers, 4 categories, 4 short texts, 2 dates and 2 ids."""
    columns: dict[str, object] = {}
    for number in range(8):
        columns[f"number {number}"] = np.round(rng.normal(size=rows), 4)
    for number in range(4):
        columns[f"category {number}"] = [f"class {place}" for place in rng.integers(0, 20, rows)]
    for number in range(4):
        columns[f"text {number}"] = [" ".join(words) for words in WORDS[rng.integers(0, 10, (rows, 5))]]
    days = np.datetime64("2015-01-01") + rng.integers(0, 3000, rows)
    columns["date"] = days.astype(str)
    columns["moment"] = (days.astype("M8[s]") + rng.integers(0, 86400, rows)).astype(str)
    columns["id"] = np.arange(rows)
    columns["code"] = [f"A{number:07d}" for number in rng.permutation(rows)]
    return pa.table(columns)


def long_texts(rng: np.random.Generator, rows: int) -> pa.Table:
    """Texts of 10 kB, and a class."""
    texts = [" ".join(words) for words in WORDS[rng.integers(0, 10, (rows, 2000))]]
    return pa.table({"text": texts, "label": rng.choice(["good", "bad"], rows)})


def many_columns(rng: np.random.Generator, rows: int, columns: int) -> pa.Table:
    """Short texts, categories, numbers and dates in turns: the time goes into recognising them."""
    made: dict[str, object] = {}
    for number in range(0, columns, 4):
        made[f"text {number}"] = [" ".join(words) for words in WORDS[rng.integers(0, 10, (rows, 5))]]
        made[f"category {number}"] = rng.choice(WORDS, rows)
        made[f"number {number}"] = np.round(rng.normal(size=rows), 4)
        made[f"date {number}"] = (np.datetime64("2015-01-01") + rng.integers(0, 3000, rows)).astype(str)
    return pa.table(made)


if __name__ == "__main__":
    main()
