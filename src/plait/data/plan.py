"""The plan: what plait decided, for one table and one recipe."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import yaml
from pydantic import ConfigDict, JsonValue, PlainSerializer, TypeAdapter
from pydantic.dataclasses import dataclass

from plait.balancing.base import balancings
from plait.data.arguments import target_names
from plait.data.infer import Inferred, infer, split_column
from plait.data.plan_columns import ColumnPlan, plan_columns, recipe_with_encoders, replan_columns
from plait.data.plan_encoders import texts_of
from plait.data.plan_ensemble import EnsemblePlan, plan_ensemble
from plait.data.plan_members import Inputs, sides_of
from plait.data.plan_tasks import aligned_columns, components, fill_in_tasks, plan_tasks
from plait.data.plan_training import TrainingPlan, plan_training
from plait.data.split import NO_ROWS, Split, split
from plait.data.targets import Targets, find_targets
from plait.errors import RecipeError, TrainingError, count
from plait.fusion.base import fusions
from plait.modalities.base import modalities
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice
from plait.recipe.sections import ModelRecipe, SplitRecipe
from plait.table.conventions.infer import AnyConvention
from plait.table.json import JSON
from plait.table.schema import TEXT, Schema, origin
from plait.table.table import Table
from plait.table.typed import read_cells
from plait.tasks.base import tasks as task_registry

# a field that the user left out stays out of the JSON, so that it is not taken for a choice of the user
RecipeAsked = Annotated[Recipe, PlainSerializer(Recipe.to_dict, return_type=dict[str, JsonValue])]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Plan:
    """Everything that decides what is trained and how. No `auto` is left.

    `recipe` is what the user asked for. Plans for other rows or encoders start from it. By target, `labels`
    names the column with its labels, and `reasons` says why it has its task. `alignments` has the columns
    that each task without a target compares. `columns` has the inputs, in the order of the table.
    `conventions` says how columns write their cells. `warnings` names columns that have two readings, or that
    no modality reads, and labels that are most likely mistakes.
    """

    recipe: RecipeAsked
    schema: Schema
    split: Split
    labels: dict[str, str]
    reasons: dict[str, str]
    alignments: dict[str, list[str]]
    tasks: dict[str, Choice]
    columns: dict[str, ColumnPlan]
    conventions: dict[str, AnyConvention]
    warnings: list[str]
    fusion: Choice
    balancing: Choice
    model: ModelRecipe
    training: TrainingPlan
    ensemble: EnsemblePlan
    seed: int

    @classmethod
    def make(cls, table: Table, recipe: Recipe, target: str | Iterable[str] = ()) -> Plan:
        """Decide everything: type the targets on all rows, split, then infer the inputs from training rows.

        Raises `TableError` or `RecipeError` when the recipe does not fit the table, `TrainingError` for
        fewer than two labelled rows to train on.
        """
        targets = find_targets(table, recipe, target_names(target))
        if not targets.labels and not targets.alignments:
            names = ", ".join(table.data.column_names)
            raise RecipeError(
                f"which column is to be predicted? Name it by --target (in Python: target=), or name what "
                f"goes with what by --align (align=); {table.name} has {names}"
            )
        sides, inferred = split_and_infer(table, recipe, targets)
        schema = inferred.schema
        conventions = inferred.conventions.with_others(targets.conventions)
        tasks = plan_tasks(recipe, targets, schema)
        alignments = {name: list(tasks[name].options["inputs"]) for name in targets.alignments}

        # rows can be told apart by their labels only now: an alignment may choose its columns in `plan_tasks`
        typed = read_cells(table, conventions.by_column)
        has_label = _has_label(typed, targets.labels, alignments)
        rows = _labelled(sides, has_label, learn_unlabelled=recipe.training.unlabelled > 0)
        tasks, reasons = fill_in_tasks(tasks, targets, typed, schema, rows.train)
        columns = plan_columns(recipe, schema, tasks, texts_of(typed, rows.train))
        inputs = Inputs(recipe, schema, tasks, columns, sides_of(typed, rows.train, columns))
        return cls(
            recipe=recipe,
            schema=schema,
            split=rows,
            labels=targets.labels,
            reasons=reasons,
            alignments=alignments,
            tasks=tasks,
            columns=columns,
            conventions=conventions.by_column,
            warnings=[
                *inferred.warnings,
                *targets.conventions.warnings.values(),
                *targets.warnings,
                *_sides_without_labels(sides, rows),
            ],
            fusion=fusions.resolve(recipe.fusion),
            balancing=balancings.resolve(recipe.balancing),
            model=_plan_model(recipe.model, targets),
            training=_plan_training(recipe, len(rows.train), tasks, columns),
            ensemble=plan_ensemble(recipe, schema, len(rows.train), tasks, inputs),
            seed=recipe.seed,
        )

    def read(self, table: Table) -> Table:
        """Read a table's cells as the plan's columns write them, whatever type they come in."""
        return read_cells(table, self.conventions).with_full_paths(self.columns_of_files())

    @property
    def table_columns(self) -> list[str]:
        """The columns of the table. The schema also has the sounds of videos, and the texts in images."""
        names = []
        for column in self.schema:
            if column.role != "input" or column.name in self.conventions:
                names.append(column.name)
        return names

    def columns_of_files(self) -> set[str]:
        """Return the columns of the table whose cells may be paths."""
        names = self.table_columns
        files = set()
        for name, column in self.columns.items():
            if modalities.find(column.modality.name).media:
                files.add(origin(name, names))
            if name.endswith(TEXT):
                files.add(name.removesuffix(TEXT))
        for target, column_name in self.labels.items():
            if task_registry.find(self.tasks[target].name).from_files:
                files.add(column_name)
        return files

    @property
    def targets(self) -> list[str]:
        """The targets that are predicted, without alignments."""
        return list(self.labels)

    @property
    def frozen_columns(self) -> list[str]:
        """The inputs whose encoders are not trained: their cells are encoded once, before training."""
        return [name for name, column in self.columns.items() if column.frozen]

    def for_fold(self, train: np.ndarray, valid: np.ndarray, seed: int) -> Plan:
        """Plan a training on other rows of the same table, with its own number of epochs."""
        rows = Split(train, valid, NO_ROWS, "one fold is held out", stratify=self.split.stratify)
        return replace(self, split=rows, seed=seed)._numbered()

    def for_refit(self, rows: np.ndarray, epochs: int) -> Plan:
        """Plan the same training for so many epochs on all of these rows."""
        how = "training and validation rows"
        training = self.training.model_copy(update={"refit": False, "epochs": epochs})
        split = Split(rows, NO_ROWS, NO_ROWS, how)
        return replace(self, split=split, training=training, ensemble=EnsemblePlan())

    def for_target(self, target: str, train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Plan:
        """Plan a training of one target alone, on rows that have its label."""
        how = f"rows with a label of {target}"
        return replace(
            self,
            split=Split(train, valid, test, how, stratify=self.split.stratify),
            labels={target: self.labels[target]},
            alignments={},
            tasks={target: self.tasks[target]},
            columns=self._columns(self.tasks[target].options["inputs"]),
            ensemble=EnsemblePlan(),
        )._numbered()

    def with_encoders(
        self, encoders: Mapping[str, Choice], cells: Mapping[str, dict[str, object]] | None = None
    ) -> Plan:
        """Plan the same training with these encoders, by modality, and without an ensemble.

        `cells` has options of a modality, for its new encoder.
        """
        recipe = recipe_with_encoders(self.recipe, encoders, self.schema)
        recipe = recipe.model_copy(update={"modalities": {**recipe.modalities, **(cells or {})}})
        columns = replan_columns(self.columns, recipe, self.schema, self.tasks, encoders)
        return replace(self, recipe=recipe, columns=columns, ensemble=EnsemblePlan())._numbered()

    def light(self) -> Plan:
        """Leave out columns of media and texts whose encoders would have to be trained."""
        names = [name for name, column in self.columns.items() if column.frozen or column.light]
        return replace(self, columns=self._columns(names))._numbered()

    def words_only(self) -> Plan:
        """Plan to count the words and n-grams of all texts, and to predict nothing."""
        counters = self._word_counters()
        plan = self.with_encoders(counters)
        texts = [name for name, column in plan.columns.items() if column.modality.name in counters]
        return replace(plan, columns=plan._columns(texts), tasks={})

    def has_words(self) -> bool:
        """Return whether there are columns of which words can be counted."""
        return bool(self._word_counters())

    def for_member(self, fusion: Choice | None, learning_rate: float | None) -> Plan:
        """Plan a network within an ensemble, with its own fusion and learning rate where there are any.

        It has no late fusion: the mixture weight would be fitted on the rows that the member is weighed by.
        """
        recipe = self.recipe
        if learning_rate is not None:
            training = recipe.training.model_copy(update={"learning_rate": learning_rate})
            recipe = recipe.model_copy(update={"training": training})
        return replace(
            self,
            recipe=recipe,
            fusion=fusions.resolve(fusion) if fusion else self.fusion,
            model=self.model.model_copy(update={"late_fusion": False}),
            ensemble=EnsemblePlan(),
        )._numbered()

    def to_dict(self) -> JSON:
        """Return the plan as JSON."""
        fields: JSON = _PLAN.dump_python(self, mode="json")
        return fields

    def to_json(self) -> str:
        """Return the plan as the text of a JSON file."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    @classmethod
    def from_dict(cls, fields: object) -> Plan:
        """Read what `to_dict` wrote. Raises `pydantic.ValidationError`."""
        return _PLAN.validate_python(fields)

    def to_yaml(self) -> str:
        """Return what was decided beyond the recipe, for people to read."""
        fields = self.to_dict()
        for name in ("recipe", "schema", "split", "reasons"):
            del fields[name]
        return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)

    def _columns(self, names: Collection[str]) -> dict[str, ColumnPlan]:
        """Return the plans of some columns, in the order of the table."""
        selected = set(names)  # tables may have thousands of columns
        return {name: column for name, column in self.columns.items() if name in selected}

    def _word_counters(self) -> dict[str, Choice]:
        """Return the encoder that counts words, for each modality among the inputs that has words."""
        counters = {}
        for column in self.columns.values():
            modality = column.modality.name
            encoder = modalities.find(modality).words
            if encoder:
                counters[modality] = Choice(name=encoder)
        return counters

    def _numbered(self) -> Plan:
        """Fill in the numbers of the training anew, from the recipe, for this plan's rows and columns."""
        rows = len(self.split.train)
        return replace(self, training=_plan_training(self.recipe, rows, self.tasks, self.columns))


