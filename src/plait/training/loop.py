"""The training loop, from the outside to the inside: `train` goes over epochs, `train_epoch` over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.plan_training import TrainingPlan
from plait.errors import Interrupted
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings, one_thread, to_channels_last
from plait.runs import interrupts
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.runs.files import load_part
from plait.training import blending
from plait.training.baselines import baselines, shares
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.finite import check_loss, check_model
from plait.training.hiding import fit_empty_cells, hide_cells
from plait.training.objective import loss_weights
from plait.training.pace import Pace
from plait.training.schedule import learning_rate
from plait.training.step import UNLABELLED, Step
from plait.training.trackers import Trackers
from plait.training.validation import Validation

# Called after each epoch with its number, how many there are, and its score: the larger the better.
Watch = Callable[[int, int, float], None]


class Callback:
    """Called while a model is trained. Set `training.stop` to stop after the step, as Ctrl-C does."""

    def before_step(self, training: Training, batch: Batch) -> None:
        """Called before each step, with its rows."""

    def after_step(self, training: Training, loss: Tensor) -> None:
        """Called after each step, with its loss."""

    def after_epoch(self, training: Training, progress: Progress) -> None:
        """Called after each epoch, once it is scored."""


@dataclass
class Training:
    """All that the training of one model needs.

    `unlabelled` rows are learned from as well, where there are any. `stop` ends the training after the step.
    `epochs` are those of the plan, or fewer where they would not end before the `deadline`.
    """

    model: MultimodalModel
    plan: Plan
    settings: Settings
    train_data: Dataset
    valid_data: Dataset
    folder: Path
    screen: Screen
    unlabelled: Dataset | None = None
    watch: Watch | None = None
    callbacks: Sequence[Callback] = ()
    deadline: Deadline = NO_LIMIT
    stop: bool = False
    signal: int = 2  # that asked it to stop; that of Ctrl-C where a callback did
    epochs: int = field(init=False)
    pace: Pace = field(init=False)
    step: Step = field(init=False)
    validation: Validation = field(init=False)
    baselines: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.model.to(self.settings.device)
        if self.settings.channels_last:
            to_channels_last(self.model)
        if self.settings.compile:
            self._compile()

        # This decides which empty tokens are trained, so it comes before the optimizer is made.
        self.baselines = baselines(self.train_data)
        fit_empty_cells(self.model, self.train_data, self.baselines)

        self.epochs = self.plan.training.epochs
        self.pace = Pace(self.deadline, self.steps)
        target_shares = shares(self.plan, self.train_data)
        self.step = Step(self.model, self.plan, self.settings, target_shares, self.screen)
        self.validation = Validation(
            self.model, self.valid_data, self.settings, target_shares, self.baselines
        )

    def _compile(self) -> None:
        """Compile encoders and fusions one by one: each encoder runs on another number of rows."""
        for column in self.model.separate_columns:
            self.model.encoder(column).encoder.compile(dynamic=True)
        for target in self.model.fuser_of:
            self.model.fuser(target).fusion.compile(dynamic=True)

    @property
    def options(self) -> TrainingPlan:
        """The options of the training."""
        return self.plan.training

    @property
    def blends(self) -> bool:
        """Whether gradient blending weighs the losses."""
        return self.plan.model.balance == "blend" and bool(blending.blended_targets(self.model))

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are the model, not those of the last."""
        return self.options.keep == "best" and len(self.valid_data) > 0

    @property
    def steps(self) -> int:
        """The steps of one epoch."""
        return len(self.train_data.shuffled(self.options.batch_size, 0))

    @property
    def augmented_epochs(self) -> int:
        """The number of epochs that see cells augmented. The others see them as prediction does."""
        return round((1 - self.options.unaugmented) * self.epochs)


