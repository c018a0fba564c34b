"""The recipe: what to train, and how. YAML or Python in, fully resolved and saved with every model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from plait.errors import RecipeError, nearest
from plait.recipe import registry
from plait.recipe.registry import Choice, Options
from plait.recipe.sections import (
    ALIGNED,
    QUALITY,
    ColumnRecipe,
    EnsembleRecipe,
    ModelRecipe,
    SplitRecipe,
    TrainingRecipe,
    TuningRecipe,
)
from plait.table.schema import Schema


class Recipe(Options):
    """Everything that decides what is trained. `modalities` and `encoders` hold for all columns of a
    modality; what `columns` says of one column comes before them. `quality` stands for an `ensemble`:
    none (`fast`), pretrained vectors, a linear model and trees beside the network (`good`), or more of
    them, trained over and over (`best`). `singles` also trains a model for each target alone, to
    compare with.
    """

    columns: dict[str, ColumnRecipe] = {}
    modalities: dict[str, dict[str, Any]] = {}
    encoders: dict[str, Choice] = {}
    fusion: Choice = Choice(name="concat")
    balancing: Choice = Choice(name="equal")
    tasks: dict[str, Choice] = {}
    split: SplitRecipe = SplitRecipe()
    model: ModelRecipe = ModelRecipe()
    training: TrainingRecipe = TrainingRecipe()
    quality: Literal["fast", "good", "best"] = "fast"
    ensemble: EnsembleRecipe | None = None
    tuning: TuningRecipe = TuningRecipe()
    task_defaults: dict[str, dict[str, Any]] = {}
    singles: bool = False
    seed: int = 0

    def resolve(self, schema: Schema, tasks: Mapping[str, str]) -> Recipe:
        """The recipe for this table with nothing left open: every input's modality and encoder, every
        target's task.

        `tasks` gives the task inferred for each target; the recipe's own choice comes before it.
        """
        known = {c.name for c in schema}
        for name in self.columns:
            if name not in known:
                raise RecipeError(f"recipe: no column '{name}' in the table: {nearest(name, known)}")
        chosen = {
            t: self._with_inputs(t, self.tasks.get(t, Choice(name=task)), schema) for t, task in tasks.items()
        }
        self._check_tasks(chosen, schema)
        for t, aligned in self.aligned(schema).items():
            group = self.tasks[t].options.get("group") or self.split.group
            chosen[t] = self.tasks[t].model_copy(update={"inputs": aligned, "group": group})
        resolved = {
            t: choice.resolved("tasks", self.task_defaults.get(choice.name)) for t, choice in chosen.items()
        }
        columns = {c.name: ColumnRecipe(role=c.role) for c in schema if c.role != "input"}
        for name in schema.of("input"):
            columns[name] = self._resolve_input(
                name, schema[name].modality or "", schema.rows, list(resolved.values())
            )
        return self.model_copy(
            update={
                "columns": columns,
                "modalities": {},
                "encoders": {},
                "task_defaults": {},
                "tasks": resolved,
                "model": self.model if tasks else self.model.for_alignment(),
                "fusion": self.fusion.resolved("fusion"),
                "balancing": self.balancing.resolved("balancing"),
                "ensemble": self.ensemble or EnsembleRecipe(**QUALITY[self.quality]),
            }
        )

    def label(self, target: str) -> str:
        """The column that has a target's labels."""
        choice = self.tasks.get(target)
        return (choice.options.get("column") if choice else None) or target

    def read_too(self, column: str) -> bool:
        """Whether a column that has labels is an input as well: it is aligned, or the recipe says so."""
        return self.columns.get(column, ColumnRecipe()).role == "input" or any(
            column in columns for columns in self.aligned().values()
        )

    @staticmethod
    def _with_inputs(target: str, choice: Choice, schema: Schema) -> Choice:
        """A task that reads columns of some modalities only, with these as its inputs where none are
        named. Raises `RecipeError` where there are none.
        """
        read = registry.find("tasks", choice.name).modalities
        if not read or choice.options.get("inputs"):
            return choice
        found = [c for c in schema.of("input") if schema[c].modality in read]
        if not found:
            raise RecipeError(
                f"task '{target}': {choice.name} reads columns of {' or '.join(read)}, and the table has no "
                f"such input"
            )
        return choice.model_copy(update={"inputs": found})

    def _check_tasks(self, chosen: Mapping[str, Choice], schema: Schema) -> None:
        """Raises `RecipeError` for inputs that are none, and where tasks that do not answer from a
        fused vector are asked for what only such a vector allows.
        """
        inputs = schema.of("input")
        best_by, targets = self.training.best_by, [*chosen, *self.aligned()]
        if best_by and best_by not in targets:
            raise RecipeError(
                f"training: no target '{best_by}' to choose the best epoch by: {nearest(best_by, targets)}"
            )
        for t, choice in chosen.items():
            if wrong := [c for c in choice.options.get("inputs") or () if c not in inputs]:
                raise RecipeError(f"task '{t}': no input column '{wrong[0]}': {nearest(wrong[0], inputs)}")
            if self.label(t) in (choice.options.get("inputs") or inputs):
                raise RecipeError(
                    f"task '{t}' would read its own answers in '{self.label(t)}': name its inputs, as in "
                    f"tasks.{t}.inputs=[photo]"
                )
            if choice.options.get("inputs") and self._has_members():
                raise RecipeError(
                    f"task '{t}' has inputs of its own, and an ensemble's members read all columns: leave "
                    f"quality at fast"
                )
        if self.training.unlabelled and not any(
            registry.find("tasks", choice.name).fuses for choice in chosen.values()
        ):
            raise RecipeError(
                "training.unlabelled learns from rows without a label, which these tasks cannot: leave it out"
            )
        for t, choice in {**self.tasks, **chosen}.items():
            if registry.find("tasks", choice.name).fuses:
                continue
            if self.training.mixup:
                raise RecipeError(
                    f"training.mixup mixes rows, which the {choice.name} '{t}' cannot be: leave one of the "
                    f"two out"
                )
            if self._has_members():
                raise RecipeError(
                    f"an ensemble's members do not agree on a {choice.name} ('{t}'): leave quality at fast"
                )

    def _has_members(self) -> bool:
        return self.quality != "fast" or bool(self.ensemble and self.ensemble.members)

    def aligned(self, schema: Schema | None = None) -> dict[str, list[str]]:
        """The columns of each task that has no target but compares columns: those that the recipe
        names, else, by the schema, all inputs that are pictures, texts, sounds or clips. Raises
        `RecipeError` for a column that is no input.
        """
        found = {}
        for name, choice in self.tasks.items():
            if not registry.find("tasks", choice.name).compares:
                continue
            columns = list(choice.options.get("inputs") or ())
            if choice.options.get("column"):
                raise RecipeError(
                    f"task '{name}' compares columns, its inputs, and has no labels in another one"
                )
            if schema is not None:
                inputs = schema.of("input")
                if name in {c.name for c in schema}:
                    raise RecipeError(
                        f"task '{name}': there is a column of that name; give the task another one"
                    )
                columns = columns or [c for c in inputs if schema[c].modality in ALIGNED]
                if wrong := [c for c in columns if c not in inputs]:
                    raise RecipeError(
                        f"task '{name}': no input column '{wrong[0]}' to align: {nearest(wrong[0], inputs)}"
                    )
                anchor = choice.options.get("anchor")
                if anchor is not None and anchor not in columns:
                    raise RecipeError(
                        f"task '{name}': the anchor '{anchor}' is none of its columns: "
                        f"{nearest(anchor, columns)}"
                    )
                if len(set(columns)) < 2 or len(set(columns)) < len(columns):
                    raise RecipeError(
                        f"task '{name}': expected two or more different columns to align, found "
                        f"{', '.join(columns) or 'none'}"
                    )
            found[name] = columns
        return found

    def with_encoders(self, encoders: Mapping[str, Choice], schema: Schema) -> Recipe:
        """The same with these encoders, by modality, in place of all others. Options of those
        modalities are left out: they were chosen for another encoder.
        """
        columns = dict(self.columns)
        for name in schema.of("input"):
            if name in columns and schema[name].modality in encoders:
                columns[name] = ColumnRecipe(role="input", modality=Choice(name=schema[name].modality or ""))
        modalities = {m: options for m, options in self.modalities.items() if m not in encoders}
        return self.model_copy(
            update={"columns": columns, "modalities": modalities, "encoders": {**self.encoders, **encoders}}
        )

    def _resolve_input(self, name: str, modality: str, rows: int, tasks: list[Choice]) -> ColumnRecipe:
        choices = [task for task in tasks if name in (task.options.get("inputs") or [name])]
        reading = [
            (registry.find("tasks", task.name), registry.configure("tasks", task.name, task.options))
            for task in choices
        ]
        own = self.columns.get(name, ColumnRecipe())
        choice = own.modality if own.modality and own.modality.name == modality else Choice(name=modality)
        wanted = [task.encoder_for(config, modality) for task, config in reading]
        default = Choice(
            **next((w for w in wanted if w), {"name": registry.find("modalities", modality).encoder})
        )
        encoder = own.encoder or self.encoders.get(modality) or default
        component = registry.find("encoders", encoder.name)
        asked = {
            option: value for task, _ in reading for option, value in task.cells.get(modality, {}).items()
        }
        settled = component.settled(
            registry.configure("encoders", encoder.name, encoder.options), modality, rows
        )
        return ColumnRecipe(
            role="input",
            modality=choice.resolved(
                "modalities",
                {**asked, **component.asks(settled, modality), **self.modalities.get(modality, {})},
            ),
            encoder=Choice(name=encoder.name, **settled.model_dump(mode="json")),
        )

    def light(self) -> Recipe:
        """The same without the columns of media and texts whose encoders are to be trained. Of a
        resolved recipe.
        """
        kept = {
            name: c
            for name, c in self.columns.items()
            if not c.encoder or c.encoder.name == "tabular" or self._is_frozen(c.encoder)
        }
        return self.model_copy(update={"columns": kept})

    def for_rows(self, rows: int) -> Recipe:
        """The same with what training and ensemble leave open settled for so many training rows, and
        the tasks. Of a resolved recipe.
        """
        kinds = [registry.find("tasks", choice.name) for choice in self.tasks.values()]
        least, unaugmented = max(kind.steps for kind in kinds), min(kind.unaugmented for kind in kinds)
        training = self.training.for_rows(
            rows, self.frozen(), any(kind.compares for kind in kinds), least, unaugmented
        )
        return self.model_copy(
            update={"training": training, "ensemble": self.ensemble and self.ensemble.for_rows(rows)}
        )

    def frozen(self) -> bool:
        """Whether all encoders are frozen but those of numbers and the like. Of a resolved recipe."""
        found = [
            self._is_frozen(c.encoder)
            for c in self.columns.values()
            if c.encoder and c.encoder.name != "tabular"
        ]
        return bool(found) and all(found)

    @staticmethod
    def _is_frozen(choice: Choice) -> bool:
        return bool(
            registry.find("encoders", choice.name).frozen(
                registry.configure("encoders", choice.name, choice.options)
            )
        )

    def allow_external(self) -> None:
        """Lets the components `module:Class` that this recipe names be imported: call it on a caller's
        own recipe only.
        """
        choices = [self.fusion, self.balancing, *self.encoders.values(), *self.tasks.values()]
        choices += [c for column in self.columns.values() for c in (column.modality, column.encoder) if c]
        for choice in choices:
            if ":" in choice.name:
                registry.allow(choice.name)

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=100
        )


