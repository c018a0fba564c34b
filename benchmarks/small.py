"""Options for small tables, with and without, on two real tables: benchmarks/small.py

Mixup, gradient blending, rows without a label, LoRA. Stamps (picture + sentence) and emoji (picture +
name, emoji never seen), with frozen pretrained encoders. For rows without a label most training labels are
taken away, the same ones for every model of a seed. Everything here is off by default.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import plait
from accuracy import JOBS, PRETRAINED, Job, quick_jobs
from measure import interval, machine, page, read_arguments, remembered, table

FEW = {"stamps": 0.2, "emoji": 0.05}  # of the training labels that stay
LORA = "LoRA of the text encoder"
WITH = {
    "mixup, alpha 0.2": ("training.mixup=0.2",),
    "mixup, alpha 1": ("training.mixup=1",),
    "gradient blending": ("model.balance=blend",),
    "few labels": (),
    "few labels, and rows without one": ("training.unlabelled=1",),
    LORA: ("encoders.text={name: pretrained, mode: lora}",),
}
AGAINST = {"few labels, and rows without one": "few labels"}
PLAIN = "frozen encoders"


def hidden(job: Job, share: float, seed: int, folder: Path) -> Path:
    """Take all labels but a share away from training rows, none from other rows. Return the table."""
    with job.path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chance = random.Random(seed)
    for row in rows:
        if row[job.split] == "train" and chance.random() >= share:
            row[job.target] = ""
    path = folder / "few.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def score(job: Job, name: str, seed: int, share: float) -> tuple[float, float]:
    """Fit a table with an option. Return the test accuracy, and the seconds of the training.

    `share` is that of the labels that stay where there are few.
    """
    with job.path.open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    used = (*job.inputs, job.target, job.split, "family", "emoji")
    options = {
        "columns": {column: "ignored" for column in columns if column not in used},
        "overrides": ("quality=network", *PRETRAINED, *job.overrides, *WITH.get(name, ())),
        "seed": seed,
        "root": job.path.parent,
        "quiet": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        data = hidden(job, share, seed, Path(folder)) if name.startswith("few labels") else job.path
        model = plait.fit(data, job.target, out=Path(folder) / "run", **options)
    accuracy = model.record["evaluation"]["test"]["targets"][job.target]["metrics"]["accuracy"]["value"]
    print(job.name, name, seed, f"{accuracy:.3f}", f"{model.record['seconds']} s", flush=True)
    return accuracy, model.record["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--lora", action="store_true", help="also on the stamps: six minutes a training without a GPU"
    )
    arguments = read_arguments(parser, scores="small.jsonl")
    jobs, seeds, few = JOBS, arguments.seeds, FEW
    if arguments.quick:
        jobs, seeds, few = quick_jobs(), 1, dict.fromkeys(FEW, 0.5)

    models = [(key, name) for key in FEW for name in (PLAIN, *WITH) if name != LORA]
    if arguments.lora:
        models.append(("stamps", LORA))
    work = []
    for key, name in models:
        for seed in range(seeds):
            call = partial(score, jobs[key], name, seed, few[key])
            work.append((f"{key} {name} {seed}", call))
    scores = remembered(arguments.scores, work)
    page("small.md", report(models, scores, seeds), arguments)


def report(models: list[tuple[str, str]], scores: dict[str, tuple[float, float]], seeds: int) -> str:
    lines = []
    for key, name in models:
        accuracy, durations = zip(*(scores[f"{key} {name} {seed}"] for seed in range(seeds)), strict=True)
        differences = []
        for seed in range(seeds) if name not in (PLAIN, "few labels") else ():
            without, _ = scores[f"{key} {AGAINST.get(name, PLAIN)} {seed}"]
            differences.append(accuracy[seed] - without)
        added = interval(differences) if differences else ""
        lines.append([JOBS[key].name, name, interval(accuracy), added, f"{np.median(durations):.0f}"])
    return f"""# Options for small tables, with and without

Made by `benchmarks/small.py`; {machine()}, one thread. Test accuracy over {seeds} seeds, and the
difference to the same model without the option (of the same seed), with 95 % intervals over seeds.
"Few labels": a fifth of the training labels of the stamps, a twentieth of the emoji's; rows without one are
compared with those. None of this is on by default.

{table(["table", "", "accuracy", "added", "seconds of a training"], lines)}"""


if __name__ == "__main__":
    main()
