"""How the network is weighed beside members, and what a refit brings: the figures of 0031 and 0032.

Run it with `python docs/decisions/0031_weights.py FOLDER`. FOLDER holds the CSV files of R's example data
(see `benchmarks/tables.py`). The rows that `benchmarks/tables.py` tests on are left out. A quarter of the
others is held out here. `--every` takes each n-th table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import plait
from plait.api import fit as fitting
from plait.data.plan_ensemble import EnsemblePlan
from plait.ensemble import fit as ensembling
from plait.ensemble import weights
from plait.ensemble.ensemble import Ensemble
from plait.ensemble.mixture import Mixture
from plait.table.read import read
from plait.tasks.base_prediction import Prediction
from plait.training.loop import Training

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import tables

PRIORS = (0, 20, 50, 100, 200)  # rows that equal weights count as
NETWORK = Mixture({"network": 1.0}, {})


@contextmanager
def captured() -> Iterator[dict[str, ensembling.Trained]]:
    """Keep all members, also those without a weight, and hand over what is trained."""
    kept: dict[str, ensembling.Trained] = {}
    fit = ensembling.fit

    def keep(asked: ensembling.Fitting) -> ensembling.Trained | None:
        trained = fit(asked)
        if trained is not None:
            kept["members"] = trained
        return trained

    with (
        mock.patch.object(ensembling, "fit", keep),
        mock.patch.object(Ensemble, "pruned", lambda whole: whole),
    ):
        yield kept


def outputs_of(ensemble: Ensemble, rows: object, target: str) -> dict[str, Tensor]:
    """Return each member's outputs for some rows."""
    outputs = {}
    for bag in ensemble.bags:
        (by_target,) = bag.outputs(rows, [ensemble.columns], ensemble.tasks)
        outputs[bag.name] = by_target[target]
    return outputs


def error(task: Prediction, output: Tensor, truth: Tensor, prior: Tensor) -> float:
    """Return the log loss, or the root of the squared error, as a share of the baseline's; 2 at most."""
    metrics = task.measure(output.numpy(), truth.numpy())
    name = "log_loss" if "log_loss" in metrics else "rmse"
    baseline = prior.expand(len(truth), *prior.shape).clone()
    return min(metrics[name] / task.measure(baseline.numpy(), truth.numpy())[name], 2.0)


def errors(job: tables.Job) -> dict[str, float]:
    """Fit a table. Return the errors of the held-out rows, by what answers them."""
    cells = job.table()
    cells = cells[cells[tables.SPLIT] != "test"].drop(columns=[tables.SPLIT]).reset_index(drop=True)
    is_held_out = np.random.default_rng(1).permutation(len(cells)) < len(cells) // 4
    refit = fitting.refit
    before: dict[str, Tensor] = {}

    with tempfile.TemporaryDirectory() as folder, captured() as kept:

        def ask_before(training: Training, epochs: int) -> int:
            """Answer the held-out rows by the network before it is trained again."""
            training.model.cpu()
            rows = kept["members"].ensemble.prepare(training.plan.read(read(cells[is_held_out])))
            before.update(outputs_of(kept["members"].ensemble, rows, job.target))
            return refit(training, epochs)

        with mock.patch.object(fitting, "refit", ask_before):
            model = plait.fit(
                cells[~is_held_out],
                job.target,
                out=Path(folder) / "run",
                overrides=["training.refit=on"],
                quiet=True,
                evaluate=False,
            )
        trained = kept["members"]
        rows = trained.ensemble.prepare(model.plan.read(read(cells[is_held_out])))
        after = outputs_of(trained.ensemble, rows, job.target)

    out_of_fold, task = trained.out_of_fold, trained.ensemble.tasks[job.target]
    labels, labelled = out_of_fold.examples.target(job.target)
    truth, is_scored = rows.prepared.batch.targets[job.target], rows.prepared.batch.labelled[job.target]
    prior = torch.tensor(model.record["priors"][job.target])

    def score(mixture: Mixture, outputs: dict[str, Tensor]) -> float:
        answer = mixture.output(task, outputs)
        return error(task, answer[is_scored], truth[is_scored], prior)

    weighing = weights.Weighing(task, labels, labelled, EnsemblePlan(), 0)
    candidates = out_of_fold.of_target(job.target)
    scores = {"network": score(NETWORK, before), "network, refitted": score(NETWORK, after)}
    without = {name: prediction for name, prediction in candidates.items() if name != "network"}
    scores["members without the network"] = score(weights.fit_mixture(weighing, without, []), before)
    for rows_of_prior in PRIORS:
        with mock.patch.object(weights, "PRIOR_ROWS", rows_of_prior):
            mixture = weights.fit_mixture(weighing, candidates, [])
        scores[f"all, equal weights count as {rows_of_prior} rows"] = score(mixture, before)
        scores[f"all, {rows_of_prior} rows, network refitted"] = score(mixture, after)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    by_answer: dict[str, list[float]] = {}
    jobs = [job for job in tables.jobs(arguments.folder)[tables.SEEN :] if tables.is_small(job.table())]
    for job in jobs[:: arguments.every]:
        try:
            scores = errors(job)
        except (plait.PlaitError, KeyError, ValueError) as failure:
            print(job.file.stem, "left out:", failure)
            continue
        for answer, value in scores.items():
            by_answer.setdefault(answer, []).append(value)
    reference = np.array(by_answer["network"])
    print("| what answers | mean error | above the network alone |\n|---|---|---|")
    for answer, values in by_answer.items():
        print(f"| {answer} | {np.mean(values):.3f} | {tables.interval(np.array(values) - reference)} |")


if __name__ == "__main__":
    main()
