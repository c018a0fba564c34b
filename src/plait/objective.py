"""What training minimises: the loss of all columns fused, of each column by itself, of mixed rows, and of rows without a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from plait.batch import Batch, Tokens
from plait.layers import module_key
from plait.model import MultimodalModel

FUSED = ""  # the name of the loss of all columns fused; every other loss has its column's name
ALIGNED = "~"  # the name of the loss of tasks that do not fuse, which is never weighed
RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the processor, of each GPU
SURE = 0.95  # the probability from which an answer stands in for a label
SPREAD = 1e-4  # of a loss whose overfitting did not grow at all


@dataclass(frozen=True)
class Mixing:
    """Each row of a batch with a share of `share`, and its partner with the rest."""

    share: float
    partner_B: Tensor

    @classmethod
    def draw(cls, alpha: float, rows: int, device: torch.device) -> Mixing:
        """A share from Beta(alpha, alpha), and partners by lot (Zhang et al. 2018, "mixup", eq. 1 and its code: one share a batch)."""
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        return cls(share, torch.randperm(rows).to(device))

    def tokens(self, encoded: dict[str, Tokens], present: dict[str, Tensor]) -> tuple[dict[str, Tokens], dict[str, Tensor]]:
        """All columns of a row mixed with its partner's, with the same share; what only one of the two has is taken from that one."""
        mixed, there = {}, {}
        for c, t in encoded.items():
            x_BLD, mask_BL = t.x_BLD[self.partner_B], t.mask_BL[self.partner_B]
            both = torch.where((t.mask_BL & mask_BL)[..., None], self.share * t.x_BLD + (1 - self.share) * x_BLD, t.x_BLD)
            mixed[c] = Tokens(torch.where((mask_BL & ~t.mask_BL)[..., None], x_BLD, both), t.mask_BL | mask_BL)
            there[c] = present[c] | present[c][self.partner_B]
        return mixed, there