def train(training: Training, resume: bool = False) -> Progress:
    """Train the model in place. Leave it with the weights of the best epoch (or of the last: `keep`).

    Everything random is drawn from the seed and the number of the epoch, or saved with the checkpoint. So a
    training that was killed and resumed ends with the same weights as one that was not, on the same machine
    with the same threads.

    Raises `Interrupted` after Ctrl-C, once all is saved, and `TrainingError` for a loss or weights that are
    not finite.
    """
    options = training.options
    checkpoint = Checkpoint(training.folder, options.checkpoint_minutes, training.plan)
    progress = _restore(training, checkpoint) if resume else Progress()

    trackers = Trackers(training.folder, options.trackers)
    has_small_encoders = all(column.light for column in training.plan.columns.values())
    with (
        one_thread(has_small_encoders),
        interrupts.save_first(training),
        trackers.finished(progress.history),
        training.screen.bar("training", options.epochs * training.steps) as bar,
    ):
        bar.advance(progress.epoch * training.steps + progress.step)
        training.pace = Pace(training.deadline, training.steps)
        while progress.epoch < training.epochs and not progress.over(options.patience):
            steps = train_epoch(training, progress, checkpoint, bar)
            _score(training, progress, checkpoint, steps)
            training.epochs = training.pace.epochs(training.epochs, progress.epoch)
            trackers.write(progress.history)
            bar.draw(_note(progress))
            if training.stop:
                _stop(training, progress, checkpoint)

    # What comes next takes long, and may be stopped too: members of an ensemble, a model of each target.
    plan = training.plan
    if plan.ensemble.members or options.refit or (plan.recipe.singles and len(plan.tasks) > 1):
        _save(training, checkpoint, progress)

    if training.keeps_best:
        checkpoint.restore_best(training.model)
    check_model(training.model, progress.scores(training.keeps_best), options.learning_rate)
    training.validation.calibrate()
    training.model.eval()
    return progress


def train_epoch(training: Training, progress: Progress, checkpoint: Checkpoint, bar: Bar) -> int:
    """Go once over the training rows, or over the remaining ones if this epoch is resumed in its middle.

    Return the number of its steps: fewer than usual if the time is over before its end.
    """
    options = training.options
    if training.blends:
        _measure(training, progress)

    # A resume draws the same order of rows again, but goes on with the generator's saved state.
    sorts_by_length = any(training.model.task(target).sorts_by_length for target in training.model.targets)
    seed = _seed(training.plan.seed, progress.epoch)
    batches = training.train_data.shuffled(options.batch_size, seed, sorts_by_length)
    generator = torch.Generator()
    progress.begin_epoch(generator, seed + 1)

    # The first loss stands for all those before a resume.
    losses = [torch.full((), progress.loss_sum, dtype=torch.float64, device=training.step.device)]
    training.model.train()
    for number in range(progress.step, len(batches)):
        _pace(training, progress.epoch * len(batches) + number, training.epochs * len(batches))
        batch, unlabelled = _draw(training, batches[number], progress.epoch, generator)
        losses.append(_step(training, batch, unlabelled))
        bar.advance()
        training.epochs = training.pace.step(training.epochs, progress.epoch)
        if training.deadline.is_over:
            break

        # After the last step the epoch is scored first.
        is_last = number + 1 == len(batches)
        if not is_last and (training.stop or checkpoint.is_due()):
            progress.mark(number + 1, sum_in_order(losses), generator)
            if training.stop:
                _stop(training, progress, checkpoint)
            _save(training, checkpoint, progress)

    progress.end_epoch(sum_in_order(losses))
    check_loss(progress.loss_sum, progress.epoch + 1, options.learning_rate)
    return number + 1


def _pace(training: Training, steps_before: int, steps: int) -> None:
    """Set the learning rate and the weights of the losses for the next of all steps."""
    training.step.set_learning_rate(learning_rate(steps_before, steps, training.options))
    if not training.blends:
        remaining = 1 - steps_before / steps
        training.step.weights = loss_weights(training.model, training.plan.model.unimodal_weight, remaining)


def _draw(
    training: Training, rows: Tensor, epoch: int, generator: torch.Generator
) -> tuple[Batch, tuple[Batch, Batch] | None]:
    """Return a batch of these rows with some cells hidden, and a draw of unlabelled rows.

    Cells are augmented, but not in the last epochs.
    """
    # The order of these draws is part of what a seed means.
    augments = epoch < training.augmented_epochs
    batch = training.train_data.batch(rows, generator if augments else None)
    batch = hide_cells(batch, training.plan.model.modality_dropout, generator)
    return batch, _draw_unlabelled(training, generator)


def _draw_unlabelled(training: Training, generator: torch.Generator) -> tuple[Batch, Batch] | None:
    """Draw rows without a label: as they are, and with some cells hidden and the others augmented."""
    data = training.unlabelled
    if data is None or not len(data):
        return None
    count = UNLABELLED * training.options.batch_size
    draw = torch.randint(len(data), (count,), generator=generator)
    rows = data.rows[draw]
    weak = data.batch(rows)
    strong = hide_cells(data.batch(rows, generator), 1.0, generator)
    return weak, strong


