"""Score a model on validation rows, choose the best epoch, and calibrate the model at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from plait.balancing.base import Share
from plait.data.dataset import Dataset
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings
from plait.prediction.predictor import BATCH
from plait.tasks.base import Outputs, joined
from plait.training.baselines import MIN_SCALE, labelled
from plait.training.objective import answer_losses

SMOOTHED = 5  # epochs over which a validation score is averaged to choose the best


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
        same mean of their normalised scores.
        """
        if not len(self.valid_data):
            return {}
        losses, outputs = self._answers()
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

        if self._has_several and normalised:
            scores["valid_normalised_score"] = self._mean(normalised)
        return scores

    @property
    def _has_several(self) -> bool:
        return len(self.model.targets) > 1

    def _loss_scores(self, losses: dict[str, float]) -> dict[str, float]:
        """Return the losses under their names: of each target if there are several, and their mean."""
        scores, in_units = {}, {}
        for target, loss in losses.items():
            in_units[target] = loss / self.shares[target].scale
            if self._has_several:
                scores[f"valid_{target}_loss"] = loss
        if losses:
            scores["valid_loss"] = self._mean(in_units)
        return scores

    def _answers(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return each target's mean loss over labelled rows, and its outputs for all rows.

        A target without a labelled row has no loss.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        outputs: dict[str, list[Tensor]] = {target: [] for target in self.model.targets}
        for batch in self._batches():
            with self.settings.autocast():
                answers = self.model(batch)
                losses = answer_losses(self.model, answers, batch)

            # A batch's loss is a mean over learnable rows, so it counts as often as there are such rows.
            for target, loss in losses.items():
                task, labelled_B = self.model.task(target), batch.labelled[target]
                learnable_B = task.learnable(answers[target], batch.targets[target], labelled_B)
                count = int(learnable_B.sum())
                sums[target] = sums.get(target, 0.0) + float(loss) * count
                counts[target] = counts.get(target, 0) + count
            for target, output in answers.items():
                outputs[target].append(self._decoded(target, output))

        means = {}
        for target, count in counts.items():
            if count:
                means[target] = sums[target] / count
        outputs_of_all = {target: joined(of_batches) for target, of_batches in outputs.items()}
        return means, outputs_of_all

    def _mean(self, by_target: Mapping[str, float]) -> float:
        """Return the mean of these numbers over targets, by the targets' weights."""
        total, total_weight = 0.0, 0.0
        for target, number in by_target.items():
            weight = self.shares[target].weight
            total += weight * number
            total_weight += weight
        return total / total_weight

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
        """Fit what tasks leave to the validation rows, such as temperatures and the mixture weight."""
        if not len(self.valid_data):
            return
        for target, outputs in self._outputs().items():
            is_labelled = self.valid_data.prepared.batch.labelled[target][self.valid_data.rows]
            _, truth = labelled(self.valid_data, target, self.valid_data.rows)
            self.model.task(target).calibrate(outputs.take(is_labelled), truth)

    def _outputs(self) -> dict[str, Outputs]:
        """Return each target's outputs for all rows; targets that need no calibration are left out."""
        by_target: dict[str, list[Outputs]] = {}
        for batch in self._batches():
            with self.settings.autocast():
                encoded = self.model.encode(batch)
                fused = self.model.fuse(encoded)
            for target in self.model.targets:
                task = self.model.task(target)
                with self.settings.autocast():
                    outputs = task.outputs(fused.get(target), encoded)
                if outputs is not None:
                    by_target.setdefault(target, []).append(outputs.map(_on_cpu))
        return {target: Outputs.joined(of_batches) for target, of_batches in by_target.items()}

    def rank(self, history: list[dict[str, float]], best_by: str) -> tuple[float, ...]:
        """Return what the latest epoch is compared by: the larger, the better.

        First comes the main metric of a single target, or of the one that `best_by` names; of several
        targets their mean normalised score. Then comes the validation loss. All are means over the last
        epochs, because the luck of one epoch on few rows says little. The rank is empty without validation
        rows: the latest epoch is the best.
        """
        recent = history[-SMOOTHED:]
        if "valid_loss" not in recent[-1]:
            return ()
        loss = _mean_score(recent, "valid_loss")
        name, higher = self._chosen_by(best_by)
        if name not in recent[-1]:
            return (-loss,)

        score = _mean_score(recent, name)
        return (score if higher else -score, -loss)

    def _chosen_by(self, best_by: str) -> tuple[str, bool]:
        """Return the name of the score that the best epoch is chosen by, and whether higher is better."""
        if self._has_several and not best_by:
            return "valid_normalised_score", True
        target = best_by or self.model.targets[0]
        task = self.model.task(target)
        return f"valid_{target}_{task.score}", task.higher

    def _batches(self) -> Iterator[Batch]:
        """Yield the rows in batches, for the model as it predicts."""
        self.model.eval()
        for batch in self.valid_data.in_order(BATCH):
            yield self.model.packed(batch).to(torch.device(self.settings.device))

    def _decoded(self, target: str, output: Tensor) -> Tensor:
        task = self.model.task(target)
        with self.settings.autocast():
            return _on_cpu(task.decode(output))


def _mean_score(history: list[dict[str, float]], name: str) -> float:
    """Return the mean of a score over epochs."""
    return sum(scores[name] for scores in history) / len(history)


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float32 if it has fractions."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.cpu()


def normalised_score(score: float, baseline: float, higher: bool) -> float:
    """Return how far a metric is on the way from the baseline (0) to perfection (1). It can be below zero."""
    perfect = 1.0 if higher else 0.0

    # The baseline may be perfect already, as where all validation rows have one label.
    if abs(perfect - baseline) <= MIN_SCALE:
        return float(score == perfect)
    return (score - baseline) / (perfect - baseline)
