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

NETWORK = "network"  # the run's network as a member, and the view that it reads
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
            by_target = {}
            for target in by_fit[0][subset]:
                outputs = [of_fit[subset][target] for of_fit in by_fit]
                by_target[target] = mean(tasks[target], outputs)
            means.append(by_target)
        return means


@dataclass
class Mixture:
    """How the members' outputs for one target become the ensemble's.

    Each member's logits are divided by its temperature. Then the members' answers are averaged by the
    weights, which add up to one. `temperature` calibrates this mean. `stack` is a linear model of the outputs
    of the members `stacked`: weight (inputs, outputs) and bias. It has a weight under the name "stack".
    """

    weights: dict[str, float]
    temperatures: dict[str, float]
    temperature: float = 1.0
    stack: tuple[Tensor, Tensor] | None = None
    stacked: list[str] = field(default_factory=list)

    def needs(self) -> set[str]:
        """Return the members without which there is no answer."""
        names = {name for name, weight in self.weights.items() if weight}
        if STACK in names:
            names.remove(STACK)
            names.update(self.stacked)
        return names

    def output(self, task: Prediction, outputs: dict[str, Tensor]) -> Tensor:
        """Answer from the outputs of the members."""
        cooled = {}
        for name, output in outputs.items():
            cooled[name] = output / self.temperatures.get(name, 1.0)
        if self.stack is not None and self.weights.get(STACK):
            inputs = [cooled[name] for name in self.stacked]
            cooled[STACK] = stack_output(task, self.stack, inputs)

        # a member without a weight need not be there: `pruned` leaves it out
        mixed = []
        weights = []
        for name, weight in self.weights.items():
            if weight:
                mixed.append(cooled[name])
                weights.append(weight)
        return task.mix(torch.stack(mixed), torch.tensor(weights)) / self.temperature

    def state(self) -> JSON:
        """Return all but the stacked model, as JSON."""
        return {
            "shares": self.weights,  # as in models that were saved earlier
            "temperatures": self.temperatures,
            "temperature": self.temperature,
            "stacked": self.stacked,
        }

    @classmethod
    def from_state(cls, state: JSON, stack: tuple[Tensor, Tensor] | None) -> Mixture:
        """Invert `state`."""
        return cls(
            weights=read_as(dict[str, float], state["shares"]),
            temperatures=read_as(dict[str, float], state["temperatures"]),
            temperature=read_as(float, state["temperature"]),
            stack=stack,
            stacked=read_as(list[str], state["stacked"]),
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
        self.views = views
        self.features = features
        self.bags = bags
        self.mixtures = mixtures
        self.columns = columns

    @property
    def tasks(self) -> dict[str, Prediction]:
        """The task of each target."""
        first_view = next(iter(self.views.values()))  # tasks are the same in all views
        return predictions(first_view.preprocessing.tasks)

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Examples:
        """Prepare all rows of a table under every view. A problem of several views is listed once."""
        datasets = {}
        for name, view in self.views.items():
            datasets[name] = view.prepare(table, targets, store, progress)
        examples = Examples(datasets, self.features)

        # views prepare a cell in different ways, so one of them may fail where the first does not
        problems = examples.prepared.problems
        listed = {(problem.row, problem.column) for problem in problems}
        for dataset in datasets.values():
            for problem in dataset.prepared.problems:
                cell = (problem.row, problem.column)
                if cell not in listed:
                    listed.add(cell)
                    problems.append(problem)
        return examples

    def outputs(self, rows: Examples, progress: Progress = lambda n: None) -> dict[str, Tensor]:
        """Answer rows from all of their columns."""
        return self.subset_outputs(rows, [self.columns], progress)[0]

    def subset_outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Answer rows, for each subset of the columns."""
        tasks = self.tasks
        outputs = {bag.name: bag.outputs(rows, subsets, tasks) for bag in self.bags}
        progress(len(rows))
        return mixed_outputs(self.mixtures, tasks, outputs, len(subsets))

    def pruned(self) -> Ensemble:
        """Return the ensemble without the members and the views that no answer needs."""
        member_names = needed_members(self.mixtures)
        bags = [bag for bag in self.bags if bag.name in member_names]
        features = self.features
        if all(bag.view for bag in bags):  # no member reads features
            features = Features([])

        view_names = {bag.view for bag in bags if bag.view} | features.views
        # problems of all columns are listed, so one view must have them all
        if not self._has_all_columns(view_names):
            view_names.add(NETWORK)
        views = {name: view for name, view in self.views.items() if name in view_names}
        return Ensemble(views, features, bags, self.mixtures, self.columns)

    def _has_all_columns(self, view_names: set[str]) -> bool:
        """Return whether one of these views has all columns."""
        inputs = [set(self.views[name].preprocessing.inputs) for name in view_names]
        return set(self.columns) in inputs

    def save(self, folder: Path) -> None:
        """Write the members beside the run's network, which is not written again."""
        members_folder = folder / "members"
        members_folder.mkdir(exist_ok=True)
        files.write_tensors(members_folder / "ensemble.safetensors", self._tensors())

        for number, bag in enumerate(self.bags):
            if bag.name == NETWORK:
                continue
            for fold, member in enumerate(bag.folds):
                fold_folder = members_folder / str(number) / str(fold)
                fold_folder.mkdir(parents=True, exist_ok=True)
                member.save(fold_folder)

        for view in self.views.values():
            for network in artifact.networks(*view.frozen.values()):
                artifact.copy(network.files, folder / "pretrained" / network.identity)

        # last: a folder with this file has a whole ensemble
        files.write_json(folder / FILE, self._state())

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors that belong to no member, by their names in the file."""
        tensors = {}
        for key, tensor in self.features.tensors().items():
            tensors[f"features/{key}"] = tensor
        for number, mixture in enumerate(self.mixtures.values()):
            if mixture.stack is not None:
                weight, bias = mixture.stack
                tensors[f"stack/{number}/weight"] = weight
                tensors[f"stack/{number}/bias"] = bias
        return tensors

    def _state(self) -> JSON:
        """Return all but tensors, as JSON."""
        views = {}
        for name, view in self.views.items():
            views[name] = None if name == NETWORK else view.state()
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
    views = _views(folder, read_object(ensemble_state["views"]), run, predictor)

    prefix = "features/"
    feature_tensors = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            feature_tensors[key.removeprefix(prefix)] = tensor
    features = Features.from_state(read_list(ensemble_state["features"]), feature_tensors)

    bags = []
    for number, state in enumerate(read_list(ensemble_state["bags"])):
        bags.append(_bag(folder / "members" / str(number), read_object(state), views, predictor))

    mixtures = {}
    for number, (target, state) in enumerate(read_object(ensemble_state["weights"]).items()):
        mixtures[target] = Mixture.from_state(read_object(state), _stack(tensors, number))
    return Ensemble(views, features, bags, mixtures, read_as(list[str], ensemble_state["columns"]))


def _views(folder: Path, states: JSON, run: Artifact, predictor: Predictor) -> dict[str, View]:
    """Return the views, whose pretrained networks are those in the run's folder."""
    views = {}
    for name, state in states.items():
        if state:
            view = View.from_state(read_object(state))
        else:
            view = View(run.plan, run.preprocessing, predictor.settings)
        for network in artifact.networks(*view.frozen.values()):
            network.folder = folder / "pretrained" / network.identity
        views[name] = view
    return views


def _stack(tensors: dict[str, Tensor], number: int) -> tuple[Tensor, Tensor] | None:
    """Return the weight and the bias of a target's stacked model; None if it has none."""
    weight = tensors.get(f"stack/{number}/weight")
    if weight is None:
        return None
    return weight, tensors[f"stack/{number}/bias"]


def _bag(folder: Path, state: JSON, views: dict[str, View], predictor: Predictor) -> Bag:
    """Load the fits of one member."""
    choice = Choice.model_validate(state["choice"])
    if state["name"] == NETWORK:
        return Bag(NETWORK, choice, NETWORK, [Network(predictor, NETWORK)])

    # a member that reads the features of several views takes any for its settings
    view_name = read_as(str, state["view"])
    view = views[view_name] if view_name else next(iter(views.values()))
    inputs = (view_name, view.preprocessing)
    kind, config = members.choose(choice)
    folds = []
    for fold in range(read_as(int, state["folds"])):
        folds.append(kind.load(config, folder / str(fold), view.plan, view.settings, inputs))
    return Bag(read_as(str, state["name"]), choice, view_name, folds)


def needed_members(mixtures: dict[str, Mixture]) -> set[str]:
    """Return the names of the members without which a target has no answer."""
    names: set[str] = set()
    for mixture in mixtures.values():
        names |= mixture.needs()
    return names


def mean(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Return the output of the mean of several models' answers."""
    count = len(outputs)
    if count == 1:
        return outputs[0]
    weights = torch.full((count,), 1 / count)
    return task.mix(torch.stack(outputs), weights)


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
            # trees leave out a target that they cannot learn
            by_member = {}
            for name, of_member in outputs.items():
                if target in of_member[subset]:
                    by_member[name] = of_member[subset][target]
            by_target[target] = mixture.output(tasks[target], by_member)
        answers.append(by_target)
    return answers


def stack_output(task: Prediction, stack: tuple[Tensor, Tensor], outputs: list[Tensor]) -> Tensor:
    """Return the stacked model's output from the outputs of the members."""
    weight, bias = stack
    output = stack_input(task, outputs) @ weight
    if not bias.ndim:  # a task of one number has outputs (B,)
        output = output[:, 0]
    return output + bias


def stack_input(task: Prediction, outputs: list[Tensor]) -> Tensor:
    """Put the members' outputs side by side, (B, numbers); for classes, logarithms of probabilities."""
    columns = []
    for output in outputs:
        # a mean of an output with itself is that output in the form of a mean: logits of any offset agree
        normalised = mean(task, [output, output])
        columns.append(normalised[:, None] if normalised.ndim == 1 else normalised)
    return torch.cat(columns, 1)
