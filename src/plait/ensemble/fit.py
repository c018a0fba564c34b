"""Train an ensemble: fit members fold by fold, and weigh them by their out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.prepare import store
from plait.data.split import folds
from plait.ensemble.ensemble import OWN, Bag, Ensemble
from plait.ensemble.out_of_fold import CrossFit, OutOfFoldEnsemble
from plait.ensemble.view import View
from plait.ensemble.weights import Weighing, fit_mixture
from plait.errors import Interrupted
from plait.members.base import Examples, Lesson
from plait.members.base import members as member_registry
from plait.members.network import Network
from plait.prediction.predictor import Predictor
from plait.recipe.registry import Choice
from plait.table.json import JSON
from plait.table.table import Table
from plait.tasks.base_prediction import Prediction, predictions

NGRAMS = "ngrams"


@dataclass
class Fitting:
    """All that training an ensemble needs: the plan, the table, and the network that is trained already."""

    plan: Plan
    table: Table
    network: Predictor
    data: Dataset
    folder: Path
    screen: Screen

    @property
    def tasks(self) -> dict[str, Prediction]:
        """The task of each target."""
        return predictions(self.data.preprocessing.tasks)


@dataclass(frozen=True)
class MemberScore:
    """A member's main metric on so many rows that the ensemble is scored on, and its weight."""

    value: float
    rows: int
    weight: float


@dataclass
class Trained:
    """An ensemble, its out-of-fold predictions, and what its members score, by target and member."""

    ensemble: Ensemble
    out_of_fold: OutOfFoldEnsemble
    scores: dict[str, dict[str, MemberScore]]

    def record(self) -> JSON:
        """Return the scores as JSON."""
        record: JSON = {}
        for target, scores in self.scores.items():
            record[target] = {name: asdict(score) for name, score in scores.items()}
        return record

    def show(self, screen: Screen) -> None:
        """Print a table of the members for each target."""
        for target, scores in self.scores.items():
            metric = self.out_of_fold.tasks[target].score
            rows = []
            for name, score in scores.items():
                rows.append([name, f"{score.value:.3f}", f"{score.rows:,}", f"{score.weight:.0%}"])
            title = f"{target}: {metric} of each member's out-of-fold predictions"
            screen.table(title, ["member", f"{metric} ", "rows ", "weight "], rows)


@dataclass
class CrossFitting:
    """What all members are fitted with: the views of the table, the training and validation rows as examples,
    and for each repeat the folds that are held out in turn.
    """

    fitting: Fitting
    views: dict[str, View]
    examples: Examples
    repeats: list[list[np.ndarray]]

    @property
    def fits(self) -> int:
        """The number of fits of each member."""
        return sum(len(folds) for folds in self.repeats)


def fit(fitting: Fitting) -> Trained | None:
    """Train the members of the recipe's ensemble beside the network that is trained already.

    Return None when there are none. Raises `Interrupted` after Ctrl-C: a resumed fit trains the members
    anew, but not the network.
    """
    members = fitting.plan.ensemble.members
    if not members:
        return None
    try:
        return _fit(fitting, members)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"stopped while members were trained; go on with: plait fit --resume {fitting.folder}"
        ) from None


def _fit(fitting: Fitting, members: dict[str, Choice]) -> Trained:
    views, view_of = _views(fitting, members)
    shared = _prepare(fitting, views)
    cross_fits = [_cross_fit_of_network(shared)]
    with fitting.screen.bar("training members", len(members) * shared.fits) as bar:
        for name, choice in members.items():
            cross_fits.append(_cross_fit(shared, name, choice, view_of[name], bar))

    columns = list(fitting.data.preprocessing.inputs)
    out_of_fold = OutOfFoldEnsemble(cross_fits, shared.examples, fitting.tasks, columns)
    for target, task in fitting.tasks.items():
        labels, labelled = shared.examples.target(target)
        weighing = Weighing(task, labels, labelled, fitting.plan.ensemble, fitting.plan.seed)
        candidates = out_of_fold.of_target(target)
        out_of_fold.mixtures[target] = fit_mixture(weighing, candidates, _stacking_folds(shared))

    bags = [cross_fit.bag for cross_fit in cross_fits]
    ensemble = Ensemble(views, shared.examples.features, bags, out_of_fold.mixtures, columns).pruned()
    return Trained(ensemble, out_of_fold, {target: _scores(out_of_fold, target) for target in fitting.tasks})


def _prepare(fitting: Fitting, views: dict[str, View]) -> CrossFitting:
    """Prepare the table under every view, and cut the training and validation rows into folds."""
    cells = len(fitting.table) * sum(len(view.preprocessing.inputs) for view in views.values())
    prepared = {}
    with (
        store(fitting.screen, fitting.table) as cache,
        fitting.screen.bar("preparing for members", cells) as bar,
    ):
        for name, view in views.items():
            of_run = name == OWN
            data = fitting.data if of_run else view.prepare(fitting.table, True, cache, bar.advance)
            prepared[name] = Dataset(data.prepared, data.preprocessing)

    features = Features.fit(prepared, _feature_columns(views), fitting.plan.split.train)
    pool = np.sort(np.concatenate([fitting.plan.split.train, fitting.plan.split.valid]))
    datasets = {name: Dataset(data.prepared, data.preprocessing, pool) for name, data in prepared.items()}
    return CrossFitting(fitting, views, Examples(datasets, features), _folds(fitting, pool))


