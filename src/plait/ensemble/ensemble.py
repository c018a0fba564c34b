"""Several members as one model: the answer is the mean of their answers, with weights for each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from plait.data.features import Features
from plait.data.preprocessing import Preprocessing
from plait.disk.whole import make_inner_folder
from plait.ensemble.mixture import Mixture, mean, needed_members
from plait.media.cell import Store
from plait.members.base import Examples, Fitted, members
from plait.prediction import artifact
from plait.prediction.artifact import Artifact
from plait.prediction.predictor import Predictor
from plait.prediction.view import View
from plait.recipe.registry import Choice
from plait.recipe.sections import OWN_NETWORK
from plait.runs import files
from plait.table.json import JSON
from plait.table.table import Progress, Table
from plait.tasks.base_prediction import Prediction, predictions

FILE = "ensemble.json"
FEATURES = "features/"  # where their tensors are in the file of tensors


class OwnNetwork(Fitted):
    """The run's own network, as one of the members."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the network's outputs for each subset of the columns."""
        return self.predictor.subset_outputs(examples.views[OWN_NETWORK], subsets)

    def save(self, folder: Path) -> None:
        """Write nothing: the run's folder has the network already."""


@dataclass
class Bag:
    """The fits of one member, one for each fold.

    `choice` is None for the run's own network. `view` is empty for a member that learns from features.
    """

    name: str
    choice: Choice | None
    view: str
    folds: Sequence[Fitted]

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

    def save(self, folder: Path) -> _SavedBag:
        """Write the fits, each into a folder of its own. Return what else there is to save."""
        for number, fit in enumerate(self.folds):
            fit.save(make_inner_folder(folder, str(number)))
        return _SavedBag(name=self.name, choice=self.choice, view=self.view, folds=len(self.folds))

    @classmethod
    def load(cls, folder: Path, saved: _SavedBag, views: dict[str, View], network: Predictor) -> Bag:
        """Invert `save`. `network` is the run's own."""
        if saved.choice is None:
            return cls(saved.name, None, saved.view, [OwnNetwork(network)])
        kind, config = members.choose(saved.choice)
        view = views[saved.view] if saved.view else None
        fits = [kind.load(config, folder / str(number), view) for number in range(saved.folds)]
        return cls(saved.name, saved.choice, saved.view, fits)


class _SavedBag(BaseModel):
    """What is saved of a member beside its fits."""

    model_config = ConfigDict(extra="forbid")
    name: str
    choice: Choice | None
    view: str
    folds: int = Field(ge=1)


