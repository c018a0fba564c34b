"""A second fit on the vectors that the first has left in the cache, against the first: benchmarks/refit.py

The emoji (picture + name, frozen encoders), each fit in a process of its own, with a cache that begins
empty. Times are those of the whole command, with its start, evaluation and report. Once with the small
networks that come in packages, and once with one of the size that most people take for pictures
(ViT-B/16: its weights are random, which makes no difference to the time).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from accuracy import EMOJI, JOBS, PRETRAINED
from measure import machine, page, table

LEFT_OUT = ("vendor", "tags", "vendor_split")
CHANGES = {
    "first fit": (),
    "the same again": (),
    "another seed": ("seed=1",),
    "another fusion": ("fusion=logit_sum",),
    "the same again, 5 epochs": ("training.epochs=5",),
}


def fits(encoders: tuple[str, ...], changes: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """A row for each fit: its name, seconds, and share of the first one's."""
    rows, first = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in changes.items():
            options = [
                x
                for o in ("split.column=split", "split.group=emoji", *EMOJI, *encoders, *overrides)
                for x in ("--set", o)
            ]
            ignored = [x for c in LEFT_OUT for x in ("--column", f"{c}=ignored")]
            command = [
                sys.executable,
                "-m",
                "plait",
                "fit",
                str(JOBS["emoji"].path),
                "--target",
                "group",
                "--out",
                str(Path(folder) / name),
            ]
            command += [*options, *ignored]
            begun = perf_counter()
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                env={**os.environ, "PLAIT_CACHE": str(Path(folder) / "cache")},
            )
            seconds = perf_counter() - begun
            first = first or seconds
            rows.append([name, f"{seconds:.1f}", f"{seconds / first:.1%}"])
            print(*rows[-1], flush=True)
    return rows


def of_usual_size(folder: Path) -> tuple[str, ...]:
    """A ViT-B/16 for the pictures."""
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder / "vit")
    (folder / "vit" / "preprocessor_config.json").write_text(
        '{"size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return f"encoders.image={{name: pretrained, model: {folder / 'vit'}}}", "encoders.text=pretrained"


def main() -> None:
    small = fits(PRETRAINED, CHANGES)
    with tempfile.TemporaryDirectory() as folder:
        usual = fits(of_usual_size(Path(folder)), dict(list(CHANGES.items())[:3]))
    headers = ["", "seconds", "of the first"]
    page(
        "refit.md",
        f"""# A second fit

Made by `benchmarks/refit.py`; {machine()}, {os.environ.get("OMP_NUM_THREADS", "all")} threads. 7,330 emoji, picture and name, frozen encoders;
whole commands, with 2 s of imports.

EfficientNet-Lite0 (5 million parameters) and MiniLM:

{table(headers, small)}

ViT-B/16 (86 million parameters) and MiniLM:

{table(headers, usual)}""",
    )


if __name__ == "__main__":
    main()
