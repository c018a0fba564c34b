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
from plait.data.plan import Plan
from plait.data.prepare import store
from plait.data.split import folds
from plait.ensemble.ensemble import OWN, STACK, Bag, Ensemble, Weights
from plait.ensemble.out_of_fold import Fold, Unseen
from plait.ensemble.selection import bagged
from plait.ensemble.view import View
from plait.ensemble.weights import stack
from plait.errors import Interrupted
from plait.members.base import Examples, Lesson
from plait.members.network import Network
from plait.prediction.predictor import Predictor
from plait.recipe.registry import Choice, configure, find
from plait.table.table import Table
from plait.tasks.base_prediction import Prediction, fit_temperature, predictions

NGRAMS = "ngrams"


@dataclass
class Fitting:
    """All that training an ensemble needs: the plan, the table, and the network that is trained already."""

    plan: Plan
    table: Table
    own: Predictor
    data: Dataset
    folder: Path
    screen: Screen

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
    pool = np.sort(np.concatenate([fitting.plan.split.train, fitting.plan.split.valid]))
    whole = {name: Dataset(d.prepared, d.preprocessing) for name, d in data.items()}
    features = Features.fit(whole, _takes(views), fitting.plan.split.train)
    examples = Examples(
        {name: Dataset(d.prepared, d.preprocessing, pool) for name, d in data.items()}, features
    )
    parts = _parts(fitting, pool)
    own = Bag(OWN, Choice(name="network"), OWN, [Network(fitting.own, OWN)])
    bags = [Fold(own, [np.flatnonzero(np.isin(pool, fitting.plan.split.valid))])]
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


def _views(fitting: Fitting, members: dict[str, Choice]) -> tuple[dict[str, View], dict[str, str]]:
    """The views of the table that the members need, and by member the name of its own (empty: features)."""
    views = {OWN: View(fitting.plan, fitting.data.preprocessing, fitting.own.settings)}
    keys = {}
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
            plan = fitting.plan.with_encoders(encoders)
            views[key] = View.fit(plan.light() if light else plan, fitting.table)
    texts = [c for c, column in fitting.plan.columns.items() if column.modality.name == "text"]
    if texts and "" in keys.values():
        views[NGRAMS] = View.fit(fitting.plan.words_only(), fitting.table)
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
        encoders = {c: repr(view.plan.columns[c].encoder) for c in view.frozen}
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
    options, plan = fitting.plan.recipe.split, fitting.plan.ensemble
    if options.time:
        return [[np.flatnonzero(np.isin(pool, fitting.plan.split.valid))]]
    first, stratify = fitting.plan.seed * 101, fitting.plan.split.stratify
    return [
        folds(fitting.table, pool, plan.folds, options.group, stratify, first + repeat)
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
            train, valid = examples.take(np.setdiff1d(everything, part)), examples.take(part)
            seed = fitting.plan.seed * 1009 + repeat * 31 + number
            plan = view.plan.for_fold(train.rows.numpy(), valid.rows.numpy(), seed)
            lesson = Lesson(train, valid, key, plan, view.settings, fitting.tasks, seed, fitting.folder)
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
    if fitting.plan.ensemble.stack and len(first) > 1:
        cooled[STACK] = stack(result, task, {name: cooled[name] for name in first}, y, labelled, parts)
        where[STACK] = where[first[0]]
        first.append(STACK)
    rows = torch.from_numpy(where[first[0]])
    plan, seed = fitting.plan.ensemble, fitting.plan.seed
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
