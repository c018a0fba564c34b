"""Accuracy on real tables, beside scikit-learn on the same pretrained vectors: benchmarks/accuracy.py

Stamps (picture + sentence; all inputs), and the groups of emoji: on a vendor whose images were never seen
(images alone, because names tell the emoji, and with it the group), and on emoji never seen. Needs
transformers, and the weights of `minilm`, `efficientnet_lite0` and `mobilenet_v2` (README, "Pretrained
encoders"). With few rows, one split says little: the stamps are dealt into five folds, families together,
and each seed tests on another fold, so that every row is tested on once. The emoji's splits are those of
the sample. The glue code chooses its strength of regularisation on validation rows, a fifth of the others,
and reads sounds as means and deviations of their mel bands. `--scores` is a file of scores, for a run that
goes on later or in steps.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import plait
import standins
from measure import interval, machine, page, read_arguments, sample_table, table
from plait.encoders.base import encoders
from plait.modalities.base import modalities
from plait.nn.batch import Values
from plait.nn.summaries import mean_of_several
from plait.samples import emoji, stamps
from plait.table.table import Source
from plait.table.write import write

PRETRAINED = ("encoders.image=pretrained", "encoders.text=pretrained")
FROM_SCRATCH = ("pretrained=off", "quality=network")
QUALITIES = ("fast", "good", "best")
HEADERS = ["model", "accuracy", "log loss", "accuracy by seed", "seconds of a training"]
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
VECTORS = ("image", "text", "audio")
LEAVES = (0.0, 1.0, 10.0)  # regularisation of gradient boosting
QUICK = ("training.epochs=1", "modalities.image.size=32")  # added to the overrides of a quick run


@dataclass(frozen=True)
class Job:
    """A table, what is predicted from what, and on which split.

    Each of `singles` is also tried alone. Rows of one `group` are on one side, and the sides are drawn anew
    for each seed.
    """

    name: str
    sample: Any
    target: str
    inputs: tuple[str, ...]
    split: str = "split"
    media: tuple[tuple[str, str], ...] = (("picture", "image"), ("sentence", "text"))
    singles: tuple[str, ...] = ()
    group: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return sample_table(self.sample)

    def table(self, seed: int) -> dict[str, list[Any]]:
        """Read the table, with the sides of this seed in its split column."""
        rows = pa.csv.read_csv(self.path).to_pydict()
        if self.group:
            rows[self.split] = dealt(rows[self.group], seed)
        return rows


FOLDS, SIDES = 5, {0: "test", 1: "valid"}


def dealt(groups: list[Any], seed: int) -> list[str]:
    """Deal groups into five folds, of which each seed tests on another. Return the side of each row."""
    names = sorted(set(groups))
    random.Random(0).shuffle(names)
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    return [SIDES.get((fold[name] - seed) % FOLDS, "train") for name in groups]


GROUPED, EMOJI = ("split.column=split", "split.group=family"), ("columns.name.modality=text",)
EVERYTHING = {
    "picture": "image",
    "sentence": "text",
    "sound": "audio",
    "speech": "audio",
    "style": "category",
    "languages": "number",
}
JOBS = {
    "stamps": Job(
        "stamps, picture + sentence",
        stamps,
        "category",
        ("picture", "sentence"),
        singles=("picture", "sentence"),
        group="family",
        overrides=GROUPED,
    ),
    "all": Job(
        "stamps, all inputs",
        stamps,
        "category",
        tuple(EVERYTHING),
        media=tuple(EVERYTHING.items()),
        singles=("sound", "speech", "style", "languages"),
        group="family",
        overrides=GROUPED,
    ),
    "vendor": Job(
        "emoji, unseen vendor, picture",
        emoji,
        "group",
        ("picture",),
        "vendor_split",
        (("picture", "image"),),
        overrides=("split.column=vendor_split",),
    ),
    "emoji": Job(
        "emoji, unseen emoji, picture + name",
        emoji,
        "group",
        ("picture", "name"),
        "split",
        (("picture", "image"), ("name", "text")),
        ("picture", "name"),
        overrides=("split.column=split", "split.group=emoji", *EMOJI),
    ),
}


class Score(NamedTuple):
    """Scores on the test rows, and the seconds of the training; NaN where it was not measured."""

    accuracy: float
    log_loss: float = float("nan")
    seconds: float = float("nan")


def plaited(job: Job, inputs: tuple[str, ...], overrides: tuple[str, ...], seed: int) -> Score:
    """Train plait's model on these inputs, and test it."""
    rows = job.table(seed)
    ignored = {c: "ignored" for c in rows if c not in (*inputs, job.target, job.split, "family", "emoji")}
    if job.split == "vendor_split":
        ignored["emoji"] = "ignored"
    fitting = [o for o in job.overrides if not o.startswith("columns.") or o.split(".")[1] in inputs]
    with tempfile.TemporaryDirectory() as folder:
        named = {
            "columns": ignored,
            "overrides": (*fitting, *overrides),
            "seed": seed,
            "root": job.path.parent,
            "quiet": True,
        }
        write(pa.table(rows), Path(folder) / "t.csv")
        model = plait.fit(Path(folder) / "t.csv", job.target, out=Path(folder) / "run", **named)
    metrics = model.record["evaluation"]["test"]["targets"][job.target]["metrics"]
    return Score(metrics["accuracy"]["value"], metrics["log_loss"]["value"], model.record["seconds"])