_PLAN = TypeAdapter(Plan)


def split_and_infer(table: Table, recipe: Recipe, targets: Targets) -> tuple[Split, Inferred]:
    """Split a table, then infer its inputs from the rows of the training side.

    Without any target all rows decide, and all are on the training side.
    """
    options = _split_options(table, recipe, targets)
    if not targets.labels and not targets.alignments:
        all_rows = Split(np.arange(len(table)), NO_ROWS, NO_ROWS, "")
        return all_rows, infer(table, targets, recipe, options)

    # cells that validate or test must not decide what a column is: a model in use never meets them before
    stratify = targets.classes if options.stratify else ""
    typed = read_cells(table, targets.conventions.by_column)
    sides = split(typed, options, stratify, recipe.seed)
    inferred = infer(typed, targets, recipe, options, sides.train)
    if not targets.labels:
        inferred = replace(inferred, schema=_only_aligned(inferred.schema, recipe, targets))
    return replace(sides, stratify=stratify), inferred


def _split_options(table: Table, recipe: Recipe, targets: Targets) -> SplitRecipe:
    """Name the column that splits the table, where there is one.

    Tables that the user gave apart need none. Else the recipe comes first, then a column that looks like a
    split.
    Raises `RecipeError` for a split by time of a table that has its own split.
    """
    options = recipe.split
    if table.parts:
        return options
    column = split_column(table, targets.hidden, recipe.columns, options)
    if column is None or options.column:
        return options
    if options.time:
        raise RecipeError(
            f"split.time: {table.name} has its own split in column '{column}'; to split by time all the "
            f"same, use --set split.column=none"
        )
    return options.model_copy(update={"column": column})


