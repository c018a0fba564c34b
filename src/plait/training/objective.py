"""What training minimises: each target's loss of all columns fused, of each part of a row by itself, of
mixed rows, and of rows without a label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call

from plait.balancing.base import summed
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Tokens
from plait.tasks.base import Task

# the name of the loss of all columns fused; every other loss has its part's name, and no column has a
# name like these
FUSED = "\0fused"


EMPTY = "\0empty"  # the name of the loss of what empty cells say


OWN = (
    "\0own"  # the name of the loss of a task that does not answer from a fused vector, which is never weighed
)


Losses: TypeAlias = dict[str, dict[str, Tensor]]  # by target, then by name


Weights: TypeAlias = dict[str, dict[str, float]]  # of these losses


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
        """A share from Beta(alpha, alpha), and partners by lot (Zhang et al. 2018, "mixup", eq. 1 and
        its code: one share a batch).
        """
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        return cls(share, torch.randperm(rows).to(device))

    def tokens(
        self, encoded: dict[str, Tokens], present: dict[str, Tensor]
    ) -> tuple[dict[str, Tokens], dict[str, Tensor]]:
        """All columns of a row mixed with its partner's, with the same share; what only one of the two
        has is taken from that one.
        """
        mixed, there = {}, {}
        for c, t in encoded.items():
            x_BLD, mask_BL = t.x_BLD[self.partner_B], t.mask_BL[self.partner_B]
            both = torch.where(
                (t.mask_BL & mask_BL)[..., None], self.share * t.x_BLD + (1 - self.share) * x_BLD, t.x_BLD
            )
            mixed[c] = Tokens(
                torch.where((mask_BL & ~t.mask_BL)[..., None], x_BLD, both), t.mask_BL | mask_BL
            )
            there[c] = present[c] | present[c][self.partner_B]
        return mixed, there


def losses(
    model: MultimodalModel,
    batch: Batch,
    mixing: Mixing | None = None,
    gradients: dict[str, Tensor] | None = None,
) -> Losses:
    """Each target's losses: that of all its columns fused, under the name `FUSED`, and of each part by
    itself (see `Fused`), through the same head, where the model has networks for that. Tasks that do
    not answer from a fused vector have theirs under `OWN`; with their outputs' `gradients` (see
    `cached`), what has these gradients. A target that no row here has is left out.

    Without the parts' own the column that is learned first, most often a text that can be memorised,
    leaves the others nothing to learn (Wang et al. 2020, "What makes training multi-modal
    classification networks hard?").
    """
    whole, hidden = _views(model, batch, mixing)
    found: Losses = {}
    for (encoded, present), targets in (
        (hidden, [t for t in model.targets if t not in model.unhidden]),
        (whole, model.unhidden),
    ):
        outputs = model.answer(model.fuse(encoded, present, single=False, targets=targets), encoded, targets)
        for t in (t for t in targets if bool(batch.labelled[t].any())):
            task = model.task(t)
            if gradients and t in gradients:
                found[t] = {OWN: (outputs[t] * gradients[t]).sum()}
            elif not task.fuses:
                found[t] = {OWN: task.loss(outputs[t], batch.targets[t], batch.labelled[t])}
            else:
                found[t] = {FUSED: _loss(task, outputs[t], batch, t, mixing, None)}
                if model.fused_for(t).solo:
                    found[t] |= _apart(model, t, (encoded, present), batch, mixing)
    return {t: found[t] for t in model.targets if t in found}


def _apart(
    model: MultimodalModel, target: str, view: View, batch: Batch, mixing: Mixing | None
) -> dict[str, Tensor]:
    """The loss of each part by itself; and where rows lack one, of what that says (`EMPTY`): of rows
    that are told of nothing else, and of one part besides. Nothing else learns from that: most of it is
    what nobody could know, and its gradients would be noise to all else.
    """
    (encoded, present), part, task = view, model.fused_for(target), model.task(target)
    alone, there = {p: part.alone(p, encoded) for p in part.parts}, part.there(present)
    found = {
        p: _loss(task, task(x_BD, encoded), batch, target, mixing, there[p]) for p, x_BD in alone.items()
    }
    given = part.there(batch.given or batch.present)  # whatever training hides of them
    empty_BP = ~torch.stack(
        [there_B if mixing is None else there_B | there_B[mixing.partner_B] for there_B in given.values()], 1
    )
    if bool(empty_BP.any()):
        # a part that is not there at all says nothing, so that empty ones are told half of the time
        told_BP = empty_BP & (
            torch.rand(empty_BP.shape, device=empty_BP.device) < (0.5 if model.training else 1.0)
        )
        told_B, fixed = told_BP.any(1), {name: p.detach() for name, p in task.named_parameters()}
        said_BD = part.said_by_empty(told_BP, torch.zeros_like(told_B))
        rows = [(part.said_by_empty(told_BP, torch.ones_like(told_B)), told_B)]
        rows += [(x_BD.detach() + said_BD, told_B & there[p]) for p, x_BD in alone.items()]
        answers = ((functional_call(task, fixed, (x_BD, encoded)), some_B) for x_BD, some_B in rows)
        found[EMPTY] = torch.stack(
            [_loss(task, output, batch, target, mixing, some_B) for output, some_B in answers]
        ).mean()
    return found


View: TypeAlias = tuple[dict[str, Tokens], dict[str, Tensor]]


def _views(model: MultimodalModel, batch: Batch, mixing: Mixing | None = None) -> tuple[View, View]:
    """A batch's tokens, and where they are present, as given and with what training hides hidden."""
    if not batch.given or not model.unhidden:
        hidden = (model.encode(batch), batch.present)
        hidden = hidden if mixing is None else mixing.tokens(*hidden)
        return hidden, hidden
    whole = (model.encode(replace(batch, present=batch.given)), batch.given)
    hidden = (model.hide(whole[0], batch.present), batch.present)
    return (whole, hidden) if mixing is None else (mixing.tokens(*whole), mixing.tokens(*hidden))


def cached(
    model: MultimodalModel,
    parts: list[Batch],
    whole: Batch,
    autocast: Callable[[], Any],
    shares: Mapping[str, float],
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], list[RandomState]]:
    """The losses of tasks that compare all rows of a batch with each other, when only a part of it fits
    in memory at once (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory
    limited setup"): the losses, their gradients by each part's outputs, and the states of the random
    generators before each part, with which a second pass draws the same dropout.

    Adds to the gradients of the tasks' own parameters that `loss` uses, weighed by the targets' `shares`.
    """
    names = [t for t in model.targets if model.task(t).compares]
    states, found = [], []
    for part in parts:
        states.append(_random_state())
        with torch.no_grad(), autocast():
            (encoded, _), _ = _views(model, part)
            found.append(model.answer({}, encoded, names))
    leaves = {t: torch.cat([f[t] for f in found]).requires_grad_() for t in names}
    with autocast():
        taken = model.losses(leaves, whole.targets, whole.labelled)
    torch.stack([loss * shares[t] for t, loss in taken.items()]).sum().backward()
    split = {
        t: (leaf.grad / shares[t]).split([len(p) for p in parts])
        for t, leaf in leaves.items()
        if leaf.grad is not None
    }
    return (
        {t: loss.detach() for t, loss in taken.items()},
        [{t: grads[i] for t, grads in split.items()} for i in range(len(parts))],
        states,
    )