@cache
@torch.inference_mode()
def vectors(column: str, modality: str, cells: tuple[str | None, ...], root: Path) -> np.ndarray:
    """Compute the same frozen vectors as plait does, and of sounds the moments of each mel band.

    Missing cells are zeros.
    """
    encoder = encoders.find("pretrained") if modality != "audio" else None
    config = encoder.settled(encoders.configure("pretrained", {}), modality) if encoder else None
    array = pa.chunked_array([pa.array(list(cells))])
    options = encoder.asks(config, modality) if encoder else {}
    fitted = modalities.find(modality).fit(modalities.configure(modality, options), array)
    loaded = fitted.load(array, Source(column, root))
    network = encoder.build(config, fitted.layout) if encoder else None
    batches = []
    for rows in torch.arange(len(cells)).split(32):
        values = fitted.transform(loaded.values.take(rows), None)
        x = network.embed(values).x[:, 0].float() if network else moments(values)
        batches.append(mean_of_several(x, values.count_B))  # long cells are read in parts
    return (torch.cat(batches) * loaded.present[:, None]).numpy()


def moments(values: Values) -> torch.Tensor:
    """Compute the mean and the deviation over time of each band of a spectrogram, (B, 2 bands)."""
    spectra = [x[: max(int(n), 1)] for x, n in zip(values.x, values.length_B, strict=True)]
    return torch.stack([torch.cat([x.mean(0), x.std(0, correction=0)]) for x in spectra])


def described(
    job: Job, rows: dict[str, list[Any]], column: str, modality: str, final: np.ndarray
) -> np.ndarray:
    """Turn a column into numbers with mean 0 and deviation 1, and categories into ones and zeros."""
    if modality == "category":
        return OneHotEncoder(sparse_output=False).fit_transform(np.array(rows[column])[:, None])
    if modality == "number":
        x = np.array(rows[column], dtype=np.float32)[:, None]
    else:
        x = vectors(column, modality, tuple(cell or None for cell in rows[column]), job.path.parent)
    return StandardScaler().fit(x[final]).transform(x)


