"""Two tables of texts and numbers, on folds with published results: benchmarks/multabench.py --folder FOLDER

The folder holds `goodreads.csv` and `bikewale.csv`, out of the pool of MulTaBench
(github.com/alanarazi7/MulTaBench, a benchmark of 2026, from which the splits and the scores of all other
models are). A fold tests on a tenth of the rows, drawn with seed 42 + its number; the others train. The
score is R2.

Nothing may be chosen by these test rows. So each run is added to a file with its commit, and a fold is not
run twice at one commit. `--only-scores` trains nothing, and writes the page of the newest scores.

To choose between settings, `--inner` tests on a tenth of each fold's training rows, and logs nothing:
`--inner --set "ensemble.members={trees: trees}"`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split

import plait
from measure import commit_hash, machine, page, read_arguments, table

FOLDS = 5
FIRST_SEED = 42
MOST_TESTED = 2000  # rows of a fold
QUALITIES = ("fast", "good", "best")
LOG = Path(__file__).parent / "scores" / "multabench.jsonl"
QUICK = ("training.epochs=1", "ensemble.members={trees: {name: trees, rounds: 5}}", "ensemble.folds=2")


@dataclass(frozen=True)
class Job:
    """A table: its target, the columns that only number its rows, and the published scores of each fold.

    "tuned" means that a model's text encoder was trained on the training rows, on a GPU.
    """

    target: str
    numbering: tuple[str, ...]
    peers: dict[str, tuple[float, ...]]


JOBS = {
    "goodreads": Job(
        "Rating",
        ("ID",),
        {
            "random forest, frozen": (0.851, 0.863, 0.813, 0.844, 0.895),
            "CatBoost, tuned": (0.854, 0.861, 0.815, 0.845, 0.886),
            "TabM, frozen": (0.845, 0.860, 0.806, 0.838, 0.893),
            "LightGBM, frozen": (0.849, 0.857, 0.804, 0.832, 0.896),
            "TabPFN-2.5, frozen": (0.834, 0.851, 0.797, 0.827, 0.876),
            "TabICLv2, frozen": (0.779, 0.806, 0.767, 0.755, 0.854),
        },
    ),
    "bikewale": Job(
        "price",
        ("id",),
        {
            "TabICLv2, tuned": (0.713, 0.736, 0.701, 0.817, 0.696),
            "TabICLv2, frozen": (0.624, 0.724, 0.635, 0.767, 0.772),
            "CatBoost, tuned": (0.651, 0.608, 0.582, 0.791, 0.717),
            "LightGBM, tuned": (0.675, 0.683, 0.475, 0.766, 0.572),
            "TabPFN-2.5, frozen": (0.645, 0.713, 0.674, 0.700, 0.325),
            "random forest, tuned": (0.654, 0.654, 0.460, 0.757, 0.441),
            "TabM, tuned": (0.470, 0.660, 0.545, 0.704, 0.523),
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One training: what was trained at which commit, the test R2, and the seconds of the whole fit."""

    table: str
    quality: str
    fold: int
    commit: str
    r2: float
    seconds: float


def rows_of(job: Job, file: Path) -> pd.DataFrame:
    """Read the rows that have a target, without the columns that only number them."""
    rows = pd.read_csv(file).drop(columns=list(job.numbering))
    return rows[rows[job.target].notna()]


