"""Vectors as blocks of their own, or in the block of plain columns: the figures of 0008.

Run it with `python docs/decisions/0008_vectors.py FOLDER`, which holds `goodreads.csv` and `bikewale.csv` of
MulTaBench, and once more with `--one-block`. Each takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

import plait
from plait.modalities.vector import Vector

ROWS = 1600
WIDTHS = (32, 300)  # entries of a vector
MISSING = (0.0, 0.1)  # shares of vectors
SEEDS = 5
OPTIONS = ("training.precision=fp32", "split.column=side")


def embedded(texts: pd.Series, width: int) -> list[list[float]]:
    """Return TF-IDF in its main directions."""
    counts = TfidfVectorizer(min_df=2).fit_transform(texts)
    directions = TruncatedSVD(min(width, counts.shape[1] - 1), random_state=0)
    return directions.fit_transform(counts).astype("float32").tolist()


def numbers(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells.astype(str).str.replace(",", ""), errors="coerce")


def books(folder: Path, width: int) -> tuple[pd.DataFrame, pd.Series]:
    """Return pages, reviews, format and language beside what a book is about, and its rating."""
    rows = pd.read_csv(folder / "goodreads.csv").sample(ROWS, random_state=7).reset_index(drop=True)
    about = (rows.Title + " " + rows.Description.fillna("")).fillna("")
    table = pd.DataFrame(
        {
            "pages": pd.to_numeric(rows.PageCount, errors="coerce"),
            "reviews": numbers(rows.NumberofReviews),
            "format": rows.Format,
            "language": rows.Language,
            "vector": embedded(about, width),
        }
    )
    return table, pd.to_numeric(rows.Rating, errors="coerce")


def bikes(folder: Path, width: int) -> tuple[pd.DataFrame, pd.Series]:
    """Return kilometres, year, owner, fuel and city beside the name of a bike, and its price."""
    rows = pd.read_csv(folder / "bikewale.csv").sample(ROWS, random_state=7).reset_index(drop=True)
    table = rows[["km_driven", "model_year", "owner_type", "fuel_type", "city_posted"]].copy()
    table["vector"] = embedded(rows.bike_name.fillna(""), width)
    return table, pd.to_numeric(rows.price, errors="coerce")


def scores(table: pd.DataFrame, label: pd.Series, missing: float, seed: int) -> tuple[float, float]:
    """Return accuracy and log loss on test rows, if a share of the vectors is missing."""
    place = np.random.default_rng(seed).permutation(len(table)) / len(table)
    side = np.where(place < 0.6, "train", np.where(place < 0.75, "valid", "test"))
    rows = table.assign(label=label, side=side)
    is_missing = np.random.default_rng(100 + seed).random(len(rows)) < missing
    rows.loc[is_missing, "vector"] = None
    with tempfile.TemporaryDirectory() as folder:
        options = [*OPTIONS, f"seed={seed}"]
        model = plait.fit(rows, "label", out=Path(folder) / "run", overrides=options, quiet=True)
    metrics = model.record["evaluation"]["test"]["targets"]["label"]["metrics"]
    return metrics["accuracy"]["value"], metrics["log_loss"]["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one-block", action="store_true", help="vectors join the block of plain columns")
    arguments = parser.parse_args()
    Vector.plain = arguments.one_block
    for name, read in (("books", books), ("bikes", bikes)):
        for width, missing in itertools.product(WIDTHS, MISSING):
            table, number = read(arguments.folder, width)
            table, number = (
                table[number.notna()].reset_index(drop=True),
                number.dropna().reset_index(drop=True),
            )
            thirds = pd.qcut(number.rank(method="first"), 3, labels=["low", "middle", "high"]).astype(str)
            of_seeds = np.array([scores(table, thirds, missing, seed) for seed in range(SEEDS)])
            accuracy, log_loss = of_seeds.mean(0)
            case = f"{name}, {width} entries, {missing:.0%} missing"
            print(f"{case}: accuracy {accuracy:.3f}, log loss {log_loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
