"""Score rows by how many blocks they have: benchmarks/empty_cells.py --table NAME --source PATH

A block is a media column, or all plain columns together. A row that lacks all blocks but one takes
another way through the model than its neighbours do, so a mean over all rows hides how it fares. This
script trains on a table with empty cells and scores the test rows that have no block, one, and two or
more: with all columns in the table, and with the columns of one block only. It uses nothing but `fit`
and `predict`, so that two commits can be compared.

- `stamps`: pictures and sentences; 23 % of the pictures are empty. No source is needed.
- `movies`: `movies.json` of npm's vega-datasets. IMDB rating from numbers, categories and the director,
  a text that 42 % of the rows lack.
- `bits`: the folder that `bits.py` reads. 30 % of all cells are empty, by lot.
- `goodreads`, `bikewale`: a folder of `train<seed>.csv`. Cells are emptied, see `emptied`.

Errors are log losses of classes, and of numbers the root of the squared error in units of the standard
deviation of the test rows. Media are read small, so that a training takes a minute.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import plait
import standins
from accuracy import dealt
from measure import interval, read_arguments, remembered, sample_table, table
from plait.api.model import Model
from plait.samples import stamps

SIDE = "side of the split"
OPTIONS = ("training.precision=fp32", f"split.column={SIDE}", "quality=network")
IMAGE = "{name: image, size: %d}"
AUDIO = "{name: audio, rate: 8000, seconds: 1, bands: 32}"
ROWS = 1500  # that are drawn from a large table
QUICK = "training.epochs=1"
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Job:
    """One table with its blocks, as lists of columns, and what is said of it to `fit`."""

    rows: pd.DataFrame
    target: str
    blocks: dict[str, list[str]]
    root: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def has_classes(self) -> bool:
        return self.rows[self.target].dtype.kind == "O"

    def has_block(self) -> pd.DataFrame:
        """Where each row has at least one cell of each block."""
        return pd.DataFrame({name: self.rows[cs].notna().any(axis=1) for name, cs in self.blocks.items()})


def sides(rows: int, seed: int) -> np.ndarray:
    """60 % of the rows train, 15 % validate, 25 % test."""
    place = np.random.default_rng(seed).permutation(rows) / rows
    return np.where(place < 0.6, "train", np.where(place < 0.75, "valid", "test"))


def emptied(rows: pd.DataFrame, target: str, texts: list[str], plain: list[str], seed: int) -> pd.DataFrame:
    """Empty cells, not at random.

    Texts of a row are empty with a probability of 0.15 where the target is lowest to 0.45 where it is
    highest, all its plain cells with one of 0.25 to 0.05; then a tenth of the plain cells, by lot.
    """
    rng = np.random.default_rng(1000 + seed)
    rank = rows[target].rank(pct=True).to_numpy()
    rows = rows.copy()
    rows.loc[rng.random(len(rows)) < 0.15 + 0.3 * rank, texts] = None
    rows.loc[rng.random(len(rows)) < 0.25 - 0.2 * rank, plain] = None
    for column in plain:
        rows.loc[rng.random(len(rows)) < 0.1, column] = None
    return rows


def stamps_job(source: Path, seed: int) -> Job:
    """Deal the families of stamps into five parts; each seed tests on another one."""
    path = sample_table(stamps)
    rows = pd.read_csv(path)
    rows[SIDE] = dealt(list(rows["family"]), seed)
    blocks = {"picture": ["picture"], "sentence": ["sentence"]}
    return Job(
        rows[["picture", "sentence", "category", SIDE]],
        "category",
        blocks,
        root=path.parent,
        overrides=(f"columns.picture.modality={IMAGE % 48}",),
    )


def movies_job(source: Path, seed: int) -> Job:
    rows = pd.read_json(source).drop(columns=["Title", "Release Date", "Distributor"])
    rows = rows[rows["IMDB Rating"].notna()].sample(ROWS, random_state=seed).reset_index(drop=True)
    for column in ("US Gross", "Worldwide Gross", "Production Budget"):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    blocks = {"Director": ["Director"], "plain": [c for c in rows if c not in ("Director", "IMDB Rating")]}
    rows[SIDE] = sides(len(rows), seed)
    return Job(rows, "IMDB Rating", blocks, columns={"Director": "text"})


def bits_job(source: Path, seed: int) -> Job:
    rows = pd.read_csv(source / "all.missing30.csv")
    rows[SIDE] = rows["split"]
    blocks = {c: [c] for c in ("image", "text", "audio")} | {"plain": ["number", "category"]}
    return Job(
        rows[["image", "text", "audio", "number", "category", "label", SIDE]],
        "label",
        blocks,
        root=source,
        overrides=(
            f"columns.image.modality={IMAGE % 32}",
            f"columns.audio.modality={AUDIO}",
            "training.epochs=12",
        ),
    )


def goodreads_job(source: Path, seed: int) -> Job:
    rows = pd.read_csv(source / f"train{seed}.csv").sample(ROWS, random_state=seed).reset_index(drop=True)
    plain = ["PageCount", "NumberofRatings", "NumberofReviews", "Format", "Language"]
    texts = ["Title", "Description", "PublishDate"]
    for column in ("NumberofReviews", "NumberofRatings"):
        rows[column] = pd.to_numeric(rows[column].astype(str).str.replace(",", ""), errors="coerce")
    rows["Description"] = rows["Description"].str[:400]

    rows = emptied(rows[[*texts, *plain, "Rating"]], "Rating", texts[:2], [*plain, texts[2]], seed)
    rows[SIDE] = sides(len(rows), seed)
    columns = dict.fromkeys(texts, "text") | {"Language": "category", "Format": "category"}
    return Job(rows, "Rating", {c: [c] for c in texts} | {"plain": plain}, columns=columns)


def bikewale_job(source: Path, seed: int) -> Job:
    rows = pd.read_csv(source / f"train{seed}.csv").sample(ROWS, random_state=seed).reset_index(drop=True)
    plain = ["city_posted", "km_driven", "color", "fuel_type", "model_year", "owner_type"]
    rows["price"] = np.log(rows["price"].clip(lower=1))
    rows = emptied(rows[["bike_name", *plain, "price"]], "price", ["bike_name"], plain, seed)
    rows[SIDE] = sides(len(rows), seed)
    columns = {"bike_name": "text", "city_posted": "category", "color": "category"}
    return Job(rows, "price", {"bike_name": ["bike_name"], "plain": plain}, columns=columns)


JOBS: dict[str, Callable[[Path, int], Job]] = {
    "stamps": stamps_job,
    "movies": movies_job,
    "bits": bits_job,
    "goodreads": goodreads_job,
    "bikewale": bikewale_job,
}


def scores(job: Job, seed: int, overrides: tuple[str, ...]) -> Scores:
    """Train once. Return the error for each choice of columns and number of blocks, and all hits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        job.rows.to_csv(path, index=False)
        model = plait.fit(
            path,
            job.target,
            columns=job.columns,
            overrides=(*OPTIONS, *job.overrides, *overrides),
            seed=seed,
            root=job.root,
            out=Path(folder) / "run",
            quiet=True,
            evaluate=False,
        )
        test = job.rows[job.rows[SIDE] == "test"]
        count = job.has_block().loc[test.index].sum(axis=1).to_numpy()
        views = {"all": [c for cs in job.blocks.values() for c in cs], **job.blocks}
        return {name: errors(model, job, test, columns, count) for name, columns in views.items()}


