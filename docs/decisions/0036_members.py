"""What it costs and saves to drop members, to repeat only some, and to leave out what repeats the network.

Run it with `python docs/decisions/0036_members.py stamps digits`, or `goodreads bikewale --folder FOLDER` for
the tables of `benchmarks/multabench.py` (training rows of the first fold only). Every member is trained
on all folds and repeats. From these fits it is computed what the rules would have left out. The loss is that
of out-of-fold answers, on the rows that the run's own network predicts too.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

import plait
from plait.data import plan_ensemble
from plait.ensemble import dropping
from plait.ensemble import fit as ensembling
from plait.ensemble import training as turns
from plait.ensemble.lessons import Fitting
from plait.ensemble.training import MemberTraining
from plait.ensemble.weights import Weighing, cross_fit_mixture
from plait.samples import emoji, stamps

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import multabench

STACKED = "all members, and a stacked model"
REPEATED = turns.REPEATED  # before `captured` changes it
CACHE = Path.home() / ".cache" / "plait" / "samples"


class Captured:
    """All that one fit has trained: the members, and how their first folds compare."""

    def __init__(self) -> None:
        self.fitting: Fitting
        self.trained: ensembling.Trained
        self.members: list[MemberTraining] = []
        self.first: dict[str, dropping.FirstFold] = {}


@contextmanager
def captured() -> Iterator[Captured]:
    """Train every member on all folds and repeats, also those that plait would leave out."""
    kept = Captured()
    fit, train, compare = ensembling.fit, ensembling.train_members, turns.Turns._compare

    def fit_all(fitting: Fitting) -> ensembling.Trained | None:
        kept.fitting = fitting
        trained = fit(fitting)
        if trained is not None:
            kept.trained = trained
        return trained

    def keep_members(*arguments: Any) -> list[MemberTraining]:
        kept.members = train(*arguments)
        return kept.members

    def keep_first(self: turns.Turns, training: MemberTraining) -> dict[str, dropping.FirstFold]:
        for fold in compare(self, training).values():
            kept.first[training.name] = fold
        return {}

    with (
        mock.patch.object(ensembling, "fit", fit_all),
        mock.patch.object(ensembling, "train_members", keep_members),
        mock.patch.object(turns.Turns, "_compare", keep_first),
        mock.patch.object(turns, "REPEATED", 0.0),
        mock.patch.object(plan_ensemble, "repeats_network", return_value=False),
    ):
        yield kept


def scanned_digits() -> pd.DataFrame:
    """Return scikit-learn's scanned digits as images of 8 x 8 pixels."""
    digits = load_digits()
    files = []
    for ink in digits.images:
        file = io.BytesIO()
        Image.fromarray((ink * (255 / 16)).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return pd.DataFrame({"picture": files, "digit": digits.target.astype(str)})


def table(name: str, folder: Path | None) -> tuple[pd.DataFrame, str, Path]:
    """Return rows, their target, and where their images are."""
    if name == "digits":
        return scanned_digits(), "digit", CACHE
    if name == "stamps":
        rows = pd.read_csv(stamps.fetch(CACHE / "stamps"))[["picture", "sentence", "category"]]
        return rows, "category", CACHE / "stamps"
    if name == "emoji":
        rows = pd.read_csv(emoji.fetch(CACHE / "emoji"))
        rows = rows[(rows.vendor == "google") & (rows.split != "test")]
        return rows[["picture", "name", "group"]].reset_index(drop=True), "group", CACHE / "emoji"
    assert folder is not None, "--folder is needed for this table"
    job = multabench.JOBS[name]
    train, _ = multabench.split(multabench.rows_of(job, folder / f"{name}.csv"), 0)
    return train.reset_index(drop=True), job.target, folder


def mixed(
    kept: Captured, members: Sequence[MemberTraining], target: str, stack: bool = False
) -> tuple[Tensor, dict[str, float]]:
    """Return the out-of-fold answers of these members and the network, (N, ...), and their weights."""
    out_of_fold, plan = kept.trained.out_of_fold, kept.fitting.plan
    predictions = {"network": out_of_fold.of_target(target)["network"]}
    for training in members:
        predictions[training.name] = training.predict()[target]
    labels, labelled = out_of_fold.examples.target(target)
    options = plan.ensemble.model_copy(update={"stack": stack})
    weighing = Weighing(kept.fitting.tasks[target], labels, labelled, options, plan.seed)
    folds = kept.members[0].shared.stacking_folds
    mixture = cross_fit_mixture(weighing, predictions, folds)
    outputs = {name: prediction.outputs for name, prediction in predictions.items()}
    return out_of_fold.mixed(mixture, target, outputs), mixture.served.weights


def first_repeat(training: MemberTraining) -> MemberTraining:
    """Return a member as it was after its first repeat."""
    return replace(training, fits=training.fits[:1], seconds=training.seconds_of_repeat)


def after_rules(kept: Captured, target: str) -> tuple[list[MemberTraining], float]:
    """Return the members that the rules keep, with their repeats, and the seconds of all."""
    seconds, stays = 0.0, []
    for training in kept.members:
        fold = kept.first.get(training.name)
        if fold is not None and fold.drops:
            seconds += training.seconds_of_repeat / len(training.fits[0])
        else:
            stays.append(training)
    _, weights = mixed(kept, [first_repeat(training) for training in stays], target)
    members = []
    for training in stays:
        is_repeated = weights.get(training.name, 0.0) >= REPEATED
        members.append(training if is_repeated else first_repeat(training))
        seconds += members[-1].seconds
    return members, seconds


def report(name: str, kept: Captured, target: str) -> None:
    """Print what each way of leaving members out loses, and what it saves."""
    task = kept.fitting.tasks[target]
    labels, labelled = kept.trained.out_of_fold.examples.target(target)
    of_network = kept.trained.out_of_fold.of_target(target)["network"].mask
    ways = {
        "all members": (kept.members, sum(training.seconds for training in kept.members)),
        "dropped and repeated by the rules": after_rules(kept, target),
    }
    for left_out in kept.members:
        if not left_out.kind.chooses:
            others = [training for training in kept.members if training is not left_out]
            ways[f"all but {left_out.name}"] = (others, sum(training.seconds for training in others))

    ways[STACKED] = ways["all members"]

    losses = {}
    weights: dict[str, float] = {}
    for way, (members, seconds) in ways.items():
        begun = time.monotonic()
        answer, of_way = mixed(kept, members, target, stack=way == STACKED)
        seconds += time.monotonic() - begun
        weights = weights or of_way
        rows = labelled & of_network & ~torch.isnan(answer.reshape(len(answer), -1)).any(1)
        losses[way] = dropping.block_losses(task, answer[rows], labels[rows])
        difference = losses[way] - losses["all members"]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        score = task.measure_score(answer[rows].numpy(), labels[rows].numpy())
        print(
            f"| {name} | {way} | {losses[way].mean():.4f} | {difference.mean():+.4f} ±{2 * error:.4f} "
            f"| {task.score} {score:.3f} | {seconds:.0f} |",
            flush=True,
        )
    for training in kept.members:
        fold = kept.first.get(training.name)
        verdict = "" if fold is None else f"{fold.reason(task.score)}, {'dropped' if fold.drops else 'stays'}"
        weight = weights.get(training.name, 0.0)
        print(f"|   | {training.name} | {weight:.0%} | {training.seconds:.0f} s | {verdict} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=["stamps", "emoji", "digits", *multabench.JOBS])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quality", default="best", choices=["fast", "good", "best"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tables:
        rows, target, root = table(name, arguments.folder)
        with tempfile.TemporaryDirectory() as folder, captured() as kept:
            plait.fit(
                rows,
                target,
                root=root,
                out=Path(folder) / "run",
                quality=arguments.quality,
                overrides=["training.refit=off"],
                quiet=True,
                evaluate=False,
            )
            report(name, kept, target)


if __name__ == "__main__":
    main()
