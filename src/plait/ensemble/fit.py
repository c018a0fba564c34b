"""Training an ensemble: members fold by fold, answers on rows that they have not seen, and what weighs
them by those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plait.console import Bar, Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.data.inspect import store
from plait.data.split import Split, folds
from plait.ensemble.ensemble import OWN, STACK, Bag, Ensemble, Weights
from plait.ensemble.out_of_fold import Fold, Unseen
from plait.ensemble.selection import bagged
from plait.ensemble.view import View
from plait.ensemble.weights import stack
from plait.errors import Interrupted, RecipeError
from plait.members.base import Examples, Lesson
from plait.members.network import Network
from plait.prediction.predictor import Predictor
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice, configure, find
from plait.recipe.sections import EnsembleRecipe
from plait.table.schema import Schema
from plait.table.table import Table
from plait.tasks.base_prediction import Prediction, fit_temperature, predictions

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
    def tasks(self) -> dict[str, Prediction]:
        return predictions(self.data.preprocessing.tasks)


@dataclass
class Trained:
    """An ensemble, and the rows that it was weighed on, as one that answers each of them without the
    members that saw it.
    """

    ensemble: Ensemble
    unseen: Unseen
    examples: Examples
    members: dict[str, dict[str, dict[str, Any]]]

    def show(self, screen: Screen) -> None:
        for target, found in self.members.items():
            rows = [
                [name, f"{one['value']:.3f}", f"{one['rows']:,}", f"{one['share']:.0%}"]
                for name, one in found.items()
            ]
            score = self.unseen.tasks[target].score
            screen.table(
                f"{target}: {score} of each member on rows that it had not seen",
                ["member", f"{score} ", "rows ", "share "],
                rows,
            )


def fit(fitting: Fitting) -> Trained | None:
    """Trains the members of the recipe's ensemble beside the network that is trained already; None when
    there are none.

    Raises `Interrupted` after Ctrl-C: a resumed fit trains the members anew, but not the network.
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
    views, keys = _views(fitting, members)
    total = len(fitting.table) * sum(len(v.preprocessing.inputs) for v in views.values())
    with (
        store(fitting.screen, fitting.table) as cells,
        fitting.screen.bar("preparing for members", total) as bar,
    ):
        data = {
            name: fitting.data if name == OWN else v.dataset(fitting.table, True, cells, bar.advance)
            for name, v in views.items()
        }
    pool = np.sort(np.concatenate([fitting.rows.train, fitting.rows.valid]))
    whole = {name: Dataset(d.prepared, d.preprocessing) for name, d in data.items()}
    features = Features.fit(whole, _takes(views), fitting.rows.train)
    examples = Examples(
        {name: Dataset(d.prepared, d.preprocessing, pool) for name, d in data.items()}, features
    )
    parts = _parts(fitting, pool)
    own = Bag(OWN, Choice(name="network"), OWN, [Network(fitting.own, OWN)])
    bags = [Fold(own, [np.flatnonzero(np.isin(pool, fitting.rows.valid))])]
    with fitting.screen.bar("training members", len(members) * sum(len(one) for one in parts)) as bar:
        for name, choice in members.items():
            bags.append(_train(fitting, name, choice, keys[name], views, examples, parts, bar))
    unseen = Unseen(bags, {}, fitting.tasks, list(fitting.data.preprocessing.inputs))
    known = unseen.known(examples)
    for target, task in fitting.tasks.items():
        unseen.weights[target] = _weigh(fitting, target, task, unseen, examples, parts[0])
    ensemble = Ensemble(views, features, [b.bag for b in bags], unseen.weights, unseen.columns).pruned()
    return Trained(
        ensemble, unseen, examples.take(known), {t: _scores(t, unseen, examples) for t in fitting.tasks}
    )


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


def _takes(views: dict[str, View]) -> dict[str, list[str]]:
    """Of which view which columns become features: all vectors of frozen encoders, n-grams of texts,
    and of the rest the own.
    """
    takes: dict[str, list[str]] = {}
    vectors = {c for name, view in views.items() for c in view.frozen}
    taken: set[str] = set()
    for name, view in views.items():
        if name == NGRAMS:
            takes[name] = list(view.preprocessing.inputs)
            continue
        encoders = {c: repr(view.recipe.columns[c].encoder) for c in view.frozen}
        takes[name] = [c for c, encoder in encoders.items() if encoder not in taken]
        taken |= set(encoders.values())
    # of several views with all columns the last one is most likely to be needed anyway
    rest_of = [
        name
        for name, view in views.items()
        if len(view.preprocessing.inputs) == len(views[OWN].preprocessing.inputs)
    ][-1]
    ngrams = set(views[NGRAMS].preprocessing.inputs) if NGRAMS in views else set()
    takes[rest_of] += [c for c in views[rest_of].preprocessing.inputs if c not in vectors and c not in ngrams]
    return {name: columns for name, columns in takes.items() if columns}


