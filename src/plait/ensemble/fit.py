"""Train an ensemble: fit members fold by fold, and weigh them by their out-of-fold predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.inspect import store
from plait.data.split import Split, folds
from plait.ensemble.ensemble import OWN, Bag, Ensemble
from plait.ensemble.out_of_fold import CrossFit, OutOfFoldEnsemble
from plait.ensemble.view import View
from plait.ensemble.weights import Weighing, fit_mixture
from plait.errors import Interrupted, RecipeError
from plait.members.base import Examples, Lesson
from plait.members.network import Network
from plait.prediction.predictor import Predictor
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice, configure, find
from plait.recipe.sections import EnsembleRecipe
from plait.table.schema import Schema
from plait.table.table import Table
from plait.tasks.base import Task

NGRAMS = "ngrams"


@dataclass
class Fitting:
    """All that training an ensemble needs: the recipe before and after it was resolved, the table, and
    the own network.
    """

    asked: Recipe
    chosen: Recipe
    schema: Schema
    table: Table
    rows: Split
    own: Predictor
    data: Dataset
    folder: Path
    screen: Screen

    @property
    def plan(self) -> EnsembleRecipe:
        assert self.chosen.ensemble is not None
        return self.chosen.ensemble

    @property
    def tasks(self) -> dict[str, Task]:
        return self.data.preprocessing.tasks


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

    def record(self) -> dict[str, Any]:
        """Return the scores as JSON."""
        record = {}
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
        return sum(len(folds) for folds in self.repeats)


def fit(fitting: Fitting) -> Trained | None:
    """Train the members of the recipe's ensemble beside the network that is trained already.

    Return None when there are none. Raises `Interrupted` after Ctrl-C: a resumed fit trains the members
    anew, but not the network.
    """
    members = _available(fitting)
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
        weighing = Weighing(task, labels, labelled, fitting.plan, fitting.chosen.seed)
        predictions = out_of_fold.of_target(target)
        out_of_fold.mixtures[target] = fit_mixture(weighing, predictions, _stacking_folds(shared))

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
            data = fitting.data if of_run else view.dataset(fitting.table, True, cache, bar.advance)
            prepared[name] = Dataset(data.prepared, data.preprocessing)

    features = Features.fit(prepared, _feature_columns(views), fitting.rows.train)
    pool = np.sort(np.concatenate([fitting.rows.train, fitting.rows.valid]))
    datasets = {name: Dataset(data.prepared, data.preprocessing, pool) for name, data in prepared.items()}
    return CrossFitting(fitting, views, Examples(datasets, features), _folds(fitting, pool))


def _available(fitting: Fitting) -> dict[str, Choice]:
    """The members that can be trained here. What the recipe itself asks for must be there; of what
    `quality` stands for, vectors of models that are not installed are left out, and said so.
    """
    modalities = {fitting.schema[c].modality or "" for c in fitting.schema.of("input")}
    asked = fitting.asked.ensemble is not None
    kept: dict[str, Choice] = {}
    told: set[str] = set()
    for name, choice in fitting.plan.members.items():
        options = dict(choice.options)
        if "encoders" in options:
            options["encoders"] = _encoders(options["encoders"], modalities, asked, told)
            if not options["encoders"] and choice.options["encoders"]:
                continue
        one = Choice(name=choice.name, **options)
        if all(one != other for other in kept.values()):
            kept[name] = one
    for line in sorted(told):
        fitting.screen.say(line)
    return kept


def _encoders(wanted: dict[str, Any], modalities: set[str], asked: bool, told: set[str]) -> dict[str, Any]:
    """Those for modalities that the table has, and whose weights are here."""
    found = {}
    for modality, given in wanted.items():
        if modality not in modalities:
            continue
        choice = Choice.model_validate(given)
        try:
            component = find("encoders", choice.name)
            component.settled(configure("encoders", choice.name, choice.options), modality)
        except (RecipeError, ModuleNotFoundError) as error:
            if asked:
                raise
            told.add(f"without pretrained vectors of {modality}s: {error}")
            continue
        found[modality] = given
    return found


def _views(fitting: Fitting, members: dict[str, Choice]) -> tuple[dict[str, View], dict[str, str]]:
    """The views of the table that the members need, and by member the name of its own (empty: features)."""
    views = {OWN: View(fitting.chosen, fitting.data.preprocessing, fitting.own.settings)}
    keys = {}
    tasks = {t: choice.name for t, choice in fitting.chosen.tasks.items()}
    for name, choice in members.items():
        kind, config = find("members", choice.name), configure("members", choice.name, choice.options)
        encoders = kind.encoders(config)
        if encoders is None:
            keys[name] = ""
            continue
        key = " + ".join(f"{c.name} {c.options.get('model', '')}".strip() for c in encoders.values()) or OWN
        light = key != OWN and kind.light(config)
        keys[name] = key = f"{key}, light" if light else key
        if key not in views:
            recipe = fitting.asked.with_encoders(encoders, fitting.schema).resolve(fitting.schema, tasks)
            views[key] = View.fit(recipe.light() if light else recipe, fitting.table, fitting.rows.train)
    texts = [c for c in fitting.schema.of("input") if fitting.schema[c].modality == "text"]
    if texts and "" in keys.values():
        recipe = fitting.asked.with_encoders({"text": Choice(name="bag")}, fitting.schema).resolve(
            fitting.schema, tasks
        )
        columns = {c: v for c, v in recipe.columns.items() if c in texts}
        views[NGRAMS] = View.fit(
            recipe.model_copy(update={"columns": columns, "tasks": {}}), fitting.table, fitting.rows.train
        )
    return views, keys


def _feature_columns(views: dict[str, View]) -> dict[str, list[str]]:
    """Choose the columns that each view contributes to the features.

    Frozen embeddings come first, each encoder's once; then n-grams of texts; the view that has all columns
    contributes the remaining ones.
    """
    columns: dict[str, list[str]] = {}
    embedded = {column for view in views.values() for column in view.frozen}
    contributed: set[str] = set()
    for name, view in views.items():
        if name == NGRAMS:
            columns[name] = list(view.preprocessing.inputs)
            continue
        encoders = {column: repr(view.recipe.columns[column].encoder) for column in view.frozen}
        columns[name] = [column for column, encoder in encoders.items() if encoder not in contributed]
        contributed |= set(encoders.values())

    # of several views with all columns the last one is most likely to be needed anyway
    inputs = {name: list(view.preprocessing.inputs) for name, view in views.items()}
    last = [name for name in views if len(inputs[name]) == len(inputs[OWN])][-1]
    ngrams = inputs.get(NGRAMS, [])
    columns[last] += [column for column in inputs[last] if column not in embedded and column not in ngrams]
    return {name: names for name, names in columns.items() if names}


def _folds(fitting: Fitting, pool: np.ndarray) -> list[list[np.ndarray]]:
    """Return the folds that are held out in turn, for each repeat, as places in the pool.

    Where the split goes by time, the only fold is the validation rows.
    """
    if fitting.chosen.split.time:
        return [[_validation_places(fitting, pool)]]
    target = next(iter(fitting.tasks))
    classes = fitting.chosen.tasks[target].name == "classification"
    count, repeats = fitting.plan.folds, fitting.plan.repeats
    assert repeats != "auto"
    first_seed = fitting.chosen.seed * 101
    by_repeat = []
    for repeat in range(repeats):
        seed = first_seed + repeat
        by_repeat.append(folds(pool, count, fitting.table, fitting.chosen.split, target, seed, classes))
    return by_repeat


def _stacking_folds(shared: CrossFitting) -> list[np.ndarray]:
    """Return the folds of the stacked model: the members' own, or the validation rows cut into as many."""
    first = shared.repeats[0]
    if len(first) > 1:
        return first
    return [fold for fold in np.array_split(first[0], shared.fitting.plan.folds) if len(fold)]