def split(rows: pd.DataFrame, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that train and the rows that test, as MulTaBench draws them."""
    tested = min(int(len(rows) * 0.1), MOST_TESTED)
    train, test = train_test_split(rows, test_size=tested, random_state=FIRST_SEED + fold)
    return train, test


def fit(
    name: str, rows: pd.DataFrame, quality: str, fold: int, overrides: tuple[str, ...], inner: bool
) -> Run:
    """Train on a fold's training rows, and test on its others, or on an inner fold of the training rows."""
    job = JOBS[name]
    train, test = split(rows, fold)
    if inner:
        train, test = split(train, fold)
    with tempfile.TemporaryDirectory() as folder:
        train.to_csv(Path(folder) / "train.csv", index=False)
        test.to_csv(Path(folder) / "test.csv", index=False)
        begun = perf_counter()
        model = plait.fit(
            Path(folder) / "train.csv",
            job.target,
            test=Path(folder) / "test.csv",
            out=Path(folder) / "run",
            quality=quality,
            overrides=overrides,
            quiet=True,
        )
        seconds = perf_counter() - begun
    score = model.record["evaluation"]["test"]["targets"][job.target]["metrics"]["r2"]["value"]
    return Run(name, quality, fold, commit_hash(), score, seconds)


def read_log(log: Path | None) -> list[Run]:
    """Read the runs of a file, the oldest first."""
    if log is None or not log.is_file():
        return []
    return [Run(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def add(run: Run, log: Path | None) -> None:
    """Print a run, and add it to the file."""
    print(f"{run.table} {run.quality} {run.fold}: R2 {run.r2:.3f}, {run.seconds:.0f} s", flush=True)
    if log:
        with log.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(vars(run)) + "\n")


def newest(runs: list[Run], name: str, quality: str) -> list[Run]:
    """Return the runs of the commit that was tried last, one for each fold."""
    of_quality = [run for run in runs if run.table == name and run.quality == quality]
    if not of_quality:
        return []
    last = of_quality[-1].commit
    by_fold = {run.fold: run for run in of_quality if run.commit == last}
    return [by_fold[fold] for fold in sorted(by_fold)]


def section(name: str, runs: list[Run]) -> str:
    """Return the table of all models, the best mean first."""
    scored = []
    for peer, scores in JOBS[name].peers.items():
        scored.append((float(np.mean(scores)), peer, dict(enumerate(scores)), "", ""))
    for quality in QUALITIES:
        of_quality = newest(runs, name, quality)
        if of_quality:
            by_fold = {run.fold: run.r2 for run in of_quality}
            mean = float(np.mean(list(by_fold.values())))
            seconds = f"{np.median([run.seconds for run in of_quality]):.0f}"
            scored.append((mean, f"**plait, {quality}**", by_fold, seconds, of_quality[0].commit))

    lines: list[list[object]] = []
    for mean, model, by_fold, seconds, commit in sorted(scored, key=lambda entry: -entry[0]):
        cells = [f"{by_fold[fold]:.3f}" if fold in by_fold else "" for fold in range(FOLDS)]
        lines.append([model, f"{mean:.3f}", *cells, seconds, commit])
    folds = [f"fold {fold}" for fold in range(FOLDS)]
    return f"## {name}\n\n" + table(["model", "mean R2", *folds, "seconds of a fit", "commit"], lines)


def report(runs: list[Run]) -> str:
    sections = "\n\n".join(section(name, runs) for name in JOBS)
    return f"""# Two tables with published results

Made by `benchmarks/multabench.py`; {machine()}, {torch.get_num_threads()} threads. R2 on the test part of
each published fold; the scores of other models are those of MulTaBench (github.com/alanarazi7/MulTaBench).
"tuned": the model's text encoder was trained further, on a GPU; "frozen": it was not. `good` and `best`
were chosen on folds of the training rows. `scores/multabench.jsonl` has every run on test rows, with its
commit.

{sections}"""


def stand_in(file: Path, job: Job) -> None:
    """Write a small table of texts, dates and numbers, with the columns that the script expects."""
    rng = np.random.default_rng(3)
    size = rng.integers(1, 5, 120)
    rows = pd.DataFrame(
        {
            job.numbering[0]: np.arange(120),
            "name": [f"a thing of size {number}, made by {rng.choice(['them', 'us'])}" for number in size],
            "made": [f"March {day}th {rng.integers(1990, 2020)}" for day in rng.integers(4, 20, 120)],
            "count": rng.integers(0, 5000, 120),
            job.target: size * 10.5 + rng.normal(size=120),
        }
    )
    rows.to_csv(file, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=os.environ.get("PLAIT_MULTABENCH"), help="the folder of both tables"
    )
    parser.add_argument("--tables", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--qualities", nargs="*", default=list(QUALITIES), choices=QUALITIES)
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(FOLDS)))
    parser.add_argument("--inner", action="store_true", help="test on training rows; no log and no page")
    parser.add_argument("--set", action="append", default=[], help="with --inner: an option of the recipe")
    parser.add_argument("--only-scores", action="store_true", help="train nothing: the page of the scores")
    arguments = read_arguments(parser)
    with tempfile.TemporaryDirectory() as temporary:
        log, overrides = (None if arguments.inner else LOG), tuple(arguments.set)
        if overrides and not arguments.inner:
            parser.error("--set is for --inner: the test rows are not there to choose by")
        if arguments.quick:
            log, overrides = None, QUICK
            arguments.folder, arguments.folds, arguments.qualities = Path(temporary), [0], ["good"]
            for name, job in JOBS.items():
                stand_in(Path(temporary) / f"{name}.csv", job)
        runs = read_log(log)
        if not arguments.only_scores:
            if arguments.folder is None:
                parser.error("--folder is needed, or the environment variable PLAIT_MULTABENCH")
            runs += run_all(arguments, runs, log, overrides)
    if not arguments.inner:
        page("multabench.md", report(runs), arguments)


def run_all(
    arguments: argparse.Namespace, before: list[Run], log: Path | None, overrides: tuple[str, ...]
) -> list[Run]:
    """Run what was asked for, unless it was run at this commit before."""
    now = commit_hash()
    is_whole = "+" not in now  # else nothing says what has changed since
    done = {(run.table, run.quality, run.fold) for run in before if is_whole and run.commit == now}
    runs = []
    for name in arguments.tables:
        rows = rows_of(JOBS[name], Path(arguments.folder) / f"{name}.csv")
        for quality in arguments.qualities:
            for fold in arguments.folds:
                if (name, quality, fold) not in done:
                    runs.append(fit(name, rows, quality, fold, overrides, arguments.inner))
                    add(runs[-1], log)
    return runs


if __name__ == "__main__":
    main()