def _parts(fitting: Fitting, pool: np.ndarray) -> list[list[np.ndarray]]:
    """For each repeat the parts of the pool that are held out in turn; the validation rows alone where
    time goes forward.
    """
    if fitting.chosen.split.time:
        return [[np.flatnonzero(np.isin(pool, fitting.rows.valid))]]
    target = next(iter(fitting.tasks))
    classes = fitting.chosen.tasks[target].name == "classification"
    plan, first = fitting.plan, fitting.chosen.seed * 101
    assert plan.repeats != "auto"
    return [
        folds(pool, plan.folds, fitting.table, fitting.chosen.split, target, first + repeat, classes)
        for repeat in range(plan.repeats)
    ]


def _train(
    fitting: Fitting,
    name: str,
    choice: Choice,
    key: str,
    views: dict[str, View],
    examples: Examples,
    parts: list[list[np.ndarray]],
    bar: Bar,
) -> Fold:
    kind, config = find("members", choice.name), configure("members", choice.name, choice.options)
    view = views[key] if key else views[OWN]
    bag, held = Bag(name, choice, key, []), []
    everything = np.arange(len(examples))
    for repeat, one in enumerate(parts):
        for number, part in enumerate(one):
            lesson = Lesson(
                examples.take(np.setdiff1d(everything, part)),
                examples.take(part),
                key,
                view.recipe,
                view.settings,
                fitting.tasks,
                fitting.chosen.seed * 1009 + repeat * 31 + number,
                fitting.folder,
            )
            bag.folds.append(kind.fit(config, lesson))
            held.append(part)
            bar.advance()
            bar.draw(name)
    return Fold(bag, held)


def _weigh(
    fitting: Fitting,
    target: str,
    task: Prediction,
    unseen: Unseen,
    examples: Examples,
    parts: list[np.ndarray],
) -> Weights:
    """Shares and temperatures for one target: first of the bags that answer most rows, then of the
    others beside their mean.
    """
    y, known = examples.target(target)
    labelled = known.numpy()
    found = {b.bag.name: unseen.whole(b)[target] for b in unseen.bags if target in unseen.whole(b)}
    where = {b.bag.name: b.known[labelled[b.known]] for b in unseen.bags}
    result = Weights({}, {})
    for name, output in found.items():
        rows = torch.from_numpy(where[name])
        result.temperatures[name] = fit_temperature(task, output[rows], y[rows])
    cooled = {name: output / result.temperatures[name] for name, output in found.items()}
    most = max(len(rows) for rows in where.values())
    first = [name for name in found if len(where[name]) == most]
    if fitting.plan.stack and len(first) > 1:
        cooled[STACK] = stack(result, task, {name: cooled[name] for name in first}, y, labelled, parts)
        where[STACK] = where[first[0]]
        first.append(STACK)
    rows = torch.from_numpy(where[first[0]])
    plan, seed = fitting.plan, fitting.chosen.seed
    result.shares = dict(
        zip(
            first,
            bagged([cooled[n][rows] for n in first], task, y[rows], plan.rounds, plan.bags, seed),
            strict=True,
        )
    )
    others = [name for name in found if name not in first and len(where[name])]
    if others:
        rows = torch.from_numpy(where[others[0]])
        used = [(cooled[n], s) for n, s in result.shares.items() if s]
        blended = task.mix(torch.stack([o for o, _ in used]), torch.tensor([s for _, s in used]))
        share = bagged(
            [blended[rows], *(cooled[n][rows] for n in others)], task, y[rows], plan.rounds, plan.bags, seed
        )
        result.shares = {n: s * share[0] for n, s in result.shares.items()} | dict(
            zip(others, share[1:], strict=True)
        )
        if not any(share[1:]):
            rows = torch.from_numpy(where[first[0]])
    else:
        rows = torch.from_numpy(where[first[0]])
    used = [(cooled[n], s) for n, s in result.shares.items() if s]
    blended = task.mix(torch.stack([o for o, _ in used]), torch.tensor([s for _, s in used]))
    result.temperature = fit_temperature(task, blended[rows], y[rows])
    return result


def _scores(target: str, unseen: Unseen, examples: Examples) -> dict[str, dict[str, Any]]:
    """What each bag reaches by itself on the rows that it had not seen, and its share."""
    y, labelled = (t.numpy() for t in examples.target(target))
    task, weights, found = unseen.tasks[target], unseen.weights[target], {}
    for bag in unseen.bags:
        name, rows = bag.bag.name, bag.known[labelled[bag.known]]
        if target in (answers := unseen.whole(bag)) and len(rows):
            output = (answers[target] / weights.temperatures[name]).numpy()[rows]
            found[name] = {
                "value": task.measure(output, y[rows])[task.score],
                "rows": len(rows),
                "share": weights.shares.get(name, 0.0),
            }
    return found
