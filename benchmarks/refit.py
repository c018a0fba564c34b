"""A second fit, on the vectors that the first one left in the cache, beside the first: benchmarks/refit.py

The emoji (picture + name, frozen encoders), each fit in a process of its own, with a cache that begins
empty. Times are those of the complete command, with its start, evaluation and report. Once with the small
networks that come in packages, and once with one of the size that most people use for images (ViT-B/16:
its weights are random, which makes no difference to the time).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import standins
from accuracy import EMOJI, JOBS, PRETRAINED, QUICK, quick_jobs
from measure import machine, page, read_arguments, table

LEFT_OUT = ("vendor", "tags", "vendor_split")
CHANGES = {
    "first fit": (),
    "the same again": (),
    "another seed": ("seed=1",),
    "another fusion": ("fusion=logit_sum",),
    "the same again, 5 epochs": ("training.epochs=5",),
}


SECOND_FITS = ("first fit", "the same again", "another seed")  # with the larger network


def fits(overrides: tuple[str, ...], changes: tuple[str, ...]) -> list[list[str]]:
    """Fit the emoji with each change. Return the name, seconds, and share of the first fit's seconds."""
    lines, first = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "PLAIT_CACHE": str(folder / "cache")}
        for change in changes:
            arguments = ["--target", "group", "--out", str(folder / change)]
            for override in (*overrides, *CHANGES[change], "quality=network"):
                arguments += ["--set", override]
            for column in LEFT_OUT:
                arguments += ["--column", f"{column}=ignored"]
            command = [sys.executable, "-m", "plait", "fit", str(JOBS["emoji"].path), *arguments]
            begun = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            seconds = perf_counter() - begun
            first = first or seconds
            lines.append([change, f"{seconds:.1f}", f"{seconds / first:.1%}"])
            print(*lines[-1], flush=True)
    return lines


def usual_network(folder: Path) -> Path:
    """Save a ViT-B/16 with random weights."""
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return folder


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    common = ("split.column=split", "split.group=emoji", *EMOJI)
    changes, second_changes = tuple(CHANGES), SECOND_FITS
    if arguments.quick:
        quick_jobs()
        common, changes, second_changes = (*common, *QUICK), changes[:1], changes[:1]
    small = fits((*common, *PRETRAINED), changes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vit"
        model = standins.image_network(folder) if arguments.quick else usual_network(folder)
        image = f"encoders.image={{name: pretrained, model: {model}}}"
        usual = fits((*common, image, "encoders.text=pretrained"), second_changes)
    headers, threads = ["", "seconds", "of the first"], os.environ.get("OMP_NUM_THREADS", "all")
    page(
        "refit.md",
        f"""# A second fit

Made by `benchmarks/refit.py`; {machine()}, {threads} threads. 7,330 emoji, picture and name, frozen
encoders; complete commands, with 2 s of imports.

EfficientNet-Lite0 (5 million parameters) and MiniLM:

{table(headers, small)}

ViT-B/16 (86 million parameters) and MiniLM:

{table(headers, usual)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