def _only_aligned(schema: Schema, recipe: Recipe, targets: Targets) -> Schema:
    """Ignore inputs that are not aligned: without a target nothing else is learned from them."""
    aligned: set[str] = set()
    for name in targets.alignments:
        aligned.update(aligned_columns(name, recipe.tasks[name], schema))

    columns = []
    for column in schema:
        if column.role == "input" and column.name not in aligned:
            reason = "not aligned, and there is no target"
            column = column.model_copy(update={"role": "ignored", "modality": None, "reason": reason})
        columns.append(column)
    return schema.model_copy(update={"columns": tuple(columns)})


def _has_label(table: Table, labels: Mapping[str, str], alignments: Mapping[str, list[str]]) -> np.ndarray:
    """Return which rows have a label of any target, or a cell of any aligned column: (rows,) of bool."""
    columns = set(labels.values())
    for aligned in alignments.values():
        for column in aligned:
            columns.add(origin(column, table.data.column_names))

    has_label = np.zeros(len(table), dtype=bool)
    for column in columns:
        has_label |= table.column(column).is_valid().to_numpy()
    return has_label


def _sides_without_labels(sides: Split, labelled: Split) -> list[str]:
    """Return a warning for validation rows and for test rows of which none has a label."""
    warnings = []
    for name, rows, labelled_rows, use in (
        ("validation", sides.valid, labelled.valid, "no epoch is chosen by them"),
        ("test", sides.test, labelled.test, "there are no scores of them"),
    ):
        if len(rows) and not len(labelled_rows):
            warnings.append(f"none of the {count(len(rows), f'{name} row')} has a label: {use}")
    return warnings


