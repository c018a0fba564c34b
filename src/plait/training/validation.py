"""How a model does on validation rows while it is trained: scores, which epoch is the best, and what is
calibrated at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from plait.balancing.base import Share
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings
from plait.prediction.predictor import BATCH
from plait.tasks.base import joined
from plait.training.objective import FUSED

SCALED = 10_000  # labels, at most, that the loss of a guess is worked out on


LEAST = 1e-3  # that such a loss is taken for: what hardly varies is guessed well


SMOOTHED = 5  # epochs over which a validation score is averaged to choose the best


def shares(plan: Plan, data: Dataset) -> dict[str, Share]:
    """What each target's loss is weighed by, from its training labels. A single one is what it is."""
    tasks, found = data.preprocessing.tasks, {}
    for t, task in tasks.items():
        labels = labelled(data, t, data.rows)[1]
        some = (
            labels[torch.linspace(0, len(labels) - 1, min(len(labels), SCALED)).long()]
            if len(labels)
            else labels
        )
        scale = max(task.guess(some), LEAST) if len(tasks) > 1 and len(labels) else 1.0
        found[t] = Share(
            float(plan.tasks[t].options.get("weight", 1.0)) if len(tasks) > 1 else 1.0, scale, task.squared
        )
    return found


@dataclass
class Validation:
    """The validation rows of a training, which may be none."""

    model: MultimodalModel
    train_data: Dataset
    valid_data: Dataset
    settings: Settings
    shares: Mapping[str, Share]

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Every task's loss and metrics; nothing when there are no rows. `valid_loss` is the loss of a
        single target; of several the mean of their losses, each in units of the guess that sees no
        input, and weighed as the recipe says. `valid_skill`, of several, is the same mean of how far
        their main metrics are on the way from that guess (0) to perfection (1).
        """
        if not len(self.valid_data):
            return {}
        taken: dict[str, list[tuple[float, int]]] = {t: [] for t in self.model.targets}
        outputs: dict[str, list[Tensor]] = {t: [] for t in self.model.targets}
        for batch in self._batches():
            with self.settings.autocast():
                found = self.model(batch)
                losses = self.model.losses(found, batch.targets, batch.labelled)
            for t, loss in losses.items():
                taken[t].append((float(loss), int(batch.labelled[t].sum())))
            for t, output in found.items():
                outputs[t].append(self._kept(t, output))
        scores: dict[str, float] = {}
        lost = {
            t: sum(loss * n for loss, n in some) / sum(n for _, n in some)
            for t, some in taken.items()
            if any(n for _, n in some)
        }
        several = len(self.model.targets) > 1
        if several:
            scores |= {f"valid_{t}_loss": loss for t, loss in lost.items()}
        if lost:
            scores["valid_loss"] = self._mean({t: loss / self.shares[t].scale for t, loss in lost.items()})
        skills = {}
        for target, parts in outputs.items():
            output, truth = labelled(self.valid_data, target, joined(parts))
            if len(truth):
                task = self.model.task(target)
                measured = task.measure(output.numpy(), truth.numpy())
                scores |= {f"valid_{target}_{name}": value for name, value in measured.items()}
                skills[target] = skill(measured[task.score], self._guessed[target], task.higher)
        if several and skills:
            scores["valid_skill"] = self._mean(skills)
        return scores

    def _mean(self, values: Mapping[str, float]) -> float:
        """By the targets' weights."""
        return sum(self.shares[t].weight * value for t, value in values.items()) / sum(
            self.shares[t].weight for t in values
        )

    @cached_property
    def _guessed(self) -> dict[str, float]:
        """Each target's main metric for the guess that sees no input. Of what compares rows: none."""
        found = {}
        for target, task in self.train_data.preprocessing.tasks.items():
            known, wanted = (
                labelled(data, target, data.rows)[1] for data in (self.train_data, self.valid_data)
            )
            if task.compares or not len(known) or not len(wanted):
                found[target] = 0.0
            else:
                prior = task.prior(known)
                found[target] = task.measure(prior.expand(len(wanted), *prior.shape).numpy(), wanted.numpy())[
                    task.score
                ]
        return found

    @torch.inference_mode()
    def calibrate(self) -> None:
        """Sets what each task, and its columns' votes, leave to the validation rows."""
        kept: dict[str, dict[str, list[Tensor]]] = {
            t: {} for t in self.model.targets if self.model.task(t).calibrates
        }
        for batch in self._batches() if kept and len(self.valid_data) else ():
            with self.settings.autocast():
                encoded = self.model.encode(batch)
                outputs = self.model.answer(self.model.fuse(encoded, batch.present), encoded)
                own = self.model.own(encoded)
            for t, parts in kept.items():
                for name, output in {FUSED: outputs[t], **own.get(t, {})}.items():
                    parts.setdefault(name, []).append(self._kept(t, output))
        for t, parts in kept.items() if len(self.valid_data) else ():
            task, votes = self.model.task(t), self.model.votes_for(t)
            truth = labelled(self.valid_data, t, self.valid_data.rows)[1]
            found = {name: labelled(self.valid_data, t, joined(some))[0] for name, some in parts.items()}
            task.calibrate(found[FUSED], truth)
            if votes is not None:
                cooled = {name: output / task.temperature.cpu() for name, output in found.items()}
                votes.calibrate(task, cooled.pop(FUSED), cooled, self._present(t), truth)

    def rank(self, history: list[dict[str, float]], best_by: str) -> tuple[float, ...]:
        """What makes an epoch the best: a single target's main metric, or that which `best_by` names;
        of several targets their mean skill, see `scores`; then the validation loss. All are means over
        the last epochs, because the luck of one epoch on few rows is not skill. Without validation rows
        the latest is best.
        """
        recent = history[-SMOOTHED:]
        if "valid_loss" not in recent[-1]:
            return ()
        loss = sum(h["valid_loss"] for h in recent) / len(recent)
        target = best_by or self.model.targets[0]
        task = self.model.task(target)
        several = len(self.model.targets) > 1 and not best_by
        name = "valid_skill" if several else f"valid_{target}_{task.score}"
        if name not in recent[-1]:
            return (-loss,)
        main = sum(h[name] for h in recent) / len(recent)
        return (main if several or task.higher else -main, -loss)

    def _batches(self) -> Iterator[Batch]:
        """The rows in batches, for the model as it predicts."""
        self.model.eval()
        for batch in self.valid_data.in_order(BATCH):
            yield batch.to(torch.device(self.settings.device))

    def _present(self, target: str) -> dict[str, Tensor]:
        """Where rows with a label have which part."""
        batch, rows = self.valid_data.prepared.batch, self.valid_data.rows
        there = self.model.fused_for(target).there(batch.present)
        return {p: there_N[rows][batch.labelled[target][rows]] for p, there_N in there.items()}

    def _kept(self, target: str, output: Tensor) -> Tensor:
        with self.settings.autocast():
            kept = self.model.task(target).decode(output)
        return (kept.float() if kept.is_floating_point() else kept).cpu()


def skill(score: float, guess: float, higher: bool) -> float:
    """How far a metric is on the way from that of a guess to perfection, 1 or 0; it can be below zero."""
    perfect = 1.0 if higher else 0.0
    return (score - guess) / (perfect - guess) if abs(perfect - guess) > LEAST else float(score == perfect)


def labelled(data: Dataset, target: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the rows that have one."""
    keep = data.prepared.batch.labelled[target][data.rows]
    return output[keep], data.prepared.batch.targets[target][data.rows][keep]
