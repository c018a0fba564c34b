"""Train an ensemble: fit members fold by fold, and weigh them by their out-of-fold predictions."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.plan import Plan
from plait.data.prepare import store
from plait.data.split import folds, split
from plait.ensemble.ensemble import Bag, Ensemble, OwnNetwork
from plait.ensemble.out_of_fold import CrossFit, OutOfFoldEnsemble
from plait.ensemble.views import feature_columns, member_views
from plait.ensemble.weights import Weighing, cross_fit_mixture
from plait.members.base import Examples, Fit, Lesson
from plait.members.base import members as member_registry
from plait.prediction.predictor import Predictor
from plait.prediction.view import View
from plait.recipe.registry import Choice
from plait.recipe.sections import OWN_NETWORK
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.table.json import JSON
from plait.table.table import Table
from plait.tasks.base_prediction import Prediction, predictions


@dataclass
class Fitting:
    """All that training an ensemble needs: the plan, the table, and the network that is trained already."""

    plan: Plan
    table: Table
    network: Predictor
    data: Dataset
    folder: Path
    screen: Screen
    deadline: Deadline = NO_LIMIT

    @property
    def tasks(self) -> dict[str, Prediction]:
        """The task of each target."""
        return predictions(self.data.preprocessing.tasks)


@dataclass(frozen=True)
class MemberScore:
    """A member's main metric on so many rows that the ensemble is scored on, and its weight.

    `seconds` are those of its training, 0 for the run's own network, which is trained before.
    """

    value: float
    rows: int
    weight: float
    seconds: float = 0.0


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
            by_member: JSON = {}
            for name, score in scores.items():
                by_member[name] = asdict(score)
            record[target] = by_member
        return record

    def show(self, screen: Screen) -> None:
        """Print a table of the members for each target."""
        for target, scores in self.scores.items():
            metric = self.out_of_fold.tasks[target].score
            rows = []
            for name, score in scores.items():
                seconds = f"{score.seconds:.1f}" if score.seconds else "-"
                rows.append([name, f"{score.value:.3f}", f"{score.rows:,}", f"{score.weight:.0%}", seconds])
            title = f"{target}: {metric} of each member's out-of-fold predictions"
            screen.table(title, ["member", f"{metric} ", "rows ", "weight ", "seconds "], rows)


@dataclass
class CrossFitting:
    """What all members are fitted with.

    `examples` are the training and validation rows. `repeats` has the folds that are held out in turn, for
    each repeat, as places among the examples.
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

    Return None when there are none. A fit that is resumed trains the members anew, but not the network.
    """
    members = fitting.plan.ensemble.members
    if members and fitting.deadline.is_over:
        fitting.screen.say(f"time limit: no time is left for members ({', '.join(members)})")
        return None
    return _fit(fitting, members) if members else None


def _fit(fitting: Fitting, members: dict[str, Choice]) -> Trained:
    """Cross-fit every member, weigh them for each target, and keep those that have a weight."""
    run_view = View(OWN_NETWORK, fitting.plan, fitting.data.preprocessing, fitting.network.settings)
    views, view_of = member_views(run_view, members, fitting.table)
    shared = _prepare(fitting, views)
    cross_fits = [_cross_fit_of_network(shared)]
    seconds: dict[str, float] = {}
    lessons = sum(_lessons(shared, choice) for choice in members.values())
    with fitting.screen.bar("training members", lessons) as bar:
        for number, (name, choice) in enumerate(members.items()):
            # Each of those that are left may take as long as the others; what one leaves, the others share.
            deadline = fitting.deadline.part(1 / (len(members) - number))
            if number and deadline.is_over:
                left_out = list(members)[number:]
                fitting.screen.say(f"time limit: no time is left for {', '.join(left_out)}")
                break
            begun = time.monotonic()
            cross_fits.append(_cross_fit(shared, name, choice, view_of[name], deadline, bar))
            seconds[name] = time.monotonic() - begun

    columns = list(fitting.data.preprocessing.inputs)
    out_of_fold = OutOfFoldEnsemble(cross_fits, shared.examples, fitting.tasks, columns)
    _weigh(out_of_fold, shared)
    scores = {target: _scores(out_of_fold, target, seconds) for target in fitting.tasks}

    bags = [cross_fit.bag for cross_fit in cross_fits]
    mixtures = {target: mixture.served for target, mixture in out_of_fold.mixtures.items()}
    ensemble = Ensemble(views, shared.examples.features, bags, mixtures, columns, fitting.tasks)
    return Trained(ensemble.pruned(), out_of_fold, scores)


def _weigh(out_of_fold: OutOfFoldEnsemble, shared: CrossFitting) -> None:
    """Fit how the members are mixed for each target, by their out-of-fold predictions."""
    plan = shared.fitting.plan
    folds = _stacking_folds(shared)
    for target, task in shared.fitting.tasks.items():
        labels, labelled = shared.examples.target(target)
        weighing = Weighing(task, labels, labelled, plan.ensemble, plan.seed)
        candidates = out_of_fold.of_target(target)
        out_of_fold.mixtures[target] = cross_fit_mixture(weighing, candidates, folds)


def _prepare(fitting: Fitting, views: dict[str, View]) -> CrossFitting:
    """Prepare the table under every view, and cut the training and validation rows into folds."""
    split = fitting.plan.split
    prepared = _prepare_views(fitting, views)
    features = Features.fit(prepared, feature_columns(views), split.train)

    # Members are weighed by rows that they predict out of fold, so validation rows may train them too.
    pool = np.sort(np.concatenate([split.train, split.valid]))
    datasets = {}
    for name, dataset in prepared.items():
        datasets[name] = Dataset(dataset.prepared, dataset.preprocessing, pool)
    return CrossFitting(
        fitting, views, Examples(datasets, features, fitting.data.prepared), _folds(fitting, pool)
    )


def _prepare_views(fitting: Fitting, views: dict[str, View]) -> dict[str, Dataset]:
    """Prepare all rows of the table under every view. The run has prepared them under its own already."""
    table, screen = fitting.table, fitting.screen
    prepared = {OWN_NETWORK: Dataset(fitting.data.prepared, fitting.data.preprocessing)}
    new_views = {name: view for name, view in views.items() if name not in prepared}

    inputs = sum(len(view.preprocessing.inputs) for view in new_views.values())
    with store(screen, table) as cache, screen.bar("preparing for members", len(table) * inputs) as bar:
        for name, view in new_views.items():
            prepared[name] = view.prepare(table, True, cache, bar.advance)
    return prepared


def _folds(fitting: Fitting, pool: np.ndarray) -> list[list[np.ndarray]]:
    """Return the folds that are held out in turn, for each repeat, as places in the pool.

    Where the split goes by time, the only fold is the validation rows.
    """
    plan = fitting.plan
    options = plan.recipe.split
    if options.time:  # other folds would be predicted from later rows
        return [[_validation_places(fitting, pool)]]

    repeats = []
    for repeat in range(plan.ensemble.repeats):
        seed = plan.seed * 101 + repeat
        stratify = plan.split.stratify
        repeats.append(folds(fitting.table, pool, plan.ensemble.folds, options.group, stratify, seed))
    return repeats


def _stacking_folds(shared: CrossFitting) -> list[np.ndarray]:
    """Return the folds of the stacked model: the members' own, or the validation rows cut into as many."""
    first_repeat = shared.repeats[0]
    if len(first_repeat) > 1:
        return first_repeat
    cut = np.array_split(first_repeat[0], shared.fitting.plan.ensemble.folds)
    return [fold for fold in cut if len(fold)]


