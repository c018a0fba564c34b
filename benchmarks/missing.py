"""Missing inputs: one model for every subset of the inputs, beside a model for each: benchmarks/missing.py

Each of the latter is trained for exactly that subset. Also: what sound and speech add to picture and
sentence. The stamps are dealt into five folds, families together; each seed tests on another fold, all
models of a seed on the same. Nothing here was chosen by looking at the test rows of a model. `--scores` is
a file of scores, for a run that goes on later or in two halves.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import plait
from accuracy import FOLDS, GROUPED, Job, quick_jobs
from measure import interval, machine, page, read_arguments, remembered, table
from plait.samples import stamps
from plait.table.write import write

INPUTS = ("picture", "sentence", "sound", "speech")
PAIR = INPUTS[:2]
OTHERS = ("stamp", "style", "languages")
JOB = Job("stamps", stamps, "category", INPUTS, group="family", overrides=GROUPED)
SUBSETS = [s for size in range(1, len(INPUTS)) for s in itertools.combinations(INPUTS, size)]


class Seeds(NamedTuple):
    """How many seeds the model of all inputs has, and how many the models for one subset."""

    all_inputs: int
    subset: int


def fit(inputs: tuple[str, ...], seed: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train a model on these inputs.

    Return its test accuracy for each subset of them, the number of test rows, and the seconds.
    """
    rows = JOB.table(seed)
    options = {
        "columns": {column: "ignored" for column in (*INPUTS, *OTHERS) if column not in inputs},
        "overrides": (*overrides, "quality=network"),
        "seed": seed,
        "root": JOB.path.parent,
        "quiet": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        write(pa.table(rows), Path(folder) / "t.csv")
        model = plait.fit(Path(folder) / "t.csv", JOB.target, out=Path(folder) / "run", **options)
    evaluation = model.record["evaluation"]["test"]["targets"][JOB.target]
    scores = {name_of(inputs): evaluation["metrics"]["accuracy"]["value"]}
    scores |= {name_of(tuple(subset)): score["value"] for subset, score in evaluation["subsets"]}
    return {"scores": scores, "rows": rows[JOB.split].count("test"), "seconds": model.record["seconds"]}


def name_of(inputs: tuple[str, ...]) -> str:
    return " + ".join(inputs)


def models(seeds: Seeds) -> Iterator[tuple[tuple[str, ...], int]]:
    """Name the inputs and the seed of each model: first those with all inputs, and with two."""
    for inputs in (INPUTS, PAIR):
        yield from ((inputs, seed) for seed in range(seeds.all_inputs))
    for seed in range(seeds.subset):
        yield from ((subset, seed) for subset in SUBSETS if subset != PAIR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=FOLDS)
    parser.add_argument("--subset-seeds", type=int, default=FOLDS, help="of the models for one subset")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        help="K of N: only these models, for two runs side by side; no page",
    )
    arguments = read_arguments(parser, scores="missing.jsonl")
    seeds, overrides = Seeds(arguments.seeds, arguments.subset_seeds), GROUPED
    if arguments.quick:
        seeds, overrides = Seeds(1, 1), quick_jobs()["stamps"].overrides

    number, count = arguments.part
    work = []
    for inputs, seed in list(models(seeds))[number::count]:
        work.append((f"{name_of(inputs)} {seed}", partial(fit, inputs, seed, overrides)))
    scores = remembered(arguments.scores, work)
    if count == 1:
        page("missing.md", report(scores, seeds), arguments)


def report(scores: dict[str, Any], seeds: Seeds) -> str:
    shared = [scores[f"{name_of(INPUTS)} {seed}"] for seed in range(seeds.all_inputs)]
    lines, differences = [], []
    for name in map(name_of, SUBSETS):
        # a file of scores may have more seeds of one subset than of another
        tried = [seed for seed in range(seeds.all_inputs) if f"{name} {seed}" in scores]
        separate = [scores[f"{name} {seed}"]["scores"][name] for seed in tried]
        together = [shared[seed]["scores"][name] for seed in tried]
        differences.append([a - b for a, b in zip(together, separate, strict=True)])
        lines.append([name, interval(together), interval(separate), interval(differences[-1]), len(tried)])

    complete = [run["scores"][name_of(INPUTS)] for run in shared]
    lines.append([name_of(INPUTS), interval(complete), "", "", seeds.all_inputs])
    added = []
    for seed in range(seeds.all_inputs):
        added.append(complete[seed] - scores[f"{name_of(PAIR)} {seed}"]["scores"][name_of(PAIR)])

    means = [np.mean(values) for values in differences]
    average = interval(list(np.mean([values[: seeds.subset] for values in differences], 0)))
    tested = sum(run["rows"] for run in shared)
    compared = sum(run["rows"] for run in shared[: seeds.subset])
    headers = ["given at the test", "one model, trained on all four", "a model for the subset"]
    headers += ["difference", "seeds"]
    return f"""# Missing inputs: the stamps

Made by `benchmarks/missing.py` with the default recipe; {machine()}. Test accuracy, with 95 % intervals over
seeds, each of which tests on another fifth of the families, all models on the same: {seeds.subset} seeds
test on {compared} rows, {seeds.all_inputs} on {tested}.

{table(headers, lines)}

The one model is {min(means):+.3f} to {max(means):+.3f} from the models for a subset, {average} on average
({seeds.subset} seeds). Sound and speech change picture and sentence by {interval(added)}
({seeds.all_inputs} seeds)."""


if __name__ == "__main__":
    main()
