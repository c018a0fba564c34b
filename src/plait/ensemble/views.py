"""Decide under which views a table is prepared for members, and what each view adds to the features."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from plait.members.base import members as member_registry
from plait.prediction.view import View
from plait.recipe.registry import Choice
from plait.recipe.sections import OWN_NETWORK
from plait.table.table import Table

NGRAMS = "ngrams"  # the view that counts words and n-grams of texts


def member_views(
    run_view: View, members: Mapping[str, Choice], table: Table
) -> tuple[dict[str, View], dict[str, str]]:
    """Return the views that the members need, and the name of each member's view (empty: features).

    `run_view` is that of the run's own network. The others are fitted on its training rows.
    """
    views = {OWN_NETWORK: run_view}
    view_names = {}
    name_of_key: dict[str, str] = {}
    for name, choice in members.items():
        kind, config = member_registry.choose(choice)
        encoders = kind.encoders(config)
        if encoders is None:
            view_names[name] = ""
            continue

        # Without encoders of its own, a member reads the run's view, which leaves out no columns.
        light = bool(encoders) and kind.light(config)
        cells: Mapping[str, dict[str, object]] = choice.options.get("cells") or {}
        key = repr((encoders, cells, light))
        if key not in name_of_key:
            name_of_key[key] = _unused(_view_name(encoders, cells, light), views) if encoders else OWN_NETWORK
        view_name = name_of_key[key]
        view_names[name] = view_name
        if view_name not in views:
            plan = run_view.plan.with_encoders(encoders, cells)
            views[view_name] = View.fit(view_name, plan.light() if light else plan, table)

    if run_view.plan.has_words() and "" in view_names.values():
        views[NGRAMS] = View.fit(NGRAMS, run_view.plan.words_only(), table)
    return views, view_names


def _view_name(encoders: Mapping[str, Choice], cells: Mapping[str, dict[str, object]], light: bool) -> str:
    """Name a view by its encoders and the options of their cells."""
    names = []
    for choice in encoders.values():
        model = choice.options.get("model", "")
        names.append(f"{choice.name} {model}".strip())
    for modality, options in cells.items():
        names += [f"{modality} {option} {value}" for option, value in options.items()]
    name = " + ".join(names)
    return f"{name}, light" if light else name


def _unused(name: str, views: Collection[str]) -> str:
    """Return a name that no view has. The options of encoders that a name leaves out may differ."""
    unused, number = name, 1
    while unused in views:
        number += 1
        unused = f"{name}, {number}"
    return unused


def feature_columns(views: dict[str, View]) -> dict[str, list[str]]:
    """Choose the columns that each view contributes to the features.

    Frozen embeddings come first, then n-grams of texts. A view that has all columns contributes the others.
    """
    columns = {name: _new_embeddings(name, views) for name in views}
    if NGRAMS in views:
        columns[NGRAMS] = list(views[NGRAMS].preprocessing.inputs)

    contributed = set(columns.get(NGRAMS, []))
    for view in views.values():
        contributed.update(view.plan.frozen_columns)
    complete = _last_complete_view(views)
    for column in views[complete].preprocessing.inputs:
        if column not in contributed:
            columns[complete].append(column)
    return {name: of_view for name, of_view in columns.items() if of_view}


def _new_embeddings(name: str, views: dict[str, View]) -> list[str]:
    """Return the frozen columns of a view whose embeddings no view before it has."""
    earlier: set[tuple[str, str]] = set()
    for view_name, view in views.items():
        if view_name == name:
            break
        earlier.update(_frozen_encoders(view).items())

    # Another column may have the same encoder, so both column and encoder count.
    new = []
    for column, encoder in _frozen_encoders(views[name]).items():
        if (column, encoder) not in earlier:
            new.append(column)
    return new


def _frozen_encoders(view: View) -> dict[str, str]:
    """Return the frozen encoder of each column that has one, with its options, as a text."""
    return {column: repr(view.plan.columns[column].encoder) for column in view.plan.frozen_columns}


def _last_complete_view(views: dict[str, View]) -> str:
    """Return the last view that has all columns: it is most likely to be needed anyway."""
    number_of_inputs = len(views[OWN_NETWORK].preprocessing.inputs)
    last = OWN_NETWORK
    for name, view in views.items():
        if len(view.preprocessing.inputs) == number_of_inputs:
            last = name
    return last