def _random_state() -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def restore_random(state: RandomState) -> None:
    """Sets the generators of all devices to where they were."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _loss(
    task: Task, output: Tensor, batch: Batch, target: str, mixing: Mixing | None, present_B: Tensor | None
) -> Tensor:
    """A task's loss over the rows that are labelled and have what is needed."""
    y, known = batch.targets[target], batch.labelled[target]
    labelled = known if present_B is None else known & present_B
    loss = task.loss(output, y, labelled)
    if mixing is None:
        return loss
    at = mixing.partner_B
    others = known[at] if present_B is None else known[at] & present_B
    return mixing.share * loss + (1 - mixing.share) * task.loss(output, y[at], others)


def consistency(model: MultimodalModel, weak: Batch, strong: Batch, shares: Mapping[str, float]) -> Tensor:
    """The loss on rows without a label, whose answers when nothing is hidden or augmented stand in for
    labels, where they are sure, when some columns are hidden and the others augmented (Sohn et al.
    2020, "FixMatch", eq. 4; for numbers every answer counts); targets are weighed by their `shares`.
    """
    with torch.no_grad():
        answers = _outputs(model, weak)
    outputs = _outputs(model, strong)
    found = []
    for target in (t for t in outputs if model.task(t).fuses):
        task, output, unknown = model.task(target), outputs[target], ~weak.labelled[target]
        answer, sure = task.pseudo(answers[target], SURE)
        used = sure & unknown
        found.append(
            shares[target] * task.loss(output, answer, used) * (used.sum() / unknown.sum().clamp(min=1))
        )
    return torch.stack(found).sum()


def _outputs(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """Outputs of all columns fused, also in rows that have one only."""
    encoded = model.encode(batch)
    return model.answer(model.fuse(encoded, batch.present, single=False), encoded)


def settled(model: MultimodalModel, alone: float, left: float) -> Weights:
    """The weights of losses when a share of `left` of the training is still to come. That of each part
    by itself weighs `alone`. Squared errors of parts by themselves share this weight, less and less
    until the end: what a part cannot know of a number is never learned, so that its squared error, and
    with it its gradient, stays the largest of all; of a class it is bounded.
    """
    found = {}
    for t in (t for t in model.targets if model.task(t).fuses):
        parts = model.fused_for(t).parts
        found[t] = {
            FUSED: 1.0,
            **dict.fromkeys(
                (*parts, EMPTY), alone * left / max(len(parts), 1) if model.task(t).squared else alone
            ),
        }
    return found


def blended(measured: list[dict[str, list[float]]]) -> dict[str, float]:
    """The weights of losses by gradient blending (Wang et al. 2020, proposition 1): w_k ~ G_k / O_k^2,
    adding up to one.

    `measured` holds, for some moments of the training, each loss on training rows and on rows that were
    not trained on. G is how much the latter fell between the last two, O how much the gap between both
    grew. A loss that fell nowhere weighs nothing.
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


def weighed(found: Losses, weights: Weights) -> dict[str, Tensor]:
    """Each target's losses added up with these weights. What has none counts as it is."""
    return {
        t: summed([(loss, weights.get(t, {}).get(name, 1.0)) for name, loss in some.items()])
        for t, some in found.items()
    }
