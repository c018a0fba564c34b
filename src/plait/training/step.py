"""One step of training: forward, losses, backward, update. B rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from plait.nn.randomness import random_state, restore_random
from plait.tasks.base import MAIN
from plait.training import memory
from plait.training.buffers import Buffers
from plait.training.first_pass import FirstPass, compare, first_pass
from plait.training.mixing import Mixing
from plait.training.objective import Counts, Weights, added, answer_losses, loss_terms, packed, weighed
from plait.training.row_counts import count_rows
from plait.training.schedule import optimizer_for
from plait.training.unlabelled import consistency, count_unlabelled

Result = TypeVar("Result")

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

        self.buffers = Buffers(model)
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
        """Take a step and return the batch's loss, detached. It stays on the device: to read it is to wait.

        Where memory runs out, go on with smaller micro-batches, as if the step had begun with them.
        """
        loss = self._within_memory(
            lambda: self._gradients(batch, unlabelled), len(batch), discard=self._discard_gradients
        )
        self._update()
        if self.balancing.again:
            self.balancing.after(self._within_memory(lambda: self._losses_after(batch), len(batch)))
        return loss

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
            except (RuntimeError, MemoryError) as error:
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
            (mixing,) = self._draw_mixings([batch])
            loss = self._backward(self._on_device(batch), mixing)
        if unlabelled is not None:
            self._backward_unlabelled(*unlabelled)
        return loss

    def _on_device(self, batch: Batch) -> Batch:
        """Return a batch or a micro-batch as it is encoded. It is packed first: that looks at its masks."""
        return packed(self.model, batch).to(self.device)

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
        """Add up gradients over micro-batches, to those of the batch.

        A loss is a mean over the rows of the batch that have a label and a cell for it, however many of them
        are in each micro-batch. Losses that compare rows still compare all of the batch.
        """
        micro_batches = [self._on_device(rows) for rows in cut(batch, self.micro_batch)]
        mixings = self._draw_mixings(micro_batches)
        if not self._needs_first_pass:
            counts = count_rows(self.model, micro_batches, mixings)
            losses = []
            for micro_batch, mixing in zip(micro_batches, mixings, strict=True):
                losses.append(self._backward(micro_batch, mixing, counts))
            return torch.stack(losses).sum()

        first = first_pass(self.model, micro_batches, mixings, self.settings.autocast)
        self.buffers.restore()
        compared, gradients = self._compare(first, micro_batches, batch)
        if self.balancing.again:
            self.balancing.before(self._weighed(first, compared))

        losses = [self._mean(compared)]
        for number, micro_batch in enumerate(micro_batches):
            # The second pass must drop what the first one has dropped.
            restore_random(first.states[number])
            losses.append(self._backward(micro_batch, mixings[number], first.counts, gradients[number]))
        return torch.stack(losses).sum()

    @property
    def _needs_first_pass(self) -> bool:
        """Whether gradients need to know what only the outputs of the whole batch tell.

        They do if rows are compared, if tasks leave out rows by their outputs, or if the balancing needs the
        losses.
        """
        if self.model.comparisons or self.balancing.again:
            return True
        return any(task.leaves_rows_out for task in self.model.tasks_by_target.values())

    def _draw_mixings(self, micro_batches: Sequence[Batch]) -> list[Mixing] | list[None]:
        """Draw the rows that each micro-batch mixes, None for each if it mixes none."""
        if not self.options.mixup:
            return [None] * len(micro_batches)
        sizes = [len(micro_batch) for micro_batch in micro_batches]
        return Mixing.draw(self.options.mixup, sizes, self.device)

    def _compare(
        self, first: FirstPass, micro_batches: Sequence[Batch], batch: Batch
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Return the losses that compare rows, and their gradients at the outputs of each micro-batch."""
        if not first.compared:
            return {}, [{} for _ in micro_batches]
        autocast, on_device = self.settings.autocast, batch.to(self.device)
        return compare(self.model, first.compared, micro_batches, on_device, autocast, self.factors)

    def _weighed(self, first: FirstPass, compared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each target's weighed loss on a whole batch."""
        by_target = {**first.losses}
        for target, loss in compared.items():
            by_target[target] = {MAIN: loss}
        return weighed(by_target, self.weights)

    def _backward(
        self,
        batch: Batch,
        mixing: Mixing | None,
        counts: Counts | None = None,
        gradients: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Add the gradients of a batch, or of a micro-batch of one that has these counts.

        Return the detached loss: that of the targets, without unimodal losses. Targets with `gradients` are
        left out of it: they have been counted already.
        """
        with self.settings.autocast():
            by_target = added(loss_terms(self.model, batch, mixing, gradients), counts)
            sums = weighed(by_target, self.weights)

        # No row may have a label of any target.
        if sums:
            self.balancing.backward(sums, self.shared)

        main = {}
        for target, by_name in by_target.items():
            if not gradients or target not in gradients:
                main[target] = by_name[MAIN].detach()
        return self._mean(main)

    def _backward_unlabelled(self, weak: Batch, strong: Batch) -> None:
        """Add the gradients of rows without a label, which no balancing weighs."""
        counts = count_unlabelled(self.model, weak)
        pairs = zip(cut(weak, self.micro_batch), cut(strong, self.micro_batch), strict=True)
        for weak_rows, strong_rows in pairs:
            with self.settings.autocast():
                weak_rows = self.model.packed(weak_rows).to(self.device)
                strong_rows = self.model.packed(strong_rows).to(self.device)
                loss = consistency(self.model, weak_rows, strong_rows, self.factors, counts)
            (loss * self.options.unlabelled).backward()

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
        # One row more than `micro_batch` is not cut here either.
        micro_batches = [self._on_device(rows) for rows in cut(batch, self.micro_batch + 1)]
        first = first_pass(self.model, micro_batches, [None] * len(micro_batches), self.settings.autocast)
        compared = {}
        if first.compared:
            with self.settings.autocast():
                compared = answer_losses(self.model, first.compared, batch.to(self.device))
        return self._weighed(first, compared)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def cut(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `size` rows."""
    for rows in torch.arange(len(batch)).split(size):
        yield batch.take(rows)