class Ensemble:
    """Several members that answer as one network does (see `prediction.AnsweringTables`).

    Rows are prepared under every view that a member needs. `tasks` are those of the run: no view has to have
    them. Rows without any cell are answered by the run's `network` alone: it knows the baseline, and others
    would say something about cells that they never saw together.
    """

    def __init__(
        self,
        network: Predictor,
        views: dict[str, View],
        features: Features,
        bags: list[Bag],
        mixtures: dict[str, Mixture],
        columns: list[str],
        tasks: dict[str, Prediction],
    ) -> None:
        self.network = network
        self.views = views
        self.features = features
        self.bags = bags
        self.mixtures = mixtures
        self.columns = columns
        self.tasks = tasks

    @property
    def preprocessings(self) -> list[Preprocessing]:
        """The ways in which the views prepare a table."""
        return [view.preprocessing for view in self.views.values()]

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Examples:
        """Prepare all rows of a table under every view. A problem of several views is listed once."""
        labels = Preprocessing({}, dict(self.tasks)).prepare(table, targets)
        datasets = {}
        for name, view in self.views.items():
            datasets[name] = view.prepare(table, False, store, progress)

        # Views prepare a cell in different ways, so one of them may fail where another does not.
        problems = labels.problems
        listed = {(problem.row, problem.column) for problem in problems}
        for dataset in datasets.values():
            for problem in dataset.prepared.problems:
                cell = (problem.row, problem.column)
                if cell not in listed:
                    listed.add(cell)
                    problems.append(problem)
        problems.sort(key=lambda problem: problem.row)
        return Examples(datasets, self.features, labels)

    def outputs(self, rows: Examples, progress: Progress = lambda n: None) -> dict[str, Tensor]:
        """Answer rows from all of their columns."""
        return self.subset_outputs(rows, [self.columns], progress)[0]

    def subset_outputs(
        self, rows: Examples, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Answer rows, for each subset of the columns."""
        outputs = {bag.name: bag.outputs(rows, subsets, self.tasks) for bag in self.bags}
        progress(len(rows))
        answers = []
        for subset in range(len(subsets)):
            by_target = {}
            for target, mixture in self.mixtures.items():
                # Trees leave out a target that they cannot learn.
                by_member = {}
                for name, of_member in outputs.items():
                    if target in of_member[subset]:
                        by_member[name] = of_member[subset][target]
                by_target[target] = mixture.output(self.tasks[target], by_member)
            answers.append(self._with_baseline(by_target, rows, subsets[subset]))
        return answers

    def _with_baseline(
        self, by_target: dict[str, Tensor], rows: Examples, columns: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return outputs in which rows without a cell in `columns` have those of the network."""
        has_cell = torch.zeros(len(rows), dtype=torch.bool)
        in_table: dict[str, Tensor] = {}
        for view in rows.views.values():
            batch = view.prepared.batch
            for column in columns:
                if column in batch.present:
                    has_cell |= batch.present[column][view.rows]
                    in_table[column] = batch.in_table[column][view.rows]
        if bool(has_cell.all()) or not in_table:
            return by_target

        empty = torch.nonzero(~has_cell)[:, 0]
        cells = [pa.nulls(len(empty))] * len(in_table)
        lacks = {column: ~is_in_table[empty].numpy() for column, is_in_table in in_table.items()}
        table = Table(pa.table(cells, list(in_table)), Path(), "rows without a cell", lacks=lacks)
        of_network = self.network.outputs(self.network.prepare(table, targets=False))
        answers = {}
        for target, output in by_target.items():
            answers[target] = output.clone()
            answers[target][empty] = of_network[target].to(output.dtype)
        return answers

    def pruned(self) -> Ensemble:
        """Return the ensemble without the members and the views that no answer needs."""
        member_names = needed_members(self.mixtures)
        bags = [bag for bag in self.bags if bag.name in member_names]
        features = self.features
        if all(bag.view for bag in bags):  # no member reads features
            features = Features([])

        view_names = {bag.view for bag in bags if bag.view} | features.views
        # Problems of all columns are listed, so one view must have them all.
        if not self._has_all_columns(view_names):
            view_names.add(OWN_NETWORK)
        views = {name: view for name, view in self.views.items() if name in view_names}
        return Ensemble(self.network, views, features, bags, self.mixtures, self.columns, self.tasks)

    def _has_all_columns(self, view_names: set[str]) -> bool:
        """Return whether one of these views has all columns."""
        inputs = [set(self.views[name].preprocessing.inputs) for name in view_names]
        return set(self.columns) in inputs

    def save(self, folder: Path) -> None:
        """Write the members beside the run's network, which is not written again."""
        members_folder = make_inner_folder(folder, "members")
        tensors = files.prefixed(FEATURES, self.features.tensors())
        for number, mixture in enumerate(self.mixtures.values()):
            tensors |= files.prefixed(_stack(number), mixture.tensors())
        files.write_tensors(members_folder / "ensemble.safetensors", tensors)

        bags = []
        for number, bag in enumerate(self.bags):
            bags.append(bag.save(make_inner_folder(members_folder, str(number))))

        views: dict[str, JSON | None] = {}
        for name, view in self.views.items():
            views[name] = None if name == OWN_NETWORK else view.state()
            for network in artifact.networks(*view.frozen.values()):
                artifact.copy(network.files, make_inner_folder(folder, "pretrained", network.identity))

        # Last: a folder with this file has a whole ensemble.
        saved = _Saved(
            columns=self.columns,
            views=views,
            features=self.features.state(),
            bags=bags,
            weights={target: mixture.state() for target, mixture in self.mixtures.items()},
        )
        files.write_checked(folder / FILE, saved.model_dump(mode="json"))


class _Saved(BaseModel):
    """What is saved of an ensemble beside tensors and members. None stands for the run's own view."""

    model_config = ConfigDict(extra="forbid")
    columns: list[str]
    views: dict[str, dict[str, object] | None]
    features: list[dict[str, object]]
    bags: list[_SavedBag]
    weights: dict[str, dict[str, object]]


def load(folder: Path, run: Artifact, predictor: Predictor) -> Ensemble | None:
    """Load the ensemble in a run's folder; None where the network answers alone.

    Raises `ArtifactError` when it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return _load(folder, run, predictor)
    except ValidationError as error:
        raise files.wrong_entry(folder / FILE, error) from error
    except artifact.DAMAGE as error:
        raise artifact.damaged(folder, error) from error


def _load(folder: Path, run: Artifact, predictor: Predictor) -> Ensemble:
    saved = _Saved.model_validate(files.read_checked(folder / FILE))
    members_folder = folder / "members"
    tensors, _ = files.read_tensors(members_folder / "ensemble.safetensors")
    views = _views(folder, saved.views, run, predictor)
    features = Features.from_state(saved.features, files.under_prefix(FEATURES, tensors))

    bags = []
    for number, bag in enumerate(saved.bags):
        bags.append(Bag.load(members_folder / str(number), bag, views, predictor))
    mixtures = {}
    for number, (target, state) in enumerate(saved.weights.items()):
        mixtures[target] = Mixture.from_state(state, files.under_prefix(_stack(number), tensors))

    tasks = predictions(run.preprocessing.tasks)
    absent = needed_members(mixtures) - {bag.name for bag in bags}
    if absent or set(mixtures) != set(tasks):
        raise ValueError(f"{FILE} names other targets or members than the model has")
    return Ensemble(predictor, views, features, bags, mixtures, saved.columns, tasks)


def _views(
    folder: Path, states: dict[str, dict[str, object] | None], run: Artifact, predictor: Predictor
) -> dict[str, View]:
    """Return the views, whose pretrained networks are those in the run's folder."""
    views = {}
    for name, state in states.items():
        if state is None:
            view = View(name, run.plan, run.preprocessing, predictor.settings)
        else:
            view = View.from_state(name, state)
        for network in artifact.networks(*view.frozen.values()):
            network.folder = folder / "pretrained" / network.identity
        views[name] = view
    return views


def _stack(number: int) -> str:
    """Return where the tensors of a stacked model are. A target may have any name, so it is numbered."""
    return f"stack/{number}/"