def losses(
    model: MultimodalModel, batch: Batch, columns: Iterable[str] = (), mixing: Mixing | None = None, gradients: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The loss of all columns fused, under the name `FUSED`, and of each of `columns` by itself, through the same heads. Tasks that
    do not fuse have theirs under `ALIGNED`, or with their outputs' `gradients` (see `cached`) what has these gradients.

    Without the latter the column that is learned first, most often a text that can be memorised, leaves the others nothing
    to learn (Wang et al. 2020, "What makes training multi-modal classification networks hard?").
    """
    encoded, present = model.encode(batch), batch.present
    if mixing is not None:
        encoded, present = mixing.tokens(encoded, present)
    outputs = _outputs(model, encoded, present)
    fused = {t: output for t, output in outputs.items() if model.task(t).fuses}
    aligned = {t: output for t, output in outputs.items() if t not in fused}
    found = {}
    if aligned and gradients:
        found[ALIGNED] = torch.stack([(output * gradients[t]).sum() for t, output in aligned.items()]).sum()
    elif aligned:
        found[ALIGNED] = model.loss(aligned, batch.targets, batch.labelled)
    if fused:
        found[FUSED] = _loss(model, fused, batch, mixing, None)
    for c in columns if model.solo and fused else ():
        solo_BD = model.solo[module_key(c)](encoded[c].pooled_BD())
        found[c] = _loss(model, {t: model.task(t)(solo_BD, encoded) for t in fused}, batch, mixing, present[c])
    return found


def cached(
    model: MultimodalModel, parts: list[Batch], whole: Batch, autocast: Callable[[], Any]
) -> tuple[Tensor, list[dict[str, Tensor]], list[RandomState]]:
    """The loss of tasks that compare all rows of a batch with each other, when only a part of it fits in memory at once (Gao et al.
    2021, "Scaling deep contrastive learning batch size under memory limited setup"): the loss, its gradients by each part's outputs,
    and the states of the random generators before each part, with which a second pass draws the same dropout.

    Adds to the gradients of the tasks' own parameters that `loss` uses.
    """
    names = [t for t in model.targets if not model.task(t).fuses]
    states, found = [], []
    for part in parts:
        states.append(_random_state())
        with torch.no_grad(), autocast():
            outputs = _outputs(model, model.encode(part), part.present)
            found.append({t: outputs[t] for t in names})
    leaves = {t: torch.cat([f[t] for f in found]).requires_grad_() for t in names}
    with autocast():
        loss = model.loss(leaves, whole.targets, whole.labelled)
    loss.backward()
    split = {t: leaf.grad.split([len(p) for p in parts]) for t, leaf in leaves.items() if leaf.grad is not None}
    return loss.detach(), [{t: grads[i] for t, grads in split.items()} for i in range(len(parts))], states


def _random_state() -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def restore_random(state: RandomState) -> None:
    """Sets the generators of all devices to where they were."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _outputs(model: MultimodalModel, encoded: dict[str, Tokens], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of all columns fused, also in rows that have one only."""
    fused_BD = model.fusion(encoded, present)
    return {t: model.task(t)(fused_BD, encoded) for t in model.targets}


def _loss(model: MultimodalModel, outputs: dict[str, Tensor], batch: Batch, mixing: Mixing | None, present_B: Tensor | None) -> Tensor:
    """The sum of the tasks' losses over the rows that are labelled and have what is needed."""
    labelled = batch.labelled if present_B is None else {t: known & present_B for t, known in batch.labelled.items()}
    loss = model.loss(outputs, batch.targets, labelled)
    if mixing is None:
        return loss
    at = mixing.partner_B
    others = {t: known[at] if present_B is None else known[at] & present_B for t, known in batch.labelled.items()}
    return mixing.share * loss + (1 - mixing.share) * model.loss(outputs, {t: y[at] for t, y in batch.targets.items()}, others)


def consistency(model: MultimodalModel, weak: Batch, strong: Batch) -> Tensor:
    """The loss on rows without a label, whose answers when nothing is hidden or augmented stand in for labels, where they are sure,
    when some columns are hidden and the others augmented (Sohn et al. 2020, "FixMatch", eq. 4; for numbers every answer counts)."""
    with torch.no_grad():
        answers = _outputs(model, model.encode(weak), weak.present)
    outputs = _outputs(model, model.encode(strong), strong.present)
    found = []
    for target in (t for t in outputs if model.task(t).fuses):
        task, output, unknown = model.task(target), outputs[target], ~weak.labelled[target]
        answer, sure = task.pseudo(answers[target], SURE)
        used = sure & unknown
        found.append(task.loss(output, answer, used) * (used.sum() / unknown.sum().clamp(min=1)))
    total: Tensor = sum(found[1:], start=found[0])
    return total


def faded(columns: Iterable[str], alone: float, left: float) -> dict[str, float]:
    """The weights of losses when a share of `left` of the training is still to come: first each for itself, at last together."""
    names = list(columns)
    return {FUSED: 1.0, **{c: alone * left / len(names) for c in names if alone * left}}


def blended(measured: list[dict[str, list[float]]]) -> dict[str, float]:
    """The weights of losses by gradient blending (Wang et al. 2020, proposition 1): w_k ~ G_k / O_k^2, adding up to one.

    `measured` holds, for some moments of the training, each loss on training rows and on rows that were not trained on. G is how
    much the latter fell between the last two, O how much the gap between both grew. A loss that fell nowhere weighs nothing.
    """
    names = list(measured[-1])
    if len(measured) < 2:
        return dict.fromkeys(names, 1 / len(names))
    wanted = {}
    for name in names:
        (train, valid), (train_before, valid_before) = measured[-1][name], measured[-2][name]
        overfitted = max(abs((valid - train) - (valid_before - train_before)), SPREAD)
        wanted[name] = max(valid_before - valid, 0.0) / overfitted**2
    total = sum(wanted.values())
    return {name: w / total for name, w in wanted.items()} if total > 0 else blended(measured[:-1])


def total(found: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The losses' weighted sum. That of tasks that do not fuse counts as it is."""
    shares = {**weights, ALIGNED: 1.0}
    parts = [loss * shares[name] for name, loss in found.items() if shares.get(name)]
    summed: Tensor = sum(parts[1:], start=parts[0])
    return summed
