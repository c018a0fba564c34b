"""How long to train and in what batches, by the number of training rows."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from plait.recipe.sections import COMPARED, LEAST_STEPS, UNAUGMENTED, TrainingOptions, TrainingRecipe
from plait.tasks.base import Task
from plait.tasks.base_comparison import Comparison

EPOCHS = 40
MIN_EPOCHS = 8
MAX_STEPS = 12_000  # steps beyond which a training has fewer epochs
BATCH = 32
WRITING_BATCH = 16  # rows of a batch where texts are written
MANY = 4000  # rows from which on batches are large where no encoder is trained
MANY_BATCH, MANY_EPOCHS = 128, 20


class TrainingPlan(TrainingOptions):
    """The training loop with every number filled in.

    What depends on the machine (precision, memory layout, compilation) stays open in the recipe: each
    machine that runs the model decides it, see `nn/device.py`.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    unaugmented: float = Field(ge=0, le=1)

    @property
    def augmented_epochs(self) -> int:
        """The number of epochs that see cells augmented. The others see them as prediction does."""
        return round((1 - self.unaugmented) * self.epochs)


def plan_training(
    recipe: TrainingRecipe, rows: int, tasks: Sequence[type[Task]] = (), frozen: bool = False
) -> TrainingPlan:
    """Fill in what the recipe leaves open, for so many training rows.

    `frozen`: no encoder of media or texts is trained.
    """
    min_steps = max((task.steps for task in tasks), default=LEAST_STEPS)
    unaugmented = min((task.unaugmented for task in tasks), default=UNAUGMENTED)
    many = frozen and rows >= MANY

    batch_size = recipe.batch_size
    if batch_size == "auto":
        compares = any(issubclass(task, Comparison) for task in tasks)
        batch_size = _batch_size(rows, compares, min_steps > LEAST_STEPS, many)
    epochs = recipe.epochs
    if epochs == "auto":
        epochs = _epochs(max(rows // batch_size, 1), min_steps, many)
    if recipe.unaugmented != "auto":
        unaugmented = recipe.unaugmented

    shared = {name: getattr(recipe, name) for name in TrainingOptions.model_fields}
    return TrainingPlan(**shared, epochs=epochs, batch_size=batch_size, unaugmented=unaugmented)


def _batch_size(rows: int, compares: bool, writes: bool, many: bool) -> int:
    if compares:  # a batch holds what each row is told apart from
        return max(BATCH, min(COMPARED, rows // 4))
    if writes:
        return WRITING_BATCH
    return MANY_BATCH if many else BATCH


def _epochs(steps: int, min_steps: int, many: bool) -> int:
    """Return the number of epochs of so many steps each: few for large tables, many for small ones."""
    writes = min_steps > LEAST_STEPS
    if many and not writes:
        return MANY_EPOCHS
    usual = min(EPOCHS, max(MIN_EPOCHS, MAX_STEPS // steps))
    enough = -(-min_steps // steps)
    return max(usual, enough)
