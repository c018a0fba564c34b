"""The training loop, on one page: `train` goes over epochs, `_epoch` over batches, `_step` over one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from plait.balancing.base import Balancing, Share, summed
from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import configured
from plait.errors import Interrupted, TrainingError
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings, to_channels_last
from plait.prediction.predictor import BATCH
from plait.runs import interrupts
from plait.training.checkpoint import Checkpoint, Progress
from plait.training.objective import (
    EMPTY,
    FUSED,
    OWN,
    Losses,
    Mixing,
    Weights,
    blended,
    cached,
    consistency,
    losses,
    restore_random,
    settled,
    weighed,
)
from plait.training.schedule import learning_rate, optimizer_for
from plait.training.trackers import Trackers
from plait.training.validation import Validation, shares

BLENDS = 10  # times in a training that losses are weighed anew


UNLABELLED = 2  # rows without a label in a step, for each row of the batch


Watch = Callable[
    [int, int, float], None
]  # an epoch's number, how many there are, and its score: the larger the better


@dataclass
class Training:
    """All that one fit of a model's weights needs. `micro_batch` shrinks when memory runs out;
    gradients are then added up over the parts of a batch, so that a step stays the step that the recipe
    asked for. `weights` are those of the losses.
    """

    model: MultimodalModel
    plan: Plan
    settings: Settings
    train_data: Dataset
    valid_data: Dataset
    folder: Path
    screen: Screen
    optimizer: torch.optim.Optimizer = field(init=False)
    micro_batch: int = field(init=False)
    blends: bool = field(init=False)
    unlabelled: Dataset | None = None
    watch: Watch | None = None
    weights: Weights = field(default_factory=dict)
    shares: dict[str, Share] = field(init=False)
    balancing: Balancing = field(init=False)
    validation: Validation = field(init=False)
    stop: bool = False

    def __post_init__(self) -> None:
        self.model.to(self.settings.device)
        if self.settings.channels_last:
            to_channels_last(self.model)
        if (
            self.settings.compile
        ):  # part by part: which rows a column is missing in is decided between them, in Python
            for part in (
                *(self.model.encoder(c).encoder for c in self.model.encoded_alone),
                *(part.fusion for part in self.model.fused.values()),
            ):
                part.compile(dynamic=True)  # type: ignore[union-attr]
        self.shares = shares(self.plan, self.train_data)
        kind, config = configured("balancing", self.plan.balancing)
        self.balancing = kind.build(config, self.shares).to(self.settings.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.shared = [
            p
            for part in (self.model.encoders, self.model.cells, self.model.fused)
            if part
            for p in part.parameters()
            if p.requires_grad
        ]
        self.optimizer = optimizer_for(self.model, self.plan.training, self.balancing.parameters())
        self.micro_batch = self.plan.training.micro_batch or self.plan.training.batch_size
        self.blends = self.plan.model.balance == "blend" and any(
            part.solo for part in self.model.fused.values()
        )
        self.device = torch.device(self.settings.device)
        self.validation = Validation(self.model, self.train_data, self.valid_data, self.settings, self.shares)


def train(run: Training, resume: bool = False) -> Progress:
    """Trains the model in place and leaves it with the weights of the best epoch (or the last: `keep`).

    Everything random is drawn from the seed and the number of the epoch, or saved with the checkpoint:
    a training that was killed and resumed ends with the same weights as one that was not, on the same
    machine with the same threads. Raises `Interrupted` after Ctrl-C, once all is saved; `TrainingError`
    when the loss is no longer finite.
    """
    recipe = run.plan.training
    for t in (t for t in run.model.targets if run.model.task(t).fuses):
        run.model.task(t).guesses.fill_(not _taught_without_inputs(run, t))
    if run.model.cells:
        run.model.cells.teach(
            {c: present[run.train_data.rows] for c, present in run.train_data.prepared.batch.present.items()}
        )
    checkpoint = Checkpoint(run.folder, recipe.checkpoint_minutes)
    progress = checkpoint.restore(run.model, run.balancing, run.optimizer) if resume else Progress()
    trackers, steps = Trackers(run.folder, recipe.trackers), _steps(run)
    with interrupts.save_first(run), run.screen.bar("training", recipe.epochs * steps) as bar:
        bar.advance(progress.epoch * steps + progress.step)
        while progress.epoch < recipe.epochs and not progress.over(recipe.patience):
            if run.blends:
                _measure(run, progress)
            _epoch(run, progress, checkpoint, bar)
            rate = learning_rate((progress.epoch + 1) * steps - 1, recipe.epochs * steps, recipe)
            scores = {"learning_rate": rate, "loss": progress.loss_sum / steps, **run.validation.scores()}
            rank = run.validation.rank([*progress.history, scores], recipe.best_by)
            better = progress.record(scores, rank)
            if better and recipe.keep == "best" and len(run.valid_data):
                checkpoint.save_best(run.model)
            if checkpoint.is_due(between_epochs=True):
                checkpoint.save(run.model, run.balancing, run.optimizer, progress)
            trackers.write(progress.history)
            bar.draw(_words(progress, scores))
            if run.watch and rank:
                run.watch(progress.epoch, recipe.epochs, rank[0])
    if run.plan.ensemble.members:  # what comes next takes long, and may be stopped too
        checkpoint.save(run.model, run.balancing, run.optimizer, progress)
    if recipe.keep == "best" and len(run.valid_data):
        checkpoint.restore_best(run.model)
    run.validation.calibrate()
    run.model.eval()
    return progress


def _taught_without_inputs(run: Training, target: str) -> bool:
    """Whether some training row has a label but none of the target's inputs: what that says is learned
    like all else.
    """
    batch, rows = run.train_data.prepared.batch, run.train_data.rows
    there = torch.stack([batch.present[c] for c in run.model.task(target).read(run.model.columns)]).any(0)
    return bool((batch.labelled[target] & ~there)[rows].any())


def _epoch(run: Training, progress: Progress, checkpoint: Checkpoint, bar: Bar) -> None:
    """One pass over the training rows, or the rest of it after a resume in its middle."""
    settings, recipe = run.plan.training, run.plan
    writes = any(not (task.fuses or task.compares) for task in map(run.model.task, run.model.targets))
    batches = run.train_data.shuffled(
        settings.batch_size, seed=_seed(recipe.seed, progress.epoch), alike=writes
    )
    steps = settings.epochs * len(batches)
    generator = torch.Generator()
    progress.begin_epoch(generator, _seed(recipe.seed, progress.epoch) + 1)
    whole = progress.epoch >= settings.augmented_epochs
    taken = [torch.tensor(progress.loss_sum, dtype=torch.float64)]  # added up at the end
    run.model.train()
    for step in range(progress.step, len(batches)):
        rate = learning_rate(progress.epoch * len(batches) + step, steps, settings)
        for group in run.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        if not run.blends:
            run.weights = settled(
                run.model, recipe.model.alone, 1 - (progress.epoch * len(batches) + step) / steps
            )
        batch = run.train_data.batch(batches[step], None if whole else generator).drop(
            recipe.model.modality_dropout, generator
        )
        taken.append(_step_in_memory(run, batch, _unlabelled(run, generator)))
        bar.advance()
        if run.stop or checkpoint.is_due():
            progress.mark(step + 1, _sum(taken), generator)
            checkpoint.save(run.model, run.balancing, run.optimizer, progress)
            if run.stop:
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1}, all is saved; go on with: plait fit --resume "
                    f"{run.folder}"
                )
    progress.end_epoch(_sum(taken))
    if not math.isfinite(progress.loss_sum):
        raise TrainingError(
            f"the training loss is no longer finite in epoch {progress.epoch + 1}; "
            f"try a smaller learning rate: --set training.learning_rate={settings.learning_rate / 10:g}"
        )


def _unlabelled(run: Training, generator: torch.Generator) -> tuple[Batch, Batch] | None:
    """Some rows without a label, as they are, and with some columns hidden and the others augmented."""
    data = run.unlabelled
    if data is None or not len(data):
        return None
    rows = data.rows[
        torch.randint(len(data), (UNLABELLED * run.plan.training.batch_size,), generator=generator)
    ]
    return data.batch(rows), data.batch(rows, generator).drop(1.0, generator)


def _step(run: Training, batch: Batch, unlabelled: tuple[Batch, Batch] | None = None) -> Tensor:
    """Forward, loss, backward, update: the loss of the batch, detached. One row more than asked is no
    reason to cut: it is the last batch of an epoch (see `Dataset.shuffled`).
    """
    taken = (
        _in_parts(run, batch) if len(batch) > run.micro_batch + 1 else [_backward(run, batch.to(run.device))]
    )
    for weak, strong in (
        zip(*(_parts(b, run.micro_batch) for b in unlabelled), strict=True) if unlabelled else ()
    ):
        with run.settings.autocast():
            loss = consistency(
                run.model,
                weak.to(run.device),
                strong.to(run.device),
                {t: share.factor for t, share in run.shares.items()},
            )
        (
            loss * run.plan.training.unlabelled * (len(weak) / (UNLABELLED * run.plan.training.batch_size))
        ).backward()
    run.balancing.finish(run.shared)
    if run.plan.training.clip:
        torch.nn.utils.clip_grad_norm_(run.parameters, run.plan.training.clip)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.balancing.again:
        run.balancing.after(_losses_now(run, batch))
    return (taken[0] if len(taken) == 1 else torch.stack(taken).sum()).cpu()


def _in_parts(run: Training, batch: Batch) -> list[Tensor]:
    """Gradients are added up part by part; rows that are compared with each other still are with those
    of all parts.
    """
    parts = [part.to(run.device) for part in _parts(batch, run.micro_batch)]
    if not any(run.model.task(t).compares for t in run.model.targets):
        return [_backward(run, part, len(part) / len(batch)) for part in parts]
    factors = {t: share.factor for t, share in run.shares.items()}
    found, gradients, states = cached(run.model, parts, batch.to(run.device), run.settings.autocast, factors)
    taken = [_weighed(run, found)]
    for part, one, state in zip(parts, gradients, states, strict=True):
        restore_random(state)
        taken.append(_backward(run, part, len(part) / len(batch), one))
    return taken


def _backward(
    run: Training, batch: Batch, share: float = 1.0, gradients: dict[str, Tensor] | None = None
) -> Tensor:
    """The loss of some rows, weighed by their share of the batch, detached, without those of parts by
    themselves; the gradients of all are added up. With `gradients` of whole batches' comparisons their
    losses are not counted: they have been.
    """
    alpha = run.plan.training.mixup
    with run.settings.autocast():
        mixing = Mixing.draw(alpha, len(batch), run.device) if alpha else None
        parts = losses(run.model, batch, mixing, gradients)
        found = weighed(parts, run.weights)
        if share != 1.0:
            found = {t: loss if t in (gradients or ()) else loss * share for t, loss in found.items()}
    if found:
        run.balancing.backward(found, run.shared)
    whole = {
        t: some[OWN if OWN in some else FUSED].detach()
        for t, some in parts.items()
        if t not in (gradients or ())
    }
    return _weighed(run, {t: loss * share for t, loss in whole.items()} if share != 1.0 else whole)


def _weighed(run: Training, found: dict[str, Tensor]) -> Tensor:
    """The part of these targets in the mean loss of all, as on validation rows: each in units of the
    guess that sees no input, and by its weight, whatever balances their gradients.
    """
    if not found:
        return torch.zeros((), device=run.device)
    weights = sum(share.weight for share in run.shares.values())
    return summed([(loss.float(), run.shares[t].factor / weights) for t, loss in found.items()])


@torch.no_grad()
def _losses_now(run: Training, batch: Batch) -> dict[str, Tensor]:
    """Each target's loss on a batch, once the step has been taken."""
    found: dict[str, list[Tensor]] = {}
    for part in _parts(batch, run.micro_batch + 1):
        with run.settings.autocast():
            for t, loss in weighed(losses(run.model, part.to(run.device)), run.weights).items():
                found.setdefault(t, []).append(loss * len(part) / len(batch))
    return {t: torch.stack(parts).sum() for t, parts in found.items()}


