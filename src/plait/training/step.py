"""One step of training: forward, losses, backward, update. B rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from plait.balancing.base import Share, balancings, summed
from plait.console import Screen
from plait.data.plan import Plan
from plait.errors import TrainingError
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings
from plait.tasks.base import MAIN
from plait.training import memory
from plait.training.objective import (
    Mixing,
    Weights,
    consistency,
    losses,
    random_state,
    restore_random,
    weighed,
    whole_batch_losses,
)
from plait.training.schedule import optimizer_for

Result = TypeVar("Result")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
UNLABELLED = 2  # rows without a label in a step, for each row of the batch


class Step:
    """The optimizer, the balancing of targets, and the micro-batches.

    `micro_batch` is how many rows are in memory at once. It shrinks when memory runs out. Gradients are then
    added up over the micro-batches of a batch, so a step stays the one that the recipe asks for. `weights`
    are those of the losses, and may change from step to step.
    """

    def __init__(
        self,
        model: MultimodalModel,
        plan: Plan,
        settings: Settings,
        shares: Mapping[str, Share],
        screen: Screen,
    ) -> None:
        self.model, self.plan, self.screen = model, plan, screen
        self.options, self.settings = plan.training, settings
        self.shares = shares
        self.factors = {target: share.factor for target, share in shares.items()}
        self.device = torch.device(settings.device)
        self.weights: Weights = {}

        kind, config = balancings.choose(plan.balancing)
        self.balancing = kind.build(config, dict(shares)).to(settings.device)
        self.optimizer = optimizer_for(model, plan.training, self.balancing.parameters())
        self.micro_batch = plan.training.micro_batch or plan.training.batch_size

        self.buffers = _Buffers(model)
        self.parameters = _trained(model)

        # Each target has a task of its own. It shares all before that with other targets.
        self.shared: list[nn.Parameter] = []
        for module in (model.encoders, model.table_columns, model.fusers):
            if module is not None:
                self.shared += _trained(module)

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step. Pretrained parameters take their share of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]

    def __call__(self, batch: Batch, unlabelled: tuple[Batch, Batch] | None = None) -> Tensor:
        """Take a step and return the batch's loss, detached.

        Where memory runs out, go on with smaller micro-batches, as if the step had begun with them.
        """
        loss = self._within_memory(
            lambda: self._gradients(batch, unlabelled), len(batch), discard=self._discard_gradients
        )
        self._update()
        if self.balancing.again:
            self.balancing.after(self._within_memory(lambda: self._losses_after(batch), len(batch)))
        return loss.cpu()

    def _within_memory(
        self, attempt: Callable[[], Result], rows: int, discard: Callable[[], None] | None = None
    ) -> Result:
        """Return what an attempt on a batch of so many rows returns.

        Where memory runs out, undo what the attempt has changed, then try smaller micro-batches.
        `discard` undoes what is neither a random number nor a buffer of the model.
        """
        random_before = random_state()
        self.buffers.save()
        while True:
            try:
                return attempt()
            except RuntimeError as error:
                if not memory.is_out_of_memory(error):
                    raise
                if self.micro_batch <= 1:
                    raise TrainingError(
                        f"out of memory, even with one row at a time: {memory.advice(self.plan)}"
                    ) from error

            # Outside of `except`: there the error still holds the tensors of the failed attempt.
            if discard is not None:
                discard()
            self.buffers.restore()
            restore_random(random_before)
            self.micro_batch = max(min(self.micro_batch, rows) // 2, 1)
            self.screen.warn(
                f"out of memory: batches of {self.options.batch_size} now go in micro-batches of "
                f"{self.micro_batch}"
            )

    def _gradients(self, batch: Batch, unlabelled: tuple[Batch, Batch] | None) -> Tensor:
        """Add up the gradients of a step, and return the batch's loss, detached."""
        # The last batch of an epoch may have one row more than asked (see `Dataset.shuffled`). This is no
        # reason to cut it.
        if len(batch) > self.micro_batch + 1:
            loss = self._in_micro_batches(batch)
        else:
            loss = self._backward(batch.to(self.device))
        if unlabelled is not None:
            self._backward_unlabelled(*unlabelled)
        return loss

    def _discard_gradients(self) -> None:
        """Forget the gradients of an attempt that failed, and what the balancing holds of it."""
        self.optimizer.zero_grad(set_to_none=True)
        self.balancing.discard()

    def _update(self) -> None:
        """Take the optimizer's step. It is never repeated: smaller micro-batches would save no memory."""
        self.balancing.finish(self.shared)
        if self.options.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _in_micro_batches(self, batch: Batch) -> Tensor:
        """Add up gradients over micro-batches. Losses that compare rows still compare all of the batch."""
        micro_batches = [rows.to(self.device) for rows in cut(batch, self.micro_batch)]
        if not self.model.comparisons:
            terms = []
            for micro_batch in micro_batches:
                share = len(micro_batch) / len(batch)
                terms.append(self._backward(micro_batch, share))
            return torch.stack(terms).sum()

        compared, gradients, states = whole_batch_losses(
            self.model, micro_batches, batch.to(self.device), self.settings.autocast, self.factors
        )
        terms = [self._mean(compared)]
        for micro_batch, gradient, state in zip(micro_batches, gradients, states, strict=True):
            # The second pass must drop what the first one has dropped.
            restore_random(state)
            share = len(micro_batch) / len(batch)
            terms.append(self._backward(micro_batch, share, gradient))
        return torch.stack(terms).sum()

    def _backward(
        self, batch: Batch, share: float = 1.0, gradients: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Add the gradients of some rows, which are this share of their batch. Return their detached loss.

        The loss is that of the targets, without unimodal losses. Targets with `gradients` are left out of
        it: they have been counted already.
        """
        counted = gradients or {}
        with self.settings.autocast():
            mixup = self.options.mixup
            mixing = Mixing.draw(mixup, len(batch), self.device) if mixup else None
            by_target = losses(self.model, batch, mixing, gradients)
            sums = weighed(by_target, self.weights)

            # Targets with `gradients` were compared over the whole batch, so they have no share of it.
            if share != 1.0:
                for target, loss in sums.items():
                    sums[target] = loss if target in counted else loss * share

        # No row may have a label of any target.
        if sums:
            self.balancing.backward(sums, self.shared)

        main = {}
        for target, by_name in by_target.items():
            if target not in counted:
                main[target] = by_name[MAIN].detach()
        return self._mean(main) * share

    def _backward_unlabelled(self, weak: Batch, strong: Batch) -> None:
        """Add the gradients of rows without a label, which no balancing weighs."""
        rows = UNLABELLED * self.options.batch_size
        pairs = zip(cut(weak, self.micro_batch), cut(strong, self.micro_batch), strict=True)
        for weak_rows, strong_rows in pairs:
            with self.settings.autocast():
                weak_rows = weak_rows.to(self.device)
                strong_rows = strong_rows.to(self.device)
                loss = consistency(self.model, weak_rows, strong_rows, self.factors)
            share = len(weak_rows) / rows
            (loss * self.options.unlabelled * share).backward()

    def _mean(self, by_target: Mapping[str, Tensor]) -> Tensor:
        """Return what these targets add to the mean loss of all.

        Each counts in units of its baseline's loss and times its weight, as on validation rows, whatever
        balances the gradients.
        """
        if not by_target:
            return torch.zeros((), device=self.device)
        total_weight = sum(share.weight for share in self.shares.values())
        terms = []
        for target, loss in by_target.items():
            terms.append((loss.float(), self.factors[target] / total_weight))
        return summed(terms)

    @torch.no_grad()
    def _losses_after(self, batch: Batch) -> dict[str, Tensor]:
        """Return each target's loss on a batch, once the step has been taken."""
        sums: dict[str, Tensor] = {}
        # One row more than `micro_batch` is not cut here either.
        for micro_batch in cut(batch, self.micro_batch + 1):
            with self.settings.autocast():
                by_target = losses(self.model, micro_batch.to(self.device))
                sums_here = weighed(by_target, self.weights)
            for target, loss in sums_here.items():
                term = loss * len(micro_batch) / len(batch)
                if target in sums:
                    term = sums[target] + term
                sums[target] = term
        return sums


class _Buffers:
    """The buffers that a step may change, to undo an attempt at it.

    Batch norms change theirs in place, so these are copied. Other modules put a new tensor in place of a
    buffer, as the bank of an alignment is. There it is enough to remember the tensor before: to copy all
    would cost milliseconds, since the statistics of texts have megabytes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._in_place: list[Tensor] = []
        self._replaceable: list[tuple[nn.Module, str]] = []
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if isinstance(module, BATCH_NORMS):
                    self._in_place.append(buffer)
                else:
                    self._replaceable.append((module, name))
        self._copies = [buffer.clone() for buffer in self._in_place]
        self._before: list[Tensor] = []

    def save(self) -> None:
        """Remember the present buffers."""
        for copied, buffer in zip(self._copies, self._in_place, strict=True):
            copied.copy_(buffer)
        self._before = [getattr(module, name) for module, name in self._replaceable]

    def restore(self) -> None:
        """Set the buffers to what they were when they were saved."""
        for copied, buffer in zip(self._copies, self._in_place, strict=True):
            buffer.copy_(copied)
        for buffer, (module, name) in zip(self._before, self._replaceable, strict=True):
            setattr(module, name, buffer)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def cut(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `size` rows."""
    for rows in torch.arange(len(batch)).split(size):
        yield batch.take(rows)


def check_finite(loss: float, epoch: int, rate: float) -> None:
    """Raise `TrainingError` for a loss that is not finite."""
    if not torch.isfinite(torch.tensor(loss)):
        raise TrainingError(
            f"the training loss is no longer finite in epoch {epoch}; "
            f"try a smaller learning rate: --set training.learning_rate={rate / 10:g}"
        )
