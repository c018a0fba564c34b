"""Holes: one model for every subset of the inputs, against one model trained for exactly that subset; and what sound and speech
add to picture and sentence: benchmarks/missing.py

The stamps, with their own split. Nothing here was chosen by looking at the test rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import plait
from measure import interval, machine, page, table
from plait.samples import stamps

CACHE = Path.home() / ".cache" / "plait" / "samples" / "stamps"
INPUTS = ("picture", "sentence", "sound", "speech")
OTHERS = ("stamp", "style", "languages")


def fit(path: Path, inputs: tuple[str, ...], seed: int, kept: Path | None) -> dict[tuple[str, ...], float]:
    """Test accuracy of a model trained on these inputs, for each subset of them; looked up in the file `kept`, and left there."""
    if kept and kept.is_file():
        for line in map(json.loads, kept.read_text().splitlines()):
            if (tuple(line["inputs"]), line["seed"]) == (inputs, seed):
                return {tuple(subset): score for subset, score in line["scores"]}
    ignored = {c: "ignored" for c in (*INPUTS, *OTHERS) if c not in inputs}
    with tempfile.TemporaryDirectory() as folder:
        model = plait.fit(path, "category", columns=ignored, overrides=stamps.OVERRIDES, seed=seed, out=folder, quiet=True)
    found: dict[str, Any] = model.record["evaluation"]["test"]["targets"]["category"]
    scores = {inputs: found["metrics"]["accuracy"]["value"]}
    scores |= {tuple(subset): score["value"] for subset, score in found["subsets"]}
    print(inputs, seed, f"{scores[inputs]:.3f}", f"{model.record['seconds']} s", flush=True)
    if kept:
        with kept.open("a") as file:
            file.write(json.dumps({"inputs": inputs, "seed": seed, "scores": list(scores.items())}) + "\n")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--own-seeds", type=int, default=5, help="of the models trained for one subset")
    parser.add_argument("--kept", type=Path, help="a file of scores, for a run that goes on later or in two halves")
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    path = stamps.fetch(arguments.cache)
    whole = [fit(path, INPUTS, seed, arguments.kept) for seed in range(arguments.seeds)]
    pair = [fit(path, INPUTS[:2], seed, arguments.kept)[INPUTS[:2]] for seed in range(arguments.seeds)]
    rows, apart = [], []
    for size in range(1, len(INPUTS)):
        for subset in itertools.combinations(INPUTS, size):
            one = [scores[subset] for scores in whole]
            own = pair if subset == INPUTS[:2] else [fit(path, subset, seed, arguments.kept)[subset] for seed in range(arguments.own_seeds)]
            apart.append(float(np.mean(one) - np.mean(own)))
            rows.append([" + ".join(subset), interval(one), interval(own), f"{apart[-1]:+.3f}"])
    every = [scores[INPUTS] for scores in whole]
    added = [a - b for a, b in zip(every, pair, strict=True)]
    rows.append([" + ".join(INPUTS), interval(every), "", ""])
    page("missing.md", f"""# Holes: the stamps

Made by `benchmarks/missing.py` with the default recipe; {machine()}. Test accuracy, means over {arguments.seeds} seeds of the
one model for everything, {arguments.own_seeds} of each model of its own, with 95 % intervals over seeds. There are some 125 test rows: the
binomial standard error of one score is about 0.044.

{table(["given at the test", "one model, trained on all four", "a model of its own", "difference"], rows)}

The one model is {min(apart):+.3f} to {max(apart):+.3f} from the models of their own, {np.mean(apart):+.3f} on average. Sound and speech change
picture and sentence by {interval(added)}.""")  # fmt: skip


if __name__ == "__main__":
    main()
