"""What is there for small tables, with and without: mixup, gradient blending, rows without a label,
LoRA; over seeds, on two real tables: benchmarks/small.py

Stamps (picture + sentence) and emoji (picture + name, emoji never seen), with frozen pretrained
encoders. For rows without a label most training labels are taken away, the same ones for every model of
a seed. Everything here is off by default.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path

import numpy as np

import plait
from accuracy import JOBS, PRETRAINED, Job
from measure import interval, machine, page, table

FEW = {"stamps": 0.2, "emoji": 0.05}  # of the training labels that are left
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


def hidden(job: Job, key: str, seed: int, folder: Path) -> Path:
    """The table with most labels of training rows taken away; validation and test rows keep theirs."""
    with job.path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chance = random.Random(seed)
    for row in rows:
        if row[job.split] == "train" and chance.random() >= FEW[key]:
            row[job.target] = ""
    path = folder / "few.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def score(key: str, name: str, seed: int) -> tuple[float, float]:
    """Test accuracy, and the seconds of the training."""
    job, overrides = JOBS[key], WITH.get(name, ())
    with job.path.open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    ignored = {
        c: "ignored" for c in columns if c not in (*job.inputs, job.target, job.split, "family", "emoji")
    }
    with tempfile.TemporaryDirectory() as folder:
        data = hidden(job, key, seed, Path(folder)) if name.startswith("few labels") else job.path
        own = (*PRETRAINED, *job.overrides, *overrides)
        model = plait.fit(
            data,
            job.target,
            columns=ignored,
            overrides=own,
            seed=seed,
            root=job.path.parent,
            out=Path(folder) / "run",
            quiet=True,
        )
    found = model.record["evaluation"]["test"]["targets"][job.target]["metrics"]["accuracy"]["value"]
    print(key, name, seed, f"{found:.3f}", f"{model.record['seconds']} s", flush=True)
    return found, model.record["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--lora", action="store_true", help="also on the stamps: six minutes a training without a GPU"
    )
    parser.add_argument("--kept", type=Path, help="a file of scores, for a run that goes on later")
    arguments = parser.parse_args()
    kept = (
        {tuple(k): v for k, v in map(json.loads, arguments.kept.read_text().splitlines())}
        if arguments.kept and arguments.kept.is_file()
        else {}
    )
    rows = []
    for key in FEW:
        scores: dict[str, list[tuple[float, float]]] = {}
        for name in (PLAIN, *(n for n in WITH if n != LORA or (arguments.lora and key == "stamps"))):
            for seed in range(arguments.seeds):
                if (key, name, seed) not in kept:
                    kept[key, name, seed] = score(key, name, seed)
                    if arguments.kept:
                        with arguments.kept.open("a") as file:
                            file.write(json.dumps([[key, name, seed], kept[key, name, seed]]) + "\n")
                scores.setdefault(name, []).append(kept[key, name, seed])
            accuracy, seconds = zip(*scores[name], strict=True)
            before = [a for a, _ in scores[AGAINST.get(name, PLAIN)]]
            added = (
                ""
                if name in (PLAIN, "few labels")
                else interval([a - b for a, b in zip(accuracy, before, strict=True)])
            )
            rows.append([JOBS[key].name, name, interval(accuracy), added, f"{np.median(seconds):.0f}"])
    page(
        "small.md",
        f"""# For small tables: with and without

Made by `benchmarks/small.py`; {machine()}, one thread. Test accuracy over {arguments.seeds} seeds, and what was added to the model without (of
the same seed), with 95 % intervals over seeds. "Few labels": a fifth of the training labels of the stamps, a twentieth of the
emoji's; what rows without a label add is against those. None of this is on by default.

{table(["table", "", "accuracy", "added", "seconds of a training"], rows)}""",
    )


if __name__ == "__main__":
    main()
