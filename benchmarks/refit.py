"""A second fit on the vectors that the first has left in the cache, against the first: benchmarks/refit.py

The emoji (picture + name, frozen encoders), each fit in a process of its own, with a cache that begins empty. Times are those of the whole
command, with its start, evaluation and report. Once with the small networks that come in packages, and, on a thousand rows, with one of the
size that most people take (ViT-B/16: its weights are random, which makes no difference to the time).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from pyarrow import csv

from accuracy import EMOJI, JOBS, PRETRAINED
from measure import machine, page, table
from plait.table.write import write

ROWS = 1000
LEFT_OUT = ("vendor", "tags", "vendor_split")
CHANGES = {
    "first fit": (),
    "the same again": (),
    "another seed": ("seed=1",),
    "another fusion": ("fusion=logit_sum",),
    "the same again, 5 epochs": ("training.epochs=5",),
}


def fits(path: Path, encoders: tuple[str, ...], changes: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """A row for each fit: its name, seconds, and share of the first one's."""
    rows, first = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in changes.items():
            options = [x for o in ("split.column=split", "split.group=emoji", *EMOJI, *encoders, *overrides) for x in ("--set", o)]
            ignored = [x for c in LEFT_OUT for x in ("--column", f"{c}=ignored")]
            place = ("--root", str(JOBS["emoji"].path.parent), "--out", str(Path(folder) / name))
            command = [sys.executable, "-m", "plait", "fit", str(path), "--target", "group", *place, *options, *ignored]
            begun = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PLAIT_CACHE": str(Path(folder) / "cache")})
            seconds = perf_counter() - begun
            first = first or seconds
            rows.append([name, f"{seconds:.1f}", f"{seconds / first:.1%}"])
            print(*rows[-1], flush=True)
    return rows


def of_usual_size(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """A thousand rows, and a ViT-B/16 for their pictures."""
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder / "vit")
    (folder / "vit" / "preprocessor_config.json").write_text('{"size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    rows = csv.read_csv(JOBS["emoji"].path)
    write(rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:ROWS])), folder / "t.csv")
    return folder / "t.csv", (f"encoders.image={{name: pretrained, model: {folder / 'vit'}}}", "encoders.text=pretrained")


def main() -> None:
    small = fits(JOBS["emoji"].path, PRETRAINED, CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        usual = fits(*of_usual_size(Path(folder)), dict(list(CHANGES.items())[:3]))
    headers = ["", "seconds", "of the first"]
    page("refit.md", f"""# A second fit

Made by `benchmarks/refit.py`; {machine()}, {os.environ.get("OMP_NUM_THREADS", "all")} threads. Emoji, picture and name, frozen encoders; whole
commands, with 2 s of imports.

7,330 rows, EfficientNet-Lite0 (5 million parameters) and MiniLM:

{table(headers, small)}

{ROWS:,} rows, ViT-B/16 (86 million parameters) and MiniLM:

{table(headers, usual)}""")  # fmt: skip


if __name__ == "__main__":
    main()
