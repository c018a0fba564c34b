"""Several members as one model: the answer is the mean of their answers, with weights for each target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from plait.data.features import Features
from plait.ensemble.view import View
from plait.errors import ArtifactError
from plait.media.cell import Store
from plait.members.base import Examples, Member, members
from plait.members.network import Network
from plait.prediction import artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Predictor
from plait.recipe.registry import Choice
from plait.runs import files
from plait.table.json import JSON, read_as, read_list, read_object
from plait.table.table import Progress, Table
from plait.tasks.base_prediction import Prediction, predictions

OWN = "network"  # the run's network, as a member and as a view
STACK = "stack"  # the stacked model, as a member
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
        """Return the mean of the fits' answers, as outputs, for each subset of the columns."""
        by_fit = [fit.outputs(examples, subsets) for fit in self.folds]
        means = []
        for subset in range(len(subsets)):
            of_subset = [outputs[subset] for outputs in by_fit]
            by_target = {}
            for target in of_subset[0]:
                by_target[target] = mean(tasks[target], [outputs[target] for outputs in of_subset])
            means.append(by_target)
        return means


@dataclass
class Mixture:
    """How the members' outputs for one target become the ensemble's.

    Each member's logits are divided by its temperature, then its answers are averaged by the weights, which
    add up to one. `temperature` calibrates this mean. `stack` is a linear model of the outputs of the
    members `stacked`: weight (inputs, outputs) and bias. It has a weight under the name "stack".
    """

    weights: dict[str, float]
    temperatures: dict[str, float]
    temperature: float = 1.0
    stack: tuple[Tensor, Tensor] | None = None
    stacked: list[str] = field(default_factory=list)

    def needs(self) -> set[str]:
        """Return the members without which there is no answer."""
        names = {name for name, weight in self.weights.items() if weight and name != STACK}
        return names | set(self.stacked) if self.weights.get(STACK) else names

    def output(self, task: Prediction, outputs: dict[str, Tensor]) -> Tensor:
        """Answer from the outputs of the members."""
        cooled = {name: output / self.temperatures.get(name, 1.0) for name, output in outputs.items()}
        if self.stack is not None and self.weights.get(STACK):
            cooled[STACK] = stack_output(task, self.stack, [cooled[name] for name in self.stacked])

        used = [name for name, weight in self.weights.items() if weight]
        weights = torch.tensor([self.weights[name] for name in used])
        return task.mix(torch.stack([cooled[name] for name in used]), weights) / self.temperature

    def state(self) -> JSON:
        """Return all but the stacked model, as JSON."""
        return {
            "shares": self.weights,
            "temperatures": self.temperatures,
            "temperature": self.temperature,
            "stacked": self.stacked,
        }

    @classmethod
    def from_state(cls, state: JSON, stack: tuple[Tensor, Tensor] | None) -> Mixture:
        """Invert `state`."""
        return cls(
            read_as(dict[str, float], state["shares"]),
            read_as(dict[str, float], state["temperatures"]),
            read_as(float, state["temperature"]),
            stack,
            read_as(list[str], state["stacked"]),
        )


class Ensemble:
    """Several members that answer as one network does (see `prediction.Answering`).

    Rows are prepared under every view that a member needs.
    """

    def __init__(
        self,
        views: dict[str, View],
        features: Features,
        bags: list[Bag],
        mixtures: dict[str, Mixture],
        columns: list[str],
    ) -> None:
        self.views, self.features, self.bags = views, features, bags
        self.mixtures, self.columns = mixtures, columns

    @property
    def tasks(self) -> dict[str, Prediction]:
        """The task of each target."""
        return predictions(next(iter(self.views.values())).preprocessing.tasks)

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Examples:
        """Prepare all rows of a table under every view. A problem of several views is listed once."""
        views = {name: view.prepare(table, targets, store, progress) for name, view in self.views.items()}
        examples = Examples(views, self.features)
        listed = {(p.row, p.column) for p in examples.prepared.problems}
        for data in views.values():
            for problem in data.prepared.problems:
                if (problem.row, problem.column) not in listed:
                    listed.add((problem.row, problem.column))
                    examples.prepared.problems.append(problem)
        return examples

    def outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Answer rows, for each subset of the columns."""
        outputs = {bag.name: bag.outputs(rows, subsets, self.tasks) for bag in self.bags}
        progress(len(rows))
        return mixed_outputs(self.mixtures, self.tasks, outputs, len(subsets))

    def pruned(self) -> Ensemble:
        """Return the ensemble without the members and the views that no answer needs."""
        member_names = needed_members(self.mixtures)
        bags = [bag for bag in self.bags if bag.name in member_names]
        reads_features = any(not bag.view for bag in bags)
        features = self.features if reads_features else Features([])

        view_names = {bag.view for bag in bags if bag.view} | features.views
        # problems of all columns are listed, so one view must have them all
        if not self._has_all_columns(view_names):
            view_names.add(OWN)
        views = {name: view for name, view in self.views.items() if name in view_names}
        return Ensemble(views, features, bags, self.mixtures, self.columns)

    def _has_all_columns(self, view_names: set[str]) -> bool:
        """Return whether one of these views has all columns."""
        inputs = [set(self.views[name].preprocessing.inputs) for name in view_names]
        return set(self.columns) in inputs

    def save(self, folder: Path) -> None:
        """Write the members beside the run's network, which is not written again."""
        base = folder / "members"
        base.mkdir(exist_ok=True)
        tensors = {f"features/{key}": tensor for key, tensor in self.features.tensors().items()}
        for number, mixture in enumerate(self.mixtures.values()):
            if mixture.stack is not None:
                tensors[f"stack/{number}/weight"], tensors[f"stack/{number}/bias"] = mixture.stack
        files.write_tensors(base / "ensemble.safetensors", tensors)

        for number, bag in enumerate(self.bags):
            if bag.name == OWN:
                continue
            for fold, member in enumerate(bag.folds):
                fold_folder = base / str(number) / str(fold)
                fold_folder.mkdir(parents=True, exist_ok=True)
                member.save(fold_folder)
        for view in self.views.values():
            for network in artifact.networks(*view.frozen.values()):
                artifact.copy(network.files, folder / "pretrained" / network.identity)
        files.write_json(folder / FILE, self._state())

    def _state(self) -> JSON:
        """Return all but tensors, as JSON."""
        views = {}
        for name, view in self.views.items():
            views[name] = None if name == OWN else view.state()
        bags: list[JSON] = []
        for bag in self.bags:
            choice = bag.choice.model_dump(mode="json")
            bags.append({"name": bag.name, "choice": choice, "view": bag.view, "folds": len(bag.folds)})
        return {
            "columns": self.columns,
            "views": views,
            "features": self.features.state(),
            "bags": bags,
            "weights": {target: mixture.state() for target, mixture in self.mixtures.items()},
        }