def _views(fitting: Fitting, members: dict[str, Choice]) -> tuple[dict[str, View], dict[str, str]]:
    """Return the views that the members need, and the name of each member's view (empty: features)."""
    views = {OWN: View(fitting.plan, fitting.data.preprocessing, fitting.network.settings)}
    view_names = {}
    for name, choice in members.items():
        kind, config = member_registry.choose(choice)
        encoders = kind.encoders(config)
        if encoders is None:
            view_names[name] = ""
            continue
        light = bool(encoders) and kind.light(config)
        view_name = _view_name(encoders, light)
        view_names[name] = view_name
        if view_name not in views:
            plan = fitting.plan.with_encoders(encoders)
            views[view_name] = View.fit(plan.light() if light else plan, fitting.table)

    if fitting.plan.has_words() and "" in view_names.values():
        views[NGRAMS] = View.fit(fitting.plan.words_only(), fitting.table)
    return views, view_names


def _view_name(encoders: Mapping[str, Choice], light: bool) -> str:
    """Name a view by its encoders. Without any it is the run's own view."""
    names = [f"{choice.name} {choice.options.get('model', '')}".strip() for choice in encoders.values()]
    name = " + ".join(names) or OWN
    return f"{name}, light" if light else name


def _feature_columns(views: dict[str, View]) -> dict[str, list[str]]:
    """Choose the columns that each view contributes to the features.

    Frozen embeddings come first, each encoder's once; then n-grams of texts; the view that has all columns
    contributes the remaining ones.
    """
    columns = _embedded_columns(views)
    if NGRAMS in views:
        columns[NGRAMS] = list(views[NGRAMS].preprocessing.inputs)

    # of several views with all columns the last one is most likely to be needed anyway
    inputs = {name: list(view.preprocessing.inputs) for name, view in views.items()}
    last = [name for name in views if len(inputs[name]) == len(inputs[OWN])][-1]
    contributed = set(inputs.get(NGRAMS, ())).union(*(view.frozen for view in views.values()))
    columns[last] += [column for column in inputs[last] if column not in contributed]
    return {name: columns[name] for name in views if columns[name]}


def _embedded_columns(views: dict[str, View]) -> dict[str, list[str]]:
    """Choose the columns whose frozen embeddings each view contributes, each encoder's once."""
    columns: dict[str, list[str]] = {}
    contributed: set[str] = set()
    for name, view in views.items():
        if name == NGRAMS:
            continue
        encoders = {column: repr(view.plan.columns[column].encoder) for column in view.frozen}
        columns[name] = [column for column, encoder in encoders.items() if encoder not in contributed]
        contributed |= set(encoders.values())
    return columns


def _folds(fitting: Fitting, pool: np.ndarray) -> list[list[np.ndarray]]:
    """Return the folds that are held out in turn, for each repeat, as places in the pool.

    Where the split goes by time, the only fold is the validation rows.
    """
    options, ensemble, split = fitting.plan.recipe.split, fitting.plan.ensemble, fitting.plan.split
    if options.time:
        return [[_validation_places(fitting, pool)]]
    repeats = []
    for repeat in range(ensemble.repeats):
        seed = fitting.plan.seed * 101 + repeat
        repeats.append(folds(fitting.table, pool, ensemble.folds, options.group, split.stratify, seed))
    return repeats


def _stacking_folds(shared: CrossFitting) -> list[np.ndarray]:
    """Return the folds of the stacked model: the members' own, or the validation rows cut into as many."""
    first = shared.repeats[0]
    if len(first) > 1:
        return first
    return [fold for fold in np.array_split(first[0], shared.fitting.plan.ensemble.folds) if len(fold)]


def _validation_places(fitting: Fitting, pool: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(pool, fitting.plan.split.valid))


def _cross_fit_of_network(shared: CrossFitting) -> CrossFit:
    """Return the run's network as a member: it is trained once, so it predicts only the validation rows."""
    bag = Bag(OWN, Choice(name="network"), OWN, [Network(shared.fitting.network, OWN)])
    pool = shared.examples.rows.numpy()
    return CrossFit(bag, [[_validation_places(shared.fitting, pool)]])


def _cross_fit(shared: CrossFitting, name: str, choice: Choice, view_name: str, bar: Bar) -> CrossFit:
    """Fit a member once for each fold of each repeat, on all examples but that fold."""
    fitting, examples = shared.fitting, shared.examples
    kind, config = member_registry.choose(choice)
    view = shared.views[view_name or OWN]
    bag = Bag(name, choice, view_name, [])
    everything = np.arange(len(examples))
    for repeat, held_out in enumerate(shared.repeats):
        for number, fold in enumerate(held_out):
            train, valid = examples.take(np.setdiff1d(everything, fold)), examples.take(fold)
            seed = fitting.plan.seed * 1009 + repeat * 31 + number
            plan = view.plan.for_fold(train.rows.numpy(), valid.rows.numpy(), seed)
            lesson = Lesson(train, valid, view_name, plan, view.settings, fitting.tasks, seed, fitting.folder)
            bag.folds.append(kind.fit(config, lesson))
            bar.advance()
            bar.draw(name)
    return CrossFit(bag, shared.repeats)


def _scores(out_of_fold: OutOfFoldEnsemble, target: str) -> dict[str, MemberScore]:
    """Score each member on the rows that the ensemble is scored on, so that they can be compared.

    A member without a weight may have predicted only some of these rows.
    """
    task, mixture = out_of_fold.tasks[target], out_of_fold.mixtures[target]
    labels, scored = out_of_fold.examples.target(target)[0], out_of_fold.scored(target)
    scores = {}
    for name, prediction in out_of_fold.of_target(target).items():
        rows = scored & prediction.mask
        if rows.any():
            output = prediction.cooled(mixture.temperatures[name]).outputs[rows]
            value = task.measure_score(output.numpy(), labels[rows].numpy())
            scores[name] = MemberScore(value, int(rows.sum()), mixture.weights.get(name, 0.0))
    return scores
