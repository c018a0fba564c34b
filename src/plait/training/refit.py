"""Train the network again on training and validation rows, once the best epoch is known."""

from __future__ import annotations

import shutil

import numpy as np
import torch

from plait.data.dataset import Dataset
from plait.data.split import NO_ROWS
from plait.disk.whole import make_inner_folder
from plait.model.network import MultimodalModel
from plait.runs.folder import CHECKPOINT
from plait.tasks.base_prediction import predictions
from plait.training import start
from plait.training.loop import Training, train

FOLDER = "refit"  # in the run's folder, for checkpoints, while it trains


def refit(training: Training, epochs: int) -> int:
    """Replace the weights of a trained network by those of a training on all of its rows.

    That training has the same seed, and so many epochs, at whose end the learning rate has fallen to zero.
    What validation rows have decided stays: the epoch, temperatures and late fusion. Return the number of
    rows.

    One that was stopped goes on from its own checkpoint. Raises what `train` raises.
    """
    sides = [training.train_data.rows, training.valid_data.rows]
    rows = np.sort(torch.cat(sides).numpy())
    plan = training.plan.for_refit(rows, epochs)
    preprocessing = training.train_data.preprocessing
    data = Dataset(training.train_data.prepared, preprocessing, rows)
    no_rows = Dataset(training.train_data.prepared, preprocessing, NO_ROWS)

    torch.manual_seed(plan.seed)
    model = MultimodalModel.build(plan, preprocessing)
    start.begin(model, data)
    folder = make_inner_folder(training.folder, FOLDER)
    again = Training(
        model,
        plan,
        training.settings,
        data,
        no_rows,
        folder,
        training.screen,
        unlabelled=training.unlabelled,
    )
    train(again, resume=(folder / CHECKPOINT).is_file())

    for target, task in predictions(model.tasks_by_target).items():
        task.take_calibration(training.model.prediction(target))
    training.model.load_state_dict(model.cpu().state_dict())
    shutil.rmtree(folder)
    return len(rows)