def _step_in_memory(run: Training, batch: Batch, unlabelled: tuple[Batch, Batch] | None) -> Tensor:
    """A step that cuts its batch into smaller parts for as long as memory runs out."""
    while True:
        try:
            return _step(run, batch, unlabelled)
        except (
            RuntimeError
        ) as error:  # torch.OutOfMemoryError is one; on a CPU there is only the text to go by
            if not _is_out_of_memory(error) or run.micro_batch <= 1:
                raise
            run.optimizer.zero_grad(set_to_none=True)
            run.micro_batch = max(min(run.micro_batch, len(batch)) // 2, 1)
            run.screen.warn(
                f"out of memory: batches of {run.plan.training.batch_size} now go in parts of "
                f"{run.micro_batch}"
            )


@torch.inference_mode()
def _measure(run: Training, progress: Progress) -> None:
    """Weighs the losses anew, at the beginning and ten times in a training, by how they are on training
    and validation rows.
    """
    every = max(run.plan.training.epochs // BLENDS, 1)
    is_due = progress.epoch % every == 0 and len(progress.measured) <= progress.epoch // every
    if (
        len(run.valid_data) and not progress.step and is_due
    ):  # a step above 0: resumed in the middle of an epoch
        run.model.eval()
        sides = (_mean_losses(run, run.train_data), _mean_losses(run, run.valid_data))
        progress.measured.append({name: [side[name] for side in sides] for name in sides[0]})
    # without rows to measure by all weigh the same
    names = (FUSED, *(p for part in run.model.fused.values() for p in part.parts))  # type: ignore[union-attr]
    found = blended(progress.measured or [{name: [0.0, 0.0] for name in names}])
    run.weights = {t: found for t in run.model.targets if run.model.task(t).fuses}


def _mean_losses(run: Training, data: Dataset) -> dict[str, float]:
    found: dict[str, float] = {}
    for batch in data.in_order(BATCH):
        with run.settings.autocast():
            measured: Losses = losses(run.model, batch.to(run.device))
        for t, some in measured.items():
            for name, loss in some.items():
                if name not in (OWN, EMPTY):
                    found[name] = found.get(name, 0.0) + float(loss) * run.shares[t].factor * len(
                        batch
                    ) / len(data)
    return found


def _sum(taken: list[Tensor]) -> float:
    """One after the other, so that a resumed epoch's sum, which begins with a part of it, is the same
    to the last digit.
    """
    summed = 0.0
    for loss in torch.stack([loss.double() for loss in taken]).tolist():
        summed += loss
    return summed


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in text
        or "can't allocate memory" in text
    )


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for rows in torch.arange(len(batch)).split(size):
        yield batch.take(rows)


def _words(progress: Progress, scores: dict[str, float]) -> str:
    shown = [
        f"epoch {progress.epoch}",
        *(f"{k.removeprefix('valid_')} {v:.3f}" for k, v in list(scores.items())[2:4]),
    ]
    return "  ".join(shown)


def _steps(run: Training) -> int:
    return len(run.train_data.shuffled(run.plan.training.batch_size, 0))


def _seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) * 2 + 17