def builtin() -> list[str]:
    """The names of the recipes that come with plait."""
    folder = resources.files("plait.recipe") / "builtin"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(source: str | Path | Mapping[str, Any] | Recipe | None, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a built-in name, a YAML file, a mapping, or nothing, with `a.b=value` overrides
    applied in order.

    Raises `RecipeError` for an unknown name, option or value.
    """
    if isinstance(source, Recipe):
        data: dict[str, Any] = source.model_dump(mode="json", exclude_unset=True)
    elif isinstance(source, Mapping):
        data = dict(source)
    else:
        data = {} if source is None else _read(str(source))
    for override in overrides:
        _override(data, override)
    try:
        return Recipe(**data)
    except ValidationError as error:
        raise RecipeError(registry.explain(error, Recipe, "recipe")) from error
    except TypeError as error:  # a key that is no string
        raise RecipeError(f"recipe: expected names and values: {error}") from error


def _read(source: str) -> dict[str, Any]:
    if re.fullmatch(r"[\w-]+", source) and not Path(source).is_file():
        if source not in builtin():
            raise RecipeError(
                f"no recipe '{source}': {nearest(source, builtin())} A file of your own ends in .yaml."
            )
        text = (resources.files("plait.recipe") / "builtin" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(source)
        if not path.is_file():
            raise RecipeError(f"no recipe file '{source}' (looked in {Path.cwd()})")
        text = path.read_text(encoding="utf-8")
    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe '{source}' is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"recipe '{source}' should hold names and values, as in `training: {{epochs: 5}}`")
    return data


def _override(data: dict[str, Any], text: str) -> None:
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise RecipeError(f"override '{text}': expected name=value, as in training.epochs=5")
    *parents, last = path.strip().split(".")
    for part in parents:
        inner = data.get(part)
        if isinstance(inner, str):  # `encoder: cnn`, now to be given an option
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            inner = {}
        data[part] = inner
        data = inner
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override '{text}': '{value}' is not a valid value") from error
