"""Several members as one model: each answers, and the mean of their answers, weighed for each target,
is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from plait.data.features import Features
from plait.ensemble.view import View
from plait.errors import ArtifactError
from plait.media.cell import Store
from plait.members.base import Examples, Member
from plait.prediction import artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Predictor
from plait.recipe.registry import Choice, configure, find
from plait.runs import files
from plait.table.table import Progress, Table
from plait.tasks.base_prediction import Prediction, predictions

OWN = "network"  # the bag, and the view, of the recipe's own network


FILE = "ensemble.json"


@dataclass
class Bag:
    """The fits of one member, one for each fold. `view` is empty where it sees the features of several."""

    name: str
    choice: Choice
    view: str
    folds: list[Member]

    def outputs(
        self, examples: Examples, subsets: Sequence[Sequence[str]], tasks: dict[str, Prediction]
    ) -> list[dict[str, Tensor]]:
        """The mean of the folds' answers, as outputs."""
        found = [member.outputs(examples, subsets) for member in self.folds]
        return [
            {t: mean(tasks[t], [one[i][t] for one in found]) for t in found[0][i]}
            for i in range(len(subsets))
        ]


@dataclass
class Weights:
    """How one target is answered: each bag's share, and the temperature by which its logits are divided
    before that; then the temperature of the mean. `stack` is a linear model of the bags' logits, itself
    with a share, under the name "stack".
    """

    shares: dict[str, float]
    temperatures: dict[str, float]
    temperature: float = 1.0
    stack: tuple[Tensor, Tensor] | None = None
    stacked: list[str] = field(default_factory=list)

    def needs(self) -> set[str]:
        stacked = set(self.stacked) if self.shares.get(STACK) else set()
        return {name for name, share in self.shares.items() if share and name != STACK} | stacked

    def output(self, task: Prediction, given: dict[str, Tensor]) -> Tensor:
        """The answer from the outputs of the bags."""
        cooled = {name: output / self.temperatures.get(name, 1.0) for name, output in given.items()}
        if self.stack is not None and self.shares.get(STACK):
            cooled[STACK] = stack_output(task, self.stack, [cooled[name] for name in self.stacked])
        used = [(cooled[name], share) for name, share in self.shares.items() if share]
        return (
            task.mix(torch.stack([o for o, _ in used]), torch.tensor([s for _, s in used])) / self.temperature
        )


STACK = "stack"


class Ensemble:
    """Answers as one network does (see `prediction.Answering`), from rows prepared under every view
    that it needs.
    """

    def __init__(
        self,
        views: dict[str, View],
        features: Features,
        bags: list[Bag],
        weights: dict[str, Weights],
        columns: list[str],
    ) -> None:
        self.views, self.features, self.bags, self.weights, self._columns = (
            views,
            features,
            bags,
            weights,
            columns,
        )

    @property
    def columns(self) -> list[str]:
        return self._columns

    @property
    def tasks(self) -> dict[str, Prediction]:
        return predictions(next(iter(self.views.values())).preprocessing.tasks)

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Examples:
        views = {name: view.dataset(table, targets, store, progress) for name, view in self.views.items()}
        examples = Examples(views, self.features)
        known = {(p.row, p.column) for p in examples.prepared.problems}
        for data in views.values():
            for problem in data.prepared.problems:
                if (problem.row, problem.column) not in known:
                    known.add((problem.row, problem.column))
                    examples.prepared.problems.append(problem)
        return examples

    def outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        given = {bag.name: bag.outputs(rows, subsets, self.tasks) for bag in self.bags}
        progress(len(rows))
        return weighed(self.weights, self.tasks, given, len(subsets))

    def pruned(self) -> Ensemble:
        """Without the members, and the views, that have no part in any answer."""
        needed = set().union(*(w.needs() for w in self.weights.values()))
        bags = [bag for bag in self.bags if bag.name in needed]
        views = {bag.view for bag in bags if bag.view} | (
            self.features.views if any(not bag.view for bag in bags) else set()
        )
        if not any(
            set(v.preprocessing.inputs) == set(self.columns)
            for name, v in self.views.items()
            if name in views
        ):
            views.add(OWN)
        kept = {name: view for name, view in self.views.items() if name in views}
        features = self.features if any(not bag.view for bag in bags) else Features([])
        return Ensemble(kept, features, bags, self.weights, self.columns)

    def save(self, folder: Path) -> None:
        """Beside the run's own network, which is not written again."""
        base = folder / "members"
        base.mkdir(exist_ok=True)
        tensors = {f"features/{k}": t for k, t in self.features.tensors().items()}
        for number, w in enumerate(self.weights.values()):
            if w.stack is not None:
                tensors |= {f"stack/{number}/weight": w.stack[0], f"stack/{number}/bias": w.stack[1]}
        files.write_tensors(base / "ensemble.safetensors", tensors)
        for number, bag in enumerate(self.bags):
            for fold, member in enumerate(bag.folds if bag.name != OWN else ()):
                into = base / str(number) / str(fold)
                into.mkdir(parents=True, exist_ok=True)
                member.save(into)
        for view in self.views.values():
            for network in artifact.networks(*view.frozen.values()):
                artifact.copy(network.files, folder / "pretrained" / network.identity)
        about = {
            "columns": self.columns,
            "views": {name: None if name == OWN else view.state() for name, view in self.views.items()},
            "features": self.features.state(),
            "bags": [
                {
                    "name": b.name,
                    "choice": b.choice.model_dump(mode="json"),
                    "view": b.view,
                    "folds": len(b.folds),
                }
                for b in self.bags
            ],
            "weights": {
                t: {
                    "shares": w.shares,
                    "temperatures": w.temperatures,
                    "temperature": w.temperature,
                    "stacked": w.stacked,
                }
                for t, w in self.weights.items()
            },
        }
        files.write_json(folder / FILE, about)


