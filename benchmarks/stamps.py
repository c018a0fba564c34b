"""Accuracy on the stamps over five seeds: all columns, each modality alone, the majority class: benchmarks/stamps.py

The split is the sample's own (families of stamps stay together); nothing here was chosen by looking at its test rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import plait
from measure import machine, page, table
from plait.samples import stamps

CACHE = Path.home() / ".cache" / "plait" / "samples" / "stamps"
MODELS = {
    "all columns": ["picture", "sentence", "style", "languages"],
    "picture and sentence": ["picture", "sentence"],
    "picture alone": ["picture"],
    "sentence alone": ["sentence"],
}
STUDENT = 2.776  # 97.5 % quantile of Student's t with four degrees of freedom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    path = stamps.fetch(arguments.cache)
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    majority, rows = 0.0, {}
    for seed in range(arguments.seeds):
        for name, columns in MODELS.items():
            ignored = {c: "ignored" for c in ("stamp", "picture", "sentence", "style", "languages") if c not in columns}
            with tempfile.TemporaryDirectory() as folder:
                model = plait.fit(path, "category", columns=ignored, seed=seed, out=folder, quiet=True)
            target = model.record["evaluation"]["test"]["targets"]["category"]
            found[name].append(target["metrics"]["accuracy"]["value"])
            majority, rows = target["baseline"]["accuracy"], model.record["rows"]
            print(name, seed, round(found[name][-1], 3), f"{model.record['seconds']} s", flush=True)
    lines = [
        [name, f"{np.mean(v):.3f}", f"+-{STUDENT * np.std(v, ddof=1) / len(v) ** 0.5:.3f}", ", ".join(f"{a:.3f}" for a in v)]
        for name, v in found.items()
    ]
    lines.append(["majority class", f"{majority:.3f}", "", ""])
    headers = ["inputs", "mean", "95 % interval of the mean over seeds", "each seed"]
    page("stamps.md", f"""# Stamps: test accuracy, {arguments.seeds} seeds

Made by `benchmarks/stamps.py` with the default recipe; {machine()}. Rows: {rows}. Seeds change the weights, the order and
the augmentation, not the split; one test row is {1 / rows["test"]:.3f}, and the binomial standard error of one score is about 0.045.

{table(headers, lines)}""")  # fmt: skip


if __name__ == "__main__":
    main()