@cache
def glue(job: Job, seed: int) -> dict[str, Callable[[], Score]]:
    """Do what people write without plait: one classifier on vectors and n-grams side by side."""
    rows = job.table(seed)
    sides, y = np.array(rows[job.split]), np.array(rows[job.target])
    train, valid, test = (np.flatnonzero(sides == side) for side in ("train", "valid", "test"))
    if not len(valid):
        valid = np.random.default_rng(0).permutation(train)[: len(train) // 5]
    fitting = np.setdiff1d(train, valid)
    final = np.union1d(train, valid)
    dense = {column: described(job, rows, column, modality, final) for column, modality in job.media}
    ngrams = None
    for column in (c for c, modality in job.media if modality == "text"):
        texts = [cell or "" for cell in rows[column]]
        ngrams = (
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            .fit([texts[i] for i in final])
            .transform(texts)
        )
    both = np.concatenate(list(dense.values()), 1)

    def logistic(x: Any, strength: float, on: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=300).fit(x[on], y[on])

    def boosting(x: Any, strength: float, on: np.ndarray) -> Any:
        return HistGradientBoostingClassifier(random_state=0, l2_regularization=strength).fit(x[on], y[on])

    def tuned(
        x: Any,
        fit: Callable[[Any, float, np.ndarray], Any] = logistic,
        strengths: tuple[float, ...] = STRENGTHS,
    ) -> Score:
        best = fit(x, max(strengths, key=lambda s: fit(x, s, fitting).score(x[valid], y[valid])), final)
        return Score(
            float(best.score(x[test], y[test])),
            log_loss(y[test], best.predict_proba(x[test]), labels=best.classes_),
        )

    models: dict[str, Callable[[], Score]] = {
        f"scikit-learn: vectors of {c}, logistic regression": lambda x=x: tuned(x) for c, x in dense.items()
    }
    if ngrams is not None:
        stacked = sparse.hstack([both, ngrams]).tocsr()
        models["scikit-learn: TF-IDF, logistic regression"] = lambda: tuned(ngrams)
        models["scikit-learn: all vectors, logistic regression"] = lambda: tuned(both)
        models["scikit-learn: all vectors and TF-IDF, logistic regression"] = lambda: tuned(stacked)
    models["scikit-learn: all vectors, gradient boosting"] = lambda: tuned(both, boosting, LEAVES)
    return models


class Scores:
    """Scores by job, model and seed, in a file of JSON lines. With `only`, nothing new is trained."""

    def __init__(self, file: Path | None, only: bool = False) -> None:
        self.file, self.only, self.scores = file, only, {}
        for line in file.read_text().splitlines() if file and file.is_file() else ():
            entry = json.loads(line)
            score = Score(entry["accuracy"], entry.get("log_loss", float("nan")), entry["seconds"])
            self.scores[entry["job"], entry["model"], entry["seed"]] = score

    def seeds(self, job: str, model: str, count: int) -> list[int]:
        """List the seeds to try; with `only`, those that the file has."""
        return [seed for seed in range(count) if not self.only or (job, model, seed) in self.scores]

    def get(self, job: str, model: str, seed: int, make: Callable[[], Score]) -> Score:
        """Return a score, training the model if need be."""
        if (job, model, seed) not in self.scores:
            score = self.scores[job, model, seed] = make()
            print(
                job,
                model,
                seed,
                f"{score.accuracy:.3f}",
                f"{score.log_loss:.3f}",
                f"{score.seconds:.0f} s",
                flush=True,
            )
            if self.file:
                with self.file.open("a") as file:
                    file.write(
                        json.dumps({"job": job, "model": model, "seed": seed, **score._asdict()}) + "\n"
                    )
        return self.scores[job, model, seed]


def rows_of(key: str, job: Job, seeds: dict[str, int], scores: Scores) -> tuple[str, list[list[object]]]:
    """Score all models on a table. Return a sentence about the table, and its rows."""
    tables = [job.table(seed) for seed in range(seeds["folds"] if job.group else 1)]
    labels = [
        [y for y, side in zip(t[job.target], t[job.split], strict=True) if side == "test"] for t in tables
    ]
    majority = [max(map(side.count, side)) / len(side) for side in labels]
    rows: list[list[object]] = [["most frequent class", interval(majority), "", "", ""]]
    for name in glued(job):
        split_seeds = scores.seeds(key, name, len(tables))
        if split_seeds:
            rows.append(
                row(
                    name,
                    [
                        scores.get(key, name, seed, lambda s=seed, n=name: glue(job, s)[n]())
                        for seed in split_seeds
                    ],
                )
            )
    models: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for column in job.singles:
        models[f"plait, fast, {column} alone"] = ((column,), ())
    if key == "stamps":
        models["plait, network from scratch"] = (job.inputs, FROM_SCRATCH)
    models["plait, network on frozen encoders"] = (job.inputs, ("quality=network",))
    for quality in QUALITIES:
        models[f"plait, {quality}"] = (job.inputs, (f"quality={quality}",))
    for name, (inputs, overrides) in models.items():
        count = seeds[name.rsplit(" ", 1)[-1]] if name.endswith(("good", "best")) else seeds["fast"]
        if not (split_seeds := scores.seeds(key, name, count)):
            continue
        rows.append(
            row(
                name,
                [
                    scores.get(key, name, seed, lambda i=inputs, o=overrides, s=seed: plaited(job, i, o, s))
                    for seed in split_seeds
                ],
            )
        )
    return f"{sum(map(len, labels)):,} rows tested on.{ahead(key, job, scores, len(tables))}", rows


def ahead(key: str, job: Job, all_scores: Scores, splits: int) -> str:
    """Say how far each quality is above the best model of scikit-learn's, split by split."""
    accuracies = {}
    for name in glued(job):
        scores = [all_scores.scores.get((key, name, seed)) for seed in range(splits)]
        if all(scores):
            accuracies[name] = [score.accuracy for score in scores]
    best = max(accuracies, key=lambda name: np.mean(accuracies[name]), default="")
    sentences = ""
    for quality in QUALITIES:
        differences = []
        for seed in range(FOLDS):
            score = all_scores.scores.get((key, f"plait, {quality}", seed))
            if best and score:
                differences.append(score.accuracy - accuracies[best][seed % splits])
        if differences:
            other = best.removeprefix("scikit-learn: ")
            sentences += f" `{quality}` is {interval(differences)} above {other} of scikit-learn's."
    return sentences


def row(name: str, scores: list[Score]) -> list[object]:
    accuracy, loss, seconds = (np.array(values) for values in zip(*scores, strict=True))
    shown = [
        "" if np.isnan(v) else f"{v:.{digits}f}" for v, digits in ((loss.mean(), 3), (np.median(seconds), 0))
    ]
    return [name, interval(list(accuracy)), shown[0], ", ".join(f"{v:.3f}" for v in accuracy), shown[1]]


def glued(job: Job) -> list[str]:
    """Name the models of scikit-learn's that are tried."""
    alone = [
        f"scikit-learn: vectors of {c}, logistic regression"
        for c, m in job.media
        if c in job.singles and m in VECTORS
    ]
    if len(job.media) == 1:
        return [
            f"scikit-learn: vectors of {job.media[0][0]}, logistic regression",
            "scikit-learn: all vectors, gradient boosting",
        ]
    if "text" in (m for c, m in job.media if c in job.singles):
        alone.append("scikit-learn: TF-IDF, logistic regression")
    both = ", logistic regression", " and TF-IDF, logistic regression", ", gradient boosting"
    return [*alone, *(f"scikit-learn: all vectors{ending}" for ending in both)]


def quick_jobs() -> dict[str, Job]:
    """Write the samples' stand-ins. Return the same jobs with short trainings."""
    standins.write_samples("stamps", "emoji")
    standins.pretrained_networks()
    return {key: replace(job, overrides=(*job.overrides, *QUICK)) for key, job in JOBS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    for quality in QUALITIES:
        parser.add_argument(f"--{quality}", type=int, default=5, help="seeds")
    parser.add_argument(
        "--only-scores", action="store_true", help="train nothing: the page of the file's scores"
    )
    arguments = read_arguments(parser, scores="accuracy.jsonl")
    jobs, seeds = JOBS, {quality: getattr(arguments, quality) for quality in QUALITIES}
    seeds["folds"] = FOLDS
    if arguments.quick:
        jobs, seeds = quick_jobs(), {"fast": 1, "good": 0, "best": 0, "folds": 1}
    scores = Scores(arguments.scores, arguments.only_scores)

    sections = []
    for key in arguments.jobs:
        about, rows = rows_of(key, jobs[key], seeds, scores)
        sections.append(f"## {jobs[key].name}\n\n{about}\n\n{table(HEADERS, rows)}")
    text = "\n\n".join(sections)
    page(
        "accuracy.md",
        f"""# Accuracy on real tables

Made by `benchmarks/accuracy.py`; {machine()}, one thread. Test accuracy, with the 95 % interval of the mean
over seeds. On the stamps each seed tests on another fifth of the families, the same for all models: so
intervals hold the luck of the split, and rows of a table are to be compared seed by seed. On emoji the
split is fixed. Where a model has one figure only, seeds change nothing or there was one. plait chooses its
encoders itself; the vectors of texts and images are those of `minilm` and `efficientnet_lite0` everywhere, in
`best` of `mobilenet_v2` too, where it is installed. plait's sounds are vectors of `speech_embedding`;
scikit-learn reads them as the mean and deviation of each mel band. `fast` is the default.

{text}""",
        arguments,
    )


if __name__ == "__main__":
    main()