def _labelled(sides: Split, has_label: np.ndarray, learn_unlabelled: bool) -> Split:
    """Leave out rows without any label. With `learn_unlabelled`, those on the training side are learned from.

    Raises `TrainingError` for fewer than two labelled rows to train on.
    """
    train_is_labelled = has_label[sides.train]
    rows = Split(
        train=sides.train[train_is_labelled],
        valid=sides.valid[has_label[sides.valid]],
        test=sides.test[has_label[sides.test]],
        how=sides.how,
        unlabelled=sides.train[~train_is_labelled] if learn_unlabelled else NO_ROWS,
        stratify=sides.stratify,
        without_label=len(has_label) - int(has_label.sum()),
    )
    if len(rows.train) < 2:
        raise TrainingError(
            f"expected two or more labelled rows to train on, found {len(rows.train)} (of "
            f"{count(len(has_label), 'row')}, split {rows.how})"
        )
    return rows


def _plan_model(recipe: ModelRecipe, targets: Targets) -> ModelRecipe:
    """Return the recipe's options, fitted to a table without a target.

    Without a target nothing is fused, so there is no unimodal loss. Cells are hidden only if the recipe asks
    for it: a hidden cell cannot be compared with the others of its row.
    """
    if targets.labels:
        return recipe
    dropout = recipe.modality_dropout if "modality_dropout" in recipe.model_fields_set else 0.0
    return recipe.model_copy(update={"modality_dropout": dropout, "unimodal_weight": 0.0})


def _plan_training(
    recipe: Recipe, rows: int, tasks: Mapping[str, Choice], columns: Mapping[str, ColumnPlan]
) -> TrainingPlan:
    """Fill in what the recipe leaves open about a training on so many rows.

    A model of each target is compared with one that is trained on the same rows, so it is not refitted.
    """
    return plan_training(
        recipe.training,
        rows,
        components(tasks),
        frozen=_all_frozen(columns),
        light=all(column.light or column.frozen for column in columns.values()),
        may_refit=not recipe.singles,
    )


def _all_frozen(columns: Mapping[str, ColumnPlan]) -> bool:
    """Return whether there are media or texts, and none of their encoders is trained."""
    media_and_texts = [column for column in columns.values() if not column.light]
    return bool(media_and_texts) and all(column.frozen for column in media_and_texts)