def errors(
    model: Model, job: Job, test: pd.DataFrame, columns: list[str], count: np.ndarray
) -> dict[str, float]:
    """The error of the test rows with these columns only, in all and by number of blocks."""
    answers = model.predict(test[columns], root=job.root).to_pandas()
    truth = test[job.target].to_numpy()
    if job.has_classes:
        likelihoods = [answers.at[i, f"{job.target}_probability_{label}"] for i, label in enumerate(truth)]
        error_N = -np.log(np.clip(likelihoods, 1e-7, 1.0))
    else:
        error_N = (answers[job.target].to_numpy() - truth) ** 2 / truth.var()
    groups = {"all": count >= 0, "none": count == 0, "one": count == 1, "more": count > 1}
    means = {name: float(error_N[rows].mean()) for name, rows in groups.items() if rows.any()}
    combined = means if job.has_classes else {name: mean**0.5 for name, mean in means.items()}
    return combined | {f"rows of {name}": float(rows.sum()) for name, rows in groups.items() if rows.any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", choices=JOBS, default="stamps")
    parser.add_argument("--source", type=Path, default=Path())
    parser.add_argument("--seeds", type=int, default=5)
    arguments = read_arguments(parser, scores="empty_cells.jsonl", has_page=False)
    overrides = (QUICK,) if arguments.quick else ()
    if arguments.quick:
        standins.write_samples("stamps")
    work = []
    for seed in range(1 if arguments.quick else arguments.seeds):
        job = JOBS[arguments.table](arguments.source, seed)
        work.append((f"{arguments.table} {seed}", partial(scores, job, seed, overrides)))

    every = remembered(arguments.scores, work)
    runs = [every[name] for name, _ in work]
    lines = []
    for view in runs[0]:
        for group in ("all", "none", "one", "more"):
            values = [run[view][group] for run in runs if group in run[view]]
            if values:
                number = sum(run[view].get(f"rows of {group}", 0) for run in runs)
                lines.append([view, group, f"{number:.0f}", interval(values)])
    print(table(["columns in the table", "blocks of the row", "rows", "error"], lines))


if __name__ == "__main__":
    main()