def _step(training: Training, batch: Batch, unlabelled: tuple[Batch, Batch] | None) -> Tensor:
    """Take one step, and tell the callbacks."""
    for callback in training.callbacks:
        callback.before_step(training, batch)
    loss = training.step(batch, unlabelled)
    for callback in training.callbacks:
        callback.after_step(training, loss)
    return loss


def _score(training: Training, progress: Progress, checkpoint: Checkpoint, steps: int) -> None:
    """Score an epoch of so many steps on validation rows, and keep its weights if it is the best."""
    options = training.options

    # The rate is that of the epoch's last step.
    last_step = progress.epoch * training.steps + steps - 1
    rate = learning_rate(last_step, training.epochs * training.steps, options)
    scores = {
        "learning_rate": rate,
        "loss": progress.loss_sum / steps,
        **training.validation.scores(),
    }
    rank = training.validation.rank([*progress.history, scores], options.best_by)

    is_best = progress.record(scores, rank)
    if is_best and training.keeps_best:
        checkpoint.keep_best(training.model)
    if checkpoint.is_due(between_epochs=True):
        _save(training, checkpoint, progress)

    # Callbacks and `watch` may raise to end the training, so they come last.
    for callback in training.callbacks:
        callback.after_epoch(training, progress)
    if training.watch and rank:
        training.watch(progress.epoch, training.epochs, rank[0])


def _measure(training: Training, progress: Progress) -> None:
    """Weigh the losses anew by what they are on training and validation rows.

    This happens at the beginning, and about ten times in a training.
    """
    every = max(training.epochs // blending.TIMES, 1)
    is_measured = len(progress.measured) > progress.epoch // every
    is_due = progress.epoch % every == 0 and not is_measured

    # A step above 0 means that this epoch was resumed in its middle: it has been measured.
    if is_due and len(training.valid_data) and not progress.step:
        measured = blending.measure(
            training.model, training.train_data, training.valid_data, training.settings, training.step.factors
        )
        progress.measured.append(measured)
    training.step.weights = blending.blended_weights(training.model, progress.measured)


def _stop(training: Training, progress: Progress, checkpoint: Checkpoint) -> NoReturn:
    """Save all, and raise `Interrupted`. Who holds the run's folder says how to go on."""
    _save(training, checkpoint, progress)
    raise Interrupted(
        f"stopped after {progress.epoch} epochs and {progress.step} steps; all is saved", training.signal
    )


def _save(training: Training, checkpoint: Checkpoint, progress: Progress) -> None:
    progress.micro_batch = training.step.micro_batch
    checkpoint.save(training.model, training.step.balancing, training.step.optimizer, progress)


def _restore(training: Training, checkpoint: Checkpoint) -> Progress:
    progress = checkpoint.restore(training.model, training.step.balancing, training.step.optimizer)
    load_part(f"'{checkpoint.file}': progress", lambda: _check_progress(training, progress))

    # Memory ran out with more rows at once.
    if progress.micro_batch:
        training.step.micro_batch = min(training.step.micro_batch, progress.micro_batch)
    return progress


def _check_progress(training: Training, progress: Progress) -> None:
    """Raise `ValueError` or `KeyError` unless a training can go on from here."""
    options = training.options
    progress.check(options.epochs, training.steps)
    if progress.history:
        _check_scores(training, progress.history[0])
        training.validation.rank(progress.history, options.best_by)
    if training.blends:
        blending.blended_weights(training.model, progress.measured)


def _check_scores(training: Training, scores: dict[str, float]) -> None:
    """Raise `KeyError` if an epoch lacks scores that every epoch has."""
    names = ["learning_rate", "loss"]
    if len(training.valid_data):
        names.append("valid_loss")
    for name in names:
        if name not in scores:
            raise KeyError(name)


def sum_in_order(losses: list[Tensor]) -> float:
    """Add up losses one after the other, so that a resumed epoch's sum is the same to the last digit."""
    total = 0.0
    for loss in torch.stack([loss.double() for loss in losses]).tolist():
        total += loss
    return total


def _note(progress: Progress) -> str:
    """Return what the progress bar says of the last epoch: its first two validation scores."""
    scores = list(progress.history[-1].items())
    notes = [f"epoch {progress.epoch}"]

    # The learning rate and the training loss come first.
    for name, score in scores[2:4]:
        notes.append(f"{name.removeprefix('valid_')} {score:.3f}")
    return "  ".join(notes)


def _seed(seed: int, epoch: int) -> int:
    """Return a seed for an epoch. Its successor is used too: no two epochs share one."""
    return (seed * 1_000_003 + epoch) * 2 + 17