def _validation_places(fitting: Fitting, pool: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(pool, fitting.rows.valid))


def _cross_fit_of_network(shared: CrossFitting) -> CrossFit:
    """The run's network as a member: it is trained once, so it predicts only the validation rows."""
    bag = Bag(OWN, Choice(name="network"), OWN, [Network(shared.fitting.own, OWN)])
    pool = shared.examples.rows.numpy()
    return CrossFit(bag, [[_validation_places(shared.fitting, pool)]])


def _cross_fit(shared: CrossFitting, name: str, choice: Choice, view_name: str, bar: Bar) -> CrossFit:
    """Fit a member once for each fold of each repeat, on all examples but that fold."""
    fitting, examples = shared.fitting, shared.examples
    kind, config = find("members", choice.name), configure("members", choice.name, choice.options)
    view = shared.views[view_name or OWN]
    bag = Bag(name, choice, view_name, [])
    everything = np.arange(len(examples))
    for repeat, held_out in enumerate(shared.repeats):
        for number, fold in enumerate(held_out):
            lesson = Lesson(
                train=examples.take(np.setdiff1d(everything, fold)),
                valid=examples.take(fold),
                view=view_name,
                recipe=view.recipe,
                settings=view.settings,
                tasks=fitting.tasks,
                seed=fitting.chosen.seed * 1009 + repeat * 31 + number,
                folder=fitting.folder,
            )
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
            value = task.measure(output.numpy(), labels[rows].numpy())[task.score]
            scores[name] = MemberScore(value, int(rows.sum()), mixture.weights.get(name, 0.0))
    return scores
