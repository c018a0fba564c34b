"""Holes: one model for every subset of the inputs, against one model trained for exactly that subset;
and what sound and speech add to picture and sentence: benchmarks/missing.py

The stamps, dealt into five parts, families together; each seed tests on another part, all models of a
seed on the same. Nothing here was chosen by looking at the test rows of a model. `--kept` is a file of
scores, for a run that goes on later or in two halves.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import plait
from accuracy import GROUPED, PARTS, Job
from measure import interval, machine, page, remembered, table
from plait.samples import stamps
from plait.table.write import write

INPUTS = ("picture", "sentence", "sound", "speech")
OTHERS = ("stamp", "style", "languages")
JOB = Job("stamps", stamps, "category", INPUTS, group="family", overrides=GROUPED)


def fit(inputs: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Test accuracy of a model trained on these inputs, for each subset of them, and the number of test
    rows.
    """
    ignored = {c: "ignored" for c in (*INPUTS, *OTHERS) if c not in inputs}
    rows = JOB.table(seed)
    with tempfile.TemporaryDirectory() as folder:
        write(pa.table(rows), Path(folder) / "t.csv")
        named = {
            "columns": ignored,
            "overrides": GROUPED,
            "seed": seed,
            "root": JOB.path.parent,
            "quiet": True,
        }
        model = plait.fit(Path(folder) / "t.csv", JOB.target, out=Path(folder) / "run", **named)
    found = model.record["evaluation"]["test"]["targets"][JOB.target]
    scores = {named_by(inputs): found["metrics"]["accuracy"]["value"]}
    scores |= {named_by(tuple(subset)): score["value"] for subset, score in found["subsets"]}
    return {"scores": scores, "rows": rows[JOB.split].count("test"), "seconds": model.record["seconds"]}


def named_by(inputs: tuple[str, ...]) -> str:
    return " + ".join(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=PARTS)
    parser.add_argument("--own-seeds", type=int, default=PARTS, help="of the models trained for one subset")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        help="K of N: only these models, for two runs side by side; no page",
    )
    parser.add_argument("--kept", type=Path, default=Path("missing.jsonl"))
    arguments = parser.parse_args()
    subsets = [s for size in range(1, len(INPUTS)) for s in itertools.combinations(INPUTS, size)]
    wanted = [(INPUTS, seed) for seed in range(arguments.seeds)] + [
        (INPUTS[:2], seed) for seed in range(arguments.seeds)
    ]
    wanted += [
        (subset, seed) for seed in range(arguments.own_seeds) for subset in subsets if subset != INPUTS[:2]
    ]
    number, of = arguments.part
    work = [
        (f"{named_by(inputs)} {seed}", lambda i=inputs, s=seed: fit(i, s))
        for inputs, seed in wanted[number::of]
    ]
    found = remembered(arguments.kept, work)
    if of > 1:
        return
    every = [found[f"{named_by(INPUTS)} {seed}"] for seed in range(arguments.seeds)]
    lines, apart = [], []
    for name in map(named_by, subsets):
        tried = [
            seed for seed in range(arguments.seeds) if f"{name} {seed}" in found
        ]  # some may have been tried more often
        own = [found[f"{name} {seed}"]["scores"][name] for seed in tried]
        one = [every[seed]["scores"][name] for seed in tried]
        apart.append([a - b for a, b in zip(one, own, strict=True)])
        lines.append([name, interval(one), interval(own), interval(apart[-1]), len(tried)])
    whole = [run["scores"][named_by(INPUTS)] for run in every]
    pair = [
        found[f"{named_by(INPUTS[:2])} {seed}"]["scores"][named_by(INPUTS[:2])]
        for seed in range(arguments.seeds)
    ]
    lines.append([named_by(INPUTS), interval(whole), "", "", arguments.seeds])
    added = [a - b for a, b in zip(whole, pair, strict=True)]
    means, average = (
        [np.mean(some) for some in apart],
        interval(list(np.mean([some[: arguments.own_seeds] for some in apart], 0))),
    )
    tested, compared = (sum(run["rows"] for run in some) for some in (every, every[: arguments.own_seeds]))
    page(
        "missing.md",
        f"""# Holes: the stamps

Made by `benchmarks/missing.py` with the default recipe; {machine()}. Test accuracy, with 95 % intervals over seeds, each of
which tests on another fifth of the families, all models on the same: {arguments.own_seeds} seeds test on {compared} rows,
{arguments.seeds} on {tested}.

{table(["given at the test", "one model, trained on all four", "a model of its own", "difference", "seeds"], lines)}

The one model is {min(means):+.3f} to {max(means):+.3f} from the models of their own, {average} on average
({arguments.own_seeds} seeds). Sound and speech change picture and sentence by {interval(added)} ({arguments.seeds} seeds).""",
    )


if __name__ == "__main__":
    main()
