"""Score a model on validation rows while it is trained, choose the best epoch, and calibrate the model
at the end.
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
from plait.tasks.base import Outputs, joined
from plait.training.objective import answer_losses

SCALE_LABELS = 10_000  # labels, at most, that a baseline's loss is computed on
MIN_SCALE = 1e-3  # a nearly constant target would divide by zero
SMOOTHED = 5  # epochs over which a validation score is averaged to choose the best


def shares(plan: Plan, data: Dataset) -> dict[str, Share]:
    """Return what each target's loss is weighed by, from its training labels. A single target's loss
    stays as it is.
    """
    tasks = data.preprocessing.tasks
    if len(tasks) == 1:
        return {target: Share(squared=task.squared) for target, task in tasks.items()}

    by_target = {}
    for target, task in tasks.items():
        _, labels = labelled(data, target, data.rows)
        scale = 1.0
        if len(labels):
            rows = torch.linspace(0, len(labels) - 1, min(len(labels), SCALE_LABELS)).long()
            scale = max(task.baseline_loss(labels[rows]), MIN_SCALE)
        weight = float(plan.tasks[target].options.get("weight", 1.0))
        by_target[target] = Share(weight, scale, task.squared)
    return by_target


def baselines(data: Dataset) -> dict[str, Tensor]:
    """Return the baseline of each target that has labels, from its training labels.

    The record, scores, and rows without any cell all take it from here.
    """
    by_target = {}
    for target, task in data.preprocessing.tasks.items():
        _, labels = labelled(data, target, data.rows)
        if task.has_target and len(labels):
            by_target[target] = task.baseline(labels)
    return by_target


@dataclass
class Validation:
    """The validation rows of a training, which may be none. `baselines` are those of the training rows."""

    model: MultimodalModel
    valid_data: Dataset
    settings: Settings
    shares: Mapping[str, Share]
    baselines: Mapping[str, Tensor]

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Return every task's loss and metrics; nothing when there are no rows.

        `valid_loss` is the loss of a single target. Of several it is the mean of their losses, each in
        units of its baseline's loss and times its weight. `valid_normalised_score`, of several, is the
        same mean of their normalised scores: how far each main metric is on the way from the baseline (0)
        to perfection (1).
        """
        if not len(self.valid_data):
            return {}
        losses, outputs = self._answers()
        has_several = len(self.model.targets) > 1
        scores = self._loss_scores(losses)
        normalised = {}
        for target, output in outputs.items():
            output, truth = labelled(self.valid_data, target, output)
            if not len(truth):
                continue
            task = self.model.task(target)
            metrics = task.measure(output.numpy(), truth.numpy())
            for name, value in metrics.items():
                scores[f"valid_{target}_{name}"] = value
            baseline = self._baseline_scores[target]
            normalised[target] = normalised_score(metrics[task.score], baseline, task.higher)
        if has_several and normalised:
            scores["valid_normalised_score"] = self._mean(normalised)
        return scores

    def _loss_scores(self, losses: dict[str, float]) -> dict[str, float]:
        """Return the losses under their names: of each target if there are several, and their mean."""
        scores = {}
        if len(self.model.targets) > 1:
            for target, loss in losses.items():
                scores[f"valid_{target}_loss"] = loss
        if losses:
            in_units = {target: loss / self.shares[target].scale for target, loss in losses.items()}
            scores["valid_loss"] = self._mean(in_units)
        return scores

    def _answers(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return each target's mean loss over labelled rows, where there are any, and its outputs for
        all rows.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        outputs: dict[str, list[Tensor]] = {target: [] for target in self.model.targets}
        for batch in self._batches():
            with self.settings.autocast():
                answers = self.model(batch)
                losses = answer_losses(self.model, answers, batch)
            for target, loss in losses.items():
                count = int(batch.labelled[target].sum())
                sums[target] = sums.get(target, 0.0) + float(loss) * count
                counts[target] = counts.get(target, 0) + count
            for target, output in answers.items():
                outputs[target].append(self._decoded(target, output))
        means = {target: sums[target] / count for target, count in counts.items() if count}
        return means, {target: joined(of_batches) for target, of_batches in outputs.items()}

    def _mean(self, values: Mapping[str, float]) -> float:
        """Return the mean over targets, by their weights."""
        weights = {target: self.shares[target].weight for target in values}
        return sum(weights[target] * value for target, value in values.items()) / sum(weights.values())

    @cached_property
    def _baseline_scores(self) -> dict[str, float]:
        """Each target's main metric for the baseline; 0 for a task that compares rows."""
        scores = dict.fromkeys(self.model.targets, 0.0)
        for target, baseline in self.baselines.items():
            _, labels = labelled(self.valid_data, target, self.valid_data.rows)
            if len(labels):
                outputs = baseline.expand(len(labels), *baseline.shape)
                scores[target] = self.model.task(target).measure_score(outputs.numpy(), labels.numpy())
        return scores

    @torch.inference_mode()
    def calibrate(self) -> None:
        """Set what tasks leave to the validation rows."""
        by_target: dict[str, list[Outputs]] = {}
        for batch in self._batches() if len(self.valid_data) else ():
            with self.settings.autocast():
                encoded = self.model.encode(batch)
                fused = self.model.fuse(encoded)
            for target in self.model.targets:
                with self.settings.autocast():
                    outputs = self.model.task(target).outputs(fused.get(target), encoded)
                if outputs is not None:
                    by_target.setdefault(target, []).append(outputs.map(_on_cpu))

        for target, of_batches in by_target.items():
            _, truth = labelled(self.valid_data, target, self.valid_data.rows)
            outputs = Outputs.joined(of_batches)
            is_labelled = self.valid_data.prepared.batch.labelled[target][self.valid_data.rows]
            self.model.task(target).calibrate(outputs.take(is_labelled), truth)

    def rank(self, history: list[dict[str, float]], best_by: str) -> tuple[float, ...]:
        """Return what the latest epoch is compared by: the larger, the better.

        First comes the main metric of a single target, or of the one that `best_by` names; of several
        targets their mean normalised score. Then comes the validation loss. All are means over the last
        epochs, because the luck of one epoch on few rows says little. Without validation rows the
        latest epoch is the best.
        """
        recent = history[-SMOOTHED:]
        if "valid_loss" not in recent[-1]:
            return ()
        loss = sum(scores["valid_loss"] for scores in recent) / len(recent)
        target = best_by or self.model.targets[0]
        task = self.model.task(target)
        has_several = len(self.model.targets) > 1 and not best_by
        name = "valid_normalised_score" if has_several else f"valid_{target}_{task.score}"
        if name not in recent[-1]:
            return (-loss,)
        score = sum(scores[name] for scores in recent) / len(recent)
        return (score if has_several or task.higher else -score, -loss)

    def _batches(self) -> Iterator[Batch]:
        """Yield the rows in batches, for the model as it predicts."""
        self.model.eval()
        for batch in self.valid_data.in_order(BATCH):
            yield self.model.packed(batch.to(torch.device(self.settings.device)))

    def _decoded(self, target: str, output: Tensor) -> Tensor:
        with self.settings.autocast():
            return _on_cpu(self.model.task(target).decode(output))


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float32 if it has fractions."""
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu()


def normalised_score(score: float, baseline: float, higher: bool) -> float:
    """Return how far a metric is on the way from the baseline (0) to perfection (1). It can be below zero."""
    perfect = 1.0 if higher else 0.0
    if abs(perfect - baseline) <= MIN_SCALE:
        return float(score == perfect)
    return (score - baseline) / (perfect - baseline)


def labelled(data: Dataset, target: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and labels of the rows that have a label."""
    is_labelled = data.prepared.batch.labelled[target][data.rows]
    return output[is_labelled], data.prepared.batch.targets[target][data.rows][is_labelled]