def load(folder: Path, run: Artifact, predictor: Predictor) -> Ensemble | None:
    """Load the ensemble in a run's folder; None where the network answers alone.

    Raises `ArtifactError` when it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return _load(folder, run, predictor)
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ArtifactError(f"'{folder}' is damaged: {type(error).__name__}: {error}") from error


def _load(folder: Path, run: Artifact, predictor: Predictor) -> Ensemble:
    ensemble_state: JSON = json.loads((folder / FILE).read_text(encoding="utf-8"))
    tensors = load_file(folder / "members" / "ensemble.safetensors")
    views = {}
    for name, state in read_object(ensemble_state["views"]).items():
        if state:
            views[name] = View.from_state(read_object(state))
        else:
            views[name] = View(run.plan, run.preprocessing, predictor.settings)
        for network in artifact.networks(*views[name].frozen.values()):
            network.folder = folder / "pretrained" / network.identity

    prefix = "features/"
    vectors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    features = Features.from_state(read_list(ensemble_state["features"]), vectors)
    bags = []
    for number, state in enumerate(read_list(ensemble_state["bags"])):
        bags.append(_bag(folder / "members" / str(number), read_object(state), views, predictor))

    mixtures = {}
    for number, (target, state) in enumerate(read_object(ensemble_state["weights"]).items()):
        key = f"stack/{number}"
        stack = None
        if f"{key}/weight" in tensors:
            stack = (tensors[f"{key}/weight"], tensors[f"{key}/bias"])
        mixtures[target] = Mixture.from_state(read_object(state), stack)
    return Ensemble(views, features, bags, mixtures, read_as(list[str], ensemble_state["columns"]))


def _bag(folder: Path, state: JSON, views: dict[str, View], predictor: Predictor) -> Bag:
    choice, view_name = Choice.model_validate(state["choice"]), read_as(str, state["view"])
    if state["name"] == OWN:
        return Bag(OWN, choice, OWN, [Network(predictor, OWN)])
    view = views[view_name] if view_name else next(iter(views.values()))
    kind, config = members.choose(choice)
    folds = []
    inputs = (view_name, view.preprocessing)
    for fold in range(read_as(int, state["folds"])):
        folds.append(kind.load(config, folder / str(fold), view.plan, view.settings, inputs))
    return Bag(read_as(str, state["name"]), choice, view_name, folds)


def needed_members(mixtures: dict[str, Mixture]) -> set[str]:
    """Return the names of the members without which a target has no answer."""
    return set().union(*(mixture.needs() for mixture in mixtures.values()))


def mean(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Return the output of the mean of several models' answers."""
    if len(outputs) == 1:
        return outputs[0]
    return task.mix(torch.stack(outputs), torch.full((len(outputs),), 1 / len(outputs)))


def mixed_outputs(
    mixtures: dict[str, Mixture],
    tasks: dict[str, Prediction],
    outputs: dict[str, list[dict[str, Tensor]]],
    subsets: int,
) -> list[dict[str, Tensor]]:
    """Answer each target for each subset of the columns, from the outputs of the members by name."""
    answers = []
    for subset in range(subsets):
        by_target = {}
        for target, mixture in mixtures.items():
            by_member = {}
            for name, member_outputs in outputs.items():
                if target in member_outputs[subset]:
                    by_member[name] = member_outputs[subset][target]
            by_target[target] = mixture.output(tasks[target], by_member)
        answers.append(by_target)
    return answers


def stack_output(task: Prediction, stack: tuple[Tensor, Tensor], outputs: list[Tensor]) -> Tensor:
    """Return the stacked model's output from the outputs of the members."""
    weight, bias = stack
    output = stack_input(task, outputs) @ weight
    return (output if bias.ndim else output[:, 0]) + bias


def stack_input(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Put the members' outputs side by side, (B, numbers); for classes, logarithms of probabilities."""
    # a mean of an output with itself is that output as `blend` writes it
    blended = [mean(task, [output, output]) for output in outputs]
    return torch.cat([output[:, None] if output.ndim == 1 else output for output in blended], 1)