def _validation_places(fitting: Fitting, pool: np.ndarray) -> np.ndarray:
    """Return the places of the validation rows in the pool."""
    return np.flatnonzero(np.isin(pool, fitting.plan.split.valid))


def _cross_fit_of_network(shared: CrossFitting) -> CrossFit:
    """Return the run's network as a member: it is trained once, so it predicts only the validation rows."""
    member = OwnNetwork(shared.fitting.network)
    bag = Bag(OWN_NETWORK, None, OWN_NETWORK, [member])
    pool = shared.examples.rows.numpy()
    return CrossFit(bag, [member], [[_validation_places(shared.fitting, pool)]])


def _cross_fit(
    shared: CrossFitting, name: str, choice: Choice, view_name: str, deadline: Deadline, bar: Bar
) -> CrossFit:
    """Fit a member once for each fold of each repeat, on all examples but that fold."""
    fitting = shared.fitting
    kind, config = member_registry.choose(choice)
    fits: list[Fit] = []

    def advance() -> None:
        """Count one fit as done."""
        bar.advance()
        bar.draw(name)

    for repeat, held_out in enumerate(shared.repeats):
        if repeat and deadline.is_over:
            break
        lessons = []
        for number, fold in enumerate(held_out):
            # No two fits have the same seed, as long as a repeat has 31 folds at most.
            seed = fitting.plan.seed * 1009 + repeat * 31 + number
            train = np.setdiff1d(np.arange(len(shared.examples)), fold)
            lessons.append(_lesson(shared, view_name, train, fold, seed))
            if len(held_out) == 1 and kind.chooses:
                lessons.append(_earlier_lesson(shared, view_name, train, seed))
        in_time = deadline.part(1 / (len(shared.repeats) - repeat))
        lessons = [replace(lesson, deadline=in_time) for lesson in lessons]
        # An earlier lesson only chooses.
        fits += kind.fit(config, lessons, advance)[: len(held_out)]

    bag = Bag(name, choice, view_name, [fit.served for fit in fits])
    repeats = shared.repeats[: len(fits) // len(shared.repeats[0])]
    return CrossFit(bag, [fit.out_of_fold for fit in fits], repeats)


def _lessons(shared: CrossFitting, choice: Choice) -> int:
    """Return the number of lessons that a member learns from."""
    is_single_fold = len(shared.repeats[0]) == 1
    kind, _ = member_registry.choose(choice)
    return shared.fits + (len(shared.repeats) if is_single_fold and kind.chooses else 0)


def _lesson(
    shared: CrossFitting, view_name: str, train_places: np.ndarray, held_out_places: np.ndarray, seed: int
) -> Lesson:
    """Return what a fit is trained with that learns from some of the examples, and holds out others."""
    fitting, examples = shared.fitting, shared.examples
    view = shared.views[view_name or OWN_NETWORK]
    train = examples.take(train_places)
    held_out = examples.take(held_out_places)
    return Lesson(
        train=train,
        held_out=held_out,
        view=view_name,
        plan=view.plan.for_fold(train.rows.numpy(), held_out.rows.numpy(), seed),
        settings=view.settings,
        tasks=fitting.tasks,
        seed=seed,
        folder=fitting.folder,
    )


def _earlier_lesson(shared: CrossFitting, view_name: str, train_places: np.ndarray, seed: int) -> Lesson:
    """Return a lesson that holds out the last of the training rows, where the split goes by time.

    There is only one fold then, which must not choose for itself. This lesson chooses for it.
    """
    fitting = shared.fitting
    options = fitting.plan.recipe.split.model_copy(update={"test": 0.0})
    rows = shared.examples.rows.numpy()[train_places]
    sides = split(fitting.table.take(rows), options, "", seed)
    return _lesson(shared, view_name, train_places[sides.train], train_places[sides.valid], seed)


def _scores(out_of_fold: OutOfFoldEnsemble, target: str, seconds: dict[str, float]) -> dict[str, MemberScore]:
    """Score each member on the rows that the ensemble is scored on, so that they can be compared.

    A member without a weight may have predicted only some of these rows. `seconds` are those of each member's
    training.
    """
    task = out_of_fold.tasks[target]
    mixture = out_of_fold.mixtures[target].served
    labels, _ = out_of_fold.examples.target(target)
    scored = out_of_fold.scored(target)
    scores = {}
    for name, prediction in out_of_fold.of_target(target).items():
        rows = scored & prediction.mask
        if not rows.any():
            continue
        outputs = prediction.cooled(mixture.temperatures[name]).outputs[rows]
        score = task.measure_score(outputs.numpy(), labels[rows].numpy())
        weight = mixture.weights.get(name, 0.0)
        scores[name] = MemberScore(score, int(rows.sum()), weight, seconds.get(name, 0.0))
    return scores
