"""The table of three hidden bits, made by a script given with --table's folder, which needs all of its
columns: accuracy and error of the default recipe over seeds, clean and with holes: benchmarks/bits.py
--table FOLDER

The folder holds all.clean.csv and all.missing30.csv with columns image, text, audio, number, category,
label, y, split.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import plait
from measure import machine, page, remembered, table

METRIC = {"label": "accuracy", "y": "rmse"}
BEST = {"label": 0.457, "y": 0.82}  # of any other tool measured, clean


def score(folder: Path, variant: str, target: str, seed: int) -> tuple[float, float]:
    """On the table's own test rows; and the seconds that training took."""
    ignored = {c: "ignored" for c in ("label", "label4", "y") if c != target}
    with tempfile.TemporaryDirectory() as out:
        model = plait.fit(
            folder / f"all.{variant}.csv", target, columns=ignored, seed=seed, out=out, quiet=True
        )
    found = model.record["evaluation"]["test"]["targets"][target]["metrics"][METRIC[target]]["value"]
    print(variant, target, seed, f"{found:.3f}", f"{model.record['seconds']} s", flush=True)
    return found, model.record["seconds"]


def perfect(holes: float, rows: int = 400_000) -> dict[str, float]:
    """What a reader with perfect senses reaches who knows the odds by which the table was drawn, with
    this share of the cells empty: the best accuracy and error that there are, by drawing rows.
    """
    rng = np.random.default_rng(0)
    kinds = np.array(
        [[0.36, 0.24, 0.16, 0.14, 0.10], [0.10, 0.14, 0.16, 0.24, 0.36]]
    )  # of the five categories, by the pitch bit
    worth = np.array([-0.6, 0.3, 0.0, 0.7, -0.2])
    wrong = {"image": 0.04, "text": 0.08, "audio": 0.04}
    pitches = np.log2([[180, 420], [800, 1900]]) - np.log2(560)
    colour, pitch = rng.integers(0, 2, (2, rows))
    said, heard = colour ^ (rng.random(rows) < wrong["text"]), pitch ^ (rng.random(rows) < wrong["audio"])
    radius, size = (rng.uniform(16, 34, rows) - 25) / 6, 0.5 * (rng.integers(5, size=rows) - 2.0)
    tone = rng.uniform(pitches[heard, 0], pitches[heard, 1])
    number = rng.normal(np.where(colour == 1, 0.6, -0.6), 1)
    kind = (rng.random(rows)[:, None] > kinds.cumsum(1)[pitch]).sum(1)
    y = radius + size + 0.7 * tone + 0.8 * number + worth[kind] + rng.normal(0, 0.3, rows)
    picture, text, sound, has_number, has_kind = rng.random((5, rows)) >= holes
    # log odds of a bit from each witness that is there
    by_text = text * np.log(1 / wrong["text"] - 1) * (2 * said - 1)
    by_sound = sound * np.log(1 / wrong["audio"] - 1) * (2 * heard - 1)
    by_kind = has_kind * np.log(kinds[1] / kinds[0])[kind]
    sure = [
        1 / (1 + np.exp(-np.abs(odds))) for odds in (by_text + has_number * 1.2 * number, by_sound + by_kind)
    ]
    right = np.where(picture, 1 - wrong["image"], 0.5) * sure[0] * sure[1]
    is_warm, is_high, sounds_high = (1 / (1 + np.exp(-odds)) for odds in (by_text, by_sound, by_kind))
    sounds_high = sounds_high * (1 - wrong["audio"]) + (1 - sounds_high) * wrong["audio"]
    guess = np.where(picture, radius, 0) + np.where(text, size, 0)
    guess += 0.7 * np.where(
        sound, tone, pitches.mean(1)[0] * (1 - sounds_high) + pitches.mean(1)[1] * sounds_high
    )
    guess += 0.8 * np.where(has_number, number, 0.6 * (2 * is_warm - 1))
    guess += np.where(has_kind, worth[kind], kinds[0] @ worth * (1 - is_high) + kinds[1] @ worth * is_high)
    return {"label": float(right.mean()), "y": float(((y - guess) ** 2).mean() ** 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--holes-seeds", type=int, default=3)
    parser.add_argument(
        "--kept", type=Path, default=Path("bits.jsonl"), help="a file of scores, for a run that goes on later"
    )
    arguments = parser.parse_args()
    seeds_of = {"clean": arguments.seeds, "missing30": arguments.holes_seeds}
    tried = [
        (variant, target, seed)
        for variant in seeds_of
        for target in METRIC
        for seed in range(seeds_of[variant])
    ]
    work = [(" ".join(map(str, one)), lambda one=one: score(arguments.table, *one)) for one in tried]
    kept = remembered(arguments.kept, work)
    rows = []
    for variant, holes in (("clean", 0.0), ("missing30", 0.3)):
        best = perfect(holes)
        for target in METRIC:
            found = [kept[f"{variant} {target} {seed}"] for seed in range(seeds_of[variant])]
            values = [v for v, _ in found]
            each = ", ".join(f"{v:.3f}" for v in values)
            seconds = f"{np.median([s for _, s in found]):.0f}"
            figures = [f"{v:.3f}" for v in (np.mean(values), BEST[target], best[target])]
            rows.append([variant, f"{target}, {METRIC[target]}", figures[0], each, *figures[1:], seconds])
    headers = [
        "table",
        "target",
        "mean",
        "each seed",
        "best other tool, clean table",
        "perfect senses",
        "seconds of a training",
    ]
    page(
        "bits.md",
        f"""# A table that needs all of its columns

Made by `benchmarks/bits.py` with the default recipe, 1,000 rows to train, 200 to validate, 300 to test; {machine()}. A picture, a
text, a sound, a number and a category tell three hidden bits (`label`, eight classes) and a number (`y`, standard deviation 1.79). The
majority class is 0.138. `missing30` has 30 % of the cells empty on every side. "Perfect senses" is what a reader reaches who takes every
cell that is there for what it is and knows the odds by which the table was drawn: nothing can be expected to do better. The other tools'
best figures (Keras, one seed, 20 epochs) were measured on the clean table, on such a machine, with scripts of their own.

{table(headers, rows)}""",
    )


if __name__ == "__main__":
    main()