def load(folder: Path, own: Artifact, predictor: Predictor) -> Ensemble | None:
    """The ensemble in a run's folder; none where the network answers alone. Raises `ArtifactError` when
    it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / "members" / "ensemble.safetensors")
        views = {
            name: View.from_state(state) if state else View(own.plan, own.preprocessing, predictor.settings)
            for name, state in about["views"].items()
        }
        for view in views.values():
            for network in artifact.networks(*view.frozen.values()):
                network.folder = folder / "pretrained" / network.identity
        features = Features.from_state(
            about["features"], {k.removeprefix("features/"): t for k, t in tensors.items()}
        )
        bags = [
            _bag(folder / "members" / str(i), bag, views, predictor) for i, bag in enumerate(about["bags"])
        ]
        weights = {}
        for number, (target, one) in enumerate(about["weights"].items()):
            key = f"stack/{number}"
            stack = (tensors[f"{key}/weight"], tensors[f"{key}/bias"]) if f"{key}/weight" in tensors else None
            weights[target] = Weights(**one, stack=stack)
        return Ensemble(views, features, bags, weights, about["columns"])
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ArtifactError(f"'{folder}' is damaged: {type(error).__name__}: {error}") from error


def _bag(folder: Path, about: dict[str, Any], views: dict[str, View], predictor: Predictor) -> Bag:
    choice, view = Choice(**about["choice"]), about["view"]
    kind = find("members", choice.name)
    if about["name"] == OWN:
        return Bag(OWN, choice, OWN, [kind(predictor, OWN)])
    seen = views[view] if view else next(iter(views.values()))
    config = configure("members", choice.name, choice.options)
    folds = [
        kind.load(config, folder / str(fold), seen.plan, seen.settings, (view, seen.preprocessing))
        for fold in range(int(about["folds"]))
    ]
    return Bag(about["name"], choice, view, folds)


def mean(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """The output of the mean of several models' answers."""
    return (
        outputs[0]
        if len(outputs) == 1
        else task.mix(torch.stack(outputs), torch.full((len(outputs),), 1 / len(outputs)))
    )


def weighed(
    weights: dict[str, Weights],
    tasks: dict[str, Prediction],
    given: dict[str, list[dict[str, Tensor]]],
    subsets: int,
) -> list[dict[str, Tensor]]:
    """Each target's answer for each subset, from what the bags say."""
    return [
        {
            t: w.output(tasks[t], {name: found[i][t] for name, found in given.items() if t in found[i]})
            for t, w in weights.items()
        }
        for i in range(subsets)
    ]


def stack_output(task: Prediction, stack: tuple[Tensor, Tensor], outputs: list[Tensor]) -> Tensor:
    """The stacked model's output from the bags' outputs."""
    found = stack_input(task, outputs) @ stack[0]
    return (found if stack[1].ndim else found[:, 0]) + stack[1]


def stack_input(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """The bags' outputs side by side: for classes, logarithms of probabilities."""
    plain = [mean(task, [o, o]) for o in outputs]
    return torch.cat([o[:, None] if o.ndim == 1 else o for o in plain], 1)
