"""The wall time of `plait fit` from the shell, beside what is asked for: benchmarks/budgets.py

Each command is a process of its own, with a cache that begins empty. "Again" is the same command with another
seed, on the vectors in the cache. Needs transformers and the weights of `minilm`, `efficientnet_lite0` and
`speech_embedding` (README, "Pretrained encoders").
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

import standins
from measure import machine, page, read_arguments, sample_table, table
from plait.samples import emoji, stamps

QUALITIES = ("fast", "good", "best")
QUICK = ("--set", "training.epochs=1", "--set", "modalities.image.size=32")


@dataclass(frozen=True)
class Command:
    """A fit of a table, and the seconds that it may take: of the first time, and again (None: no matter)."""

    label: str
    table: Path
    target: str
    quality: str = "fast"
    first: int | None = None
    again: int | None = None


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def plain(folder: Path, count: int) -> Path:
    """Write rows of eight numbers and a category, and two classes that they tell."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8))
    shop = rng.choice(list("abcde"), count)
    score = x[:, 0] + x[:, 1] * (shop == "a") + rng.normal(size=count)
    rows: list[dict[str, object]] = []
    for row in range(count):
        numbers = {f"x{i}": round(float(x[row, i]), 3) for i in range(8)}
        rows.append({**numbers, "shop": shop[row], "answer": "yes" if score[row] > 0 else "no"})
    return write_rows(folder / "plain.csv", rows)


def sampled(sample: object, folder: Path, columns: Sequence[str], files: Sequence[str], count: int) -> Path:
    """Write some rows of a sample, drawn at random, with these columns. `files` of them hold paths."""
    path = sample_table(sample)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    kept: list[dict[str, object]] = []
    for number in order:
        row: dict[str, object] = {name: rows[number][name] for name in columns}
        for name in files:
            row[name] = str(path.parent / str(row[name])) if row[name] else ""
        kept.append(row)
    return write_rows(folder / f"{path.stem}-{count}.csv", kept)


def texts(folder: Path, count: int) -> Path:
    """Write rows of two sentences of the emoji's names and tags, a number, and a price that they tell."""
    with sample_table(emoji).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    written: list[dict[str, object]] = []
    for number in range(count):
        some = rng.choice(len(rows), 6)
        names = "; ".join(rows[i]["name"] for i in some)
        tags = "; ".join(rows[i]["tags"] for i in some)
        weight = float(rng.uniform(1, 9))
        price = weight + 3 * names.count("face") + float(rng.normal())
        shown = {"names": f"{number}: {names}", "tags": f"{number}: {tags}", "weight": round(weight, 2)}
        written.append({**shown, "price": round(price, 2)})
    return write_rows(folder / "texts.csv", written)


def commands(folder: Path, share: float) -> list[Command]:
    """Return what is timed, on this share of the rows."""

    def some(count: int) -> int:
        return max(round(count * share), 40)

    media = ("picture", "sentence", "sound", "speech", "style", "languages", "category")
    files = ("picture", "sound", "speech")
    everything = sampled(stamps, folder, media, files, some(228))
    pictures = sampled(emoji, folder, ("picture", "name", "group"), ("picture",), some(1000))
    long = texts(folder, some(5000))
    listed = [
        Command("plain columns", plain(folder, some(1000)), "answer", first=4),
        Command("an image, two sounds, a text, plain columns", everything, "category", first=20),
        Command("two texts of 50 words, a number", long, "price", first=45),
    ]
    for quality, again in zip(QUALITIES, (20, 60, 180), strict=True):
        listed.append(Command("an image and a text", pictures, "group", quality, again=again))
    return listed


def timed(command: Command, folder: Path, seed: int, options: Sequence[str]) -> float:
    """Run the command. Return its seconds."""
    arguments = ["--target", command.target, "--quality", command.quality, "--set", f"seed={seed}"]
    environment = {**os.environ, "PLAIT_CACHE": str(folder / "cache")}
    out = str(folder / f"run{seed}")
    whole = [sys.executable, "-m", "plait", "fit", str(command.table), *arguments, *options, "--out", out]
    begun = perf_counter()
    subprocess.run(whole, check=True, capture_output=True, env=environment)
    return perf_counter() - begun


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    options = QUICK if arguments.quick else ()
    if arguments.quick:
        standins.write_samples("stamps", "emoji")
    lines: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        listed = commands(Path(name), 0.02 if arguments.quick else 1)
        for command in listed[:1] if arguments.quick else listed:
            with command.table.open(encoding="utf-8") as file:
                rows = sum(1 for _ in csv.reader(file)) - 1
            with tempfile.TemporaryDirectory() as fresh:
                first, again = (timed(command, Path(fresh), seed, options) for seed in (0, 1))
            asked = f"{command.first} first" if command.first else f"{command.again} again"
            shown = [command.label, f"{rows:,}", command.quality, f"{first:.1f}", f"{again:.1f}", asked]
            lines.append(list(shown))
            print(*shown, flush=True)
    headers = ["columns", "rows", "quality", "seconds", "again", "asked for"]
    page(
        "budgets.md",
        f"""# The time of whole commands

Made by `benchmarks/budgets.py`: `plait fit TABLE --target COLUMN` from the shell, once each; {machine()},
{os.cpu_count()} processors. "Again": with another seed, on the vectors in the cache.

{table(headers, lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
