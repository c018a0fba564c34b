"""How honest out-of-fold scores are, and what that costs: benchmarks/out_of_fold.py

On tables of noise, where nothing can be learned, the out-of-fold log loss of an ensemble must be that of its
test rows. On real tables, the errors of `quality=good` on test rows say whether a choice is worse for being
honest. `--code` names the code that runs: with `--scores`, runs of several versions go on one page.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine, make_friedman1

import plait
from measure import interval, machine, page, read_arguments, remembered, sample_table, table
from plait.samples import stamps

TARGET = "target"
MOST_ROWS = 800  # of a table that is given; others have fewer
EPOCHS = "training.epochs=10"  # of the run's own network: the members are what is measured
TEST = "split.test=0.4"

Job = Callable[[int], dict[str, float]]


def noise(seed: int, rows: int = 240) -> dict[str, float]:
    """Fit ten columns of noise to labels that were drawn by lot."""
    rng = np.random.default_rng(seed)
    cells = pd.DataFrame(rng.normal(size=(rows, 10))).add_prefix("x")
    cells[TARGET] = rng.choice(["no", "yes"], rows)
    return fit(cells, TARGET, seed, ("split.test=0.5",))


def scikit_learn(load: Callable[..., Any], seed: int) -> dict[str, float]:
    cells = load(as_frame=True).frame
    if load is not load_diabetes:
        cells[TARGET] = "class " + cells[TARGET].astype(str)
    return fit(cells, TARGET, seed, (TEST,))


def friedman(seed: int) -> dict[str, float]:
    """Fit a function that trees and lines share: ten numbers, of which five matter (Friedman 1991)."""
    x, y = make_friedman1(400, noise=1.0, random_state=0)
    return fit(pd.DataFrame(x).add_prefix("x").assign(target=y), TARGET, seed, (TEST,))


def of_stamps(seed: int) -> dict[str, float]:
    """Fit the category of stamps to their pictures and sentences."""
    path = sample_table(stamps)
    cells = pd.read_csv(path)[["picture", "sentence", stamps.TARGET]]
    options = (TEST, "modalities.image.size=32", "columns.sentence.modality=text")
    return fit(cells, stamps.TARGET, seed, options, path.parent)


def given(file: Path, target: str, seed: int) -> dict[str, float]:
    """Fit some rows of a table that the command line names."""
    return fit(pd.read_csv(file).sample(MOST_ROWS, random_state=0), target, seed, (TEST,))


def fit(
    cells: pd.DataFrame, target: str, seed: int, options: tuple[str, ...], root: Path | None = None
) -> dict[str, float]:
    """Fit `quality=good`. Return errors out of fold and on test rows, as shares of the baseline's.

    An error is the log loss, or the root of the squared error.
    """
    with tempfile.TemporaryDirectory() as folder:
        begun = perf_counter()
        model = plait.fit(
            cells,
            target,
            root=root,
            out=Path(folder) / "run",
            overrides=[EPOCHS, *options],
            seed=seed,
            quality="good",
            quiet=True,
        )
        seconds = perf_counter() - begun
    errors = {"seconds": seconds}
    for side in ("validation", "test"):
        scores = model.record["evaluation"][side]["targets"][target]
        metric = "log_loss" if "log_loss" in scores["metrics"] else "rmse"
        errors[side] = scores["metrics"][metric]["value"] / scores["baseline"][metric]
        errors[f"{side} absolute"] = scores["metrics"][metric]["value"]
    return errors


TABLES: dict[str, Job] = {
    "breast cancer": partial(scikit_learn, load_breast_cancer),
    "wine": partial(scikit_learn, load_wine),
    "diabetes": partial(scikit_learn, load_diabetes),
    "Friedman's function": friedman,
    "stamps, picture and sentence": of_stamps,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--code", default="now", help="a name for the code that runs")
    parser.add_argument("--noise", type=int, default=40, help="tables of noise")
    parser.add_argument("--seeds", type=int, default=3, help="splits of each real table")
    parser.add_argument(
        "--table", nargs=2, action="append", default=[], metavar=("FILE", "TARGET"), help="one more table"
    )
    arguments = read_arguments(parser, scores="out_of_fold.jsonl")
    torch.set_num_threads(1)

    jobs: dict[str, Job] = {"noise": noise, **TABLES}
    for file, target in arguments.table:
        jobs[Path(file).stem] = partial(given, Path(file), target)
    if arguments.quick:
        jobs = {"noise": partial(noise, rows=60), "wine": TABLES["wine"]}
        arguments.noise = arguments.seeds = 1

    work = []
    for name, job in jobs.items():
        for seed in range(arguments.noise if name == "noise" else arguments.seeds):
            work.append((f"{arguments.code}/{name}/{seed}", partial(job, seed)))
    page("out_of_fold.md", report(remembered(arguments.scores, work)), arguments)


def report(scores: dict[str, dict[str, float]]) -> str:
    by_code: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, errors in scores.items():
        code, name, _ = key.split("/")
        by_code.setdefault(code, {}).setdefault(name, []).append(errors)

    gaps: list[list[object]] = []
    errors_lines: list[list[object]] = []
    for code, by_table in by_code.items():
        if "noise" in by_table:
            runs = by_table.pop("noise")
            differences = [run["validation absolute"] - run["test absolute"] for run in runs]
            gaps.append([code, len(runs), interval(differences)])
        for name, runs in by_table.items():
            columns = [interval([run[side] for run in runs]) for side in ("validation", "test")]
            seconds = np.mean([run["seconds"] for run in runs])
            errors_lines.append([name, code, *columns, f"{seconds:.0f}"])
    errors_lines.sort(key=lambda line: str(line[0]))
    paired = paired_differences(scores)
    between = ""
    for code, differences in paired.items():
        count = len(differences)
        between += (
            f"\n\n{code} - {next(iter(by_code))} on test rows, of {count} pairs: {interval(differences)}"
        )
    noise_table = table(["code", "tables", "log loss out of fold - on test rows"], gaps)
    headers = ["table", "code", "error out of fold", "error on test rows", "seconds"]
    return f"""# Out-of-fold scores

Made by `benchmarks/out_of_fold.py`; {machine()}, one thread. `quality=good`, with 95 % intervals.

Ten columns of noise and labels drawn by lot, 120 rows to train on and 120 to test:

{noise_table}

Real tables, with 40 % of the rows to test, in units of the baseline's error (log loss of classes, root of
the squared error of numbers):

{table(headers, errors_lines)}{between}"""


def paired_differences(scores: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    """Return how much larger each code's errors on test rows are than those of the first code."""
    first = next(iter(scores)).split("/")[0]
    differences: dict[str, list[float]] = {}
    for key, errors in scores.items():
        code, name, seed = key.split("/")
        other = scores.get(f"{first}/{name}/{seed}")
        if code != first and name != "noise" and other:
            differences.setdefault(code, []).append(errors["test"] - other["test"])
    return differences


if __name__ == "__main__":
    main()
