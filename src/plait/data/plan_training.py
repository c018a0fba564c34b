"""How long to train and in what batches, by the number of training rows."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from plait.recipe.sections import COMPARED, LEAST_STEPS, UNAUGMENTED, TrainingOptions, TrainingRecipe
from plait.tasks.base import Task

EPOCHS = 40
MIN_EPOCHS = 8
MAX_STEPS = 12_000  # steps beyond which a training has fewer epochs, down to `MIN_EPOCHS`
BATCH = 32  # rows
COMPARED_EPOCHS = (30, 40)  # the least and the most, where rows are compared with each other
WRITING_BATCH = 16  # rows of a batch where texts are written

# From so many training rows on, batches are large and epochs few, if no encoder is trained.
MANY = 4000
MANY_BATCH = 128
MANY_EPOCHS = 20

# The share of the epochs without a better score after which a training stops, and the least number of them.
PATIENCE = 0.25
LEAST_PATIENCE = 5


class TrainingPlan(TrainingOptions):
    """The training loop with every number filled in.

    What depends on the machine (precision, memory layout, compilation) stays open in the recipe: each
    machine that runs the model decides it, see `nn/device.py`.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    unaugmented: float = Field(ge=0, le=1)
    patience: int = Field(0, ge=0)
    refit: bool = False


def plan_training(
    recipe: TrainingRecipe,
    rows: int,
    tasks: Sequence[type[Task]] = (),
    frozen: bool = False,
    light: bool = False,
    may_refit: bool = True,
) -> TrainingPlan:
    """Fill in what the recipe leaves open, for so many training rows.

    `frozen` says that there are media or texts, and none of their encoders is trained; `light` that no such
    encoder is trained, whether there are any or not. Without `may_refit`,
    `refit: auto` is off.
    """
    min_steps = max((task.steps for task in tasks), default=LEAST_STEPS)
    writes = any(task.writes for task in tasks)
    compares = bool(tasks) and not any(task.has_target for task in tasks)
    many = frozen and rows >= MANY

    batch_size = recipe.batch_size
    if batch_size == "auto":
        batch_size = _batch_size(rows, tasks, writes, many)

    epochs = recipe.epochs
    if epochs == "auto":
        steps = max(rows // batch_size, 1)
        if compares:
            epochs = _compared_epochs(steps, min_steps)
        else:
            epochs = MANY_EPOCHS if many and not writes else _epochs(steps, min_steps)

    patience = recipe.patience
    if patience == "auto":
        patience = _patience(tasks, epochs, light)

    unaugmented = recipe.unaugmented
    if unaugmented == "auto":
        unaugmented = min((task.unaugmented for task in tasks), default=UNAUGMENTED)

    shared = {name: getattr(recipe, name) for name in TrainingOptions.model_fields}

    predicts = all(task.fuses for task in tasks)
    refit = (
        may_refit and frozen and predicts and rows < MANY if recipe.refit == "auto" else recipe.refit == "on"
    )
    return TrainingPlan(
        **shared,
        epochs=epochs,
        batch_size=batch_size,
        unaugmented=unaugmented,
        patience=patience,
        refit=refit,
    )


def _batch_size(rows: int, tasks: Sequence[type[Task]], writes: bool, many: bool) -> int:
    """Return the number of rows of a batch."""
    # the other rows of a batch are what each row is told apart from
    if not all(task.has_target for task in tasks):
        return max(BATCH, min(COMPARED, rows // 16))
    if writes:
        return WRITING_BATCH
    return MANY_BATCH if many else BATCH


def _patience(tasks: Sequence[type[Task]], epochs: int, light: bool) -> int:
    """Return after how many epochs without a better score a training stops; 0: never."""
    of_tasks = min((task.patience for task in tasks), default=0)
    if of_tasks or not light:
        return of_tasks
    return max(LEAST_PATIENCE, round(PATIENCE * epochs))


def _compared_epochs(steps: int, min_steps: int) -> int:
    """Return the number of epochs of so many steps each, where rows are only compared with each other."""
    fewest, most = COMPARED_EPOCHS
    enough = -(-min_steps // steps)  # rounded up
    affordable = max(MIN_EPOCHS, MAX_STEPS // steps)
    return min(max(enough, fewest), most, affordable)


def _epochs(steps: int, min_steps: int) -> int:
    """Return the number of epochs of so many steps each: few for large tables, many for small ones."""
    usual = min(EPOCHS, max(MIN_EPOCHS, MAX_STEPS // steps))
    enough = -(-min_steps // steps)  # rounded up
    return max(usual, enough)
