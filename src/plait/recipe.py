"""The recipe: what to train, and how. YAML or Python in, fully resolved and saved with every model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plait import components
from plait.components import Options
from plait.errors import RecipeError, nearest
from plait.schema import Role, Schema


class Choice(BaseModel):
    """A component and its options: `{name: lstm, width: 64}`, or just `lstm`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def resolved(self, kind: str, defaults: Mapping[str, Any] | None = None) -> Choice:
        """This choice with every option written out: its own, then `defaults`, then the component's."""
        config = components.configure(kind, self.name, {**(defaults or {}), **self.options})
        return Choice(name=self.name, **config.model_dump(mode="json"))


class ColumnRecipe(Options):
    """How one column enters. What is left out is inferred from the table."""

    role: Role | None = None
    modality: Choice | None = None
    encoder: Choice | None = None


class SplitRecipe(Options):
    """Which rows train, which validate, which are kept for a test.

    `column` names a column that holds train / valid / test; otherwise the fractions are drawn at random from the seed,
    with classes in equal shares (`stratify`), with all rows of one `group` on one side, or in the order of `time`. With both
    `column` and `group`, the group keeps together what is still drawn at random: validation rows, and folds.
    """

    column: str | None = None
    valid: float = Field(0.2, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    stratify: bool = True
    group: str | None = None
    time: str | None = None


class ModelRecipe(Options):
    """What stands in for a missing cell: a `learned` token or `zero`; and in what share of the rows training hides some of
    the present cells (any subset of them, see `Batch.drop`). `alone` weighs the mean loss of the columns by themselves, which
    training adds to that of all together (see `objective.losses`), less and less until its end; 0 leaves it out. With
    `balance: blend` gradient blending weighs all of these losses instead, ten times in a training, by what each one still
    teaches (see `objective.blended`)."""

    missing: Literal["learned", "zero"] = "learned"
    modality_dropout: float = Field(0.2, ge=0, lt=1)
    alone: float = Field(1.0, ge=0)
    balance: Literal["fade", "blend"] = "fade"


class EnsembleRecipe(Options):
    """Members that are trained beside the recipe's own network, and weighed by what each adds on rows that it has not seen.

    `members` has a name of your own for each, and what it is (`plait options members`). Each is trained on all rows that train
    and validate but one of `folds` parts, for each part in turn, `repeats` times over with other parts; a row is answered by
    the mean of them. `stack` adds a linear model on the other members' answers. `rounds` of greedy selection weigh them
    (Caruana et al. 2004). A split by time has no folds: members then train on its training rows.
    """

    members: dict[str, Choice] = {}
    folds: int = Field(5, ge=2)
    repeats: int = Field(1, ge=1)
    stack: bool = False
    rounds: int = Field(50, ge=1)


_VECTORS = {"image": "pretrained", "text": "pretrained"}
_SECOND = {"image": {"name": "pretrained", "model": "mobilenet_v2"}, "text": "pretrained"}
_LIGHT = {"name": "network", "light": True}
_CONCAT = {"name": "concat", "dropout": 0.3}
_GOOD: dict[str, Any] = {"frozen": {**_LIGHT, "encoders": _VECTORS, "fusion": _CONCAT}, "linear": "linear", "trees": "trees"}
QUALITY: dict[str, dict[str, Any]] = {
    "fast": {},
    "good": {"members": _GOOD},
    "best": {
        "members": {
            **_GOOD,
            "linear with n-grams": {"name": "linear", "ngrams": True},
            "frozen, logit sum": {**_LIGHT, "encoders": _VECTORS, "fusion": "logit_sum"},
            "frozen, second vectors": {**_LIGHT, "encoders": _SECOND},
        },
        "repeats": 3,
        "stack": True,
    },
}


class Between(Options):
    """Numbers from `low` to `high`, whole ones if so, drawn evenly, or evenly in their logarithms."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Between:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("expected low <= high, and low above 0 with log")
        return self


class Choices(Options):
    """One of some values, as they would stand in a recipe."""

    choices: tuple[Any, ...] = Field(min_length=2)


_SPACE: dict[str, Between | Choices] = {
    "training.learning_rate": Between(low=3e-4, high=1e-2, log=True),
    "training.weight_decay": Between(low=1e-3, high=0.5, log=True),
    "training.mixup": Choices(choices=(0.0, 0.2, 1.0)),
    "model.modality_dropout": Choices(choices=(0.0, 0.2, 0.4)),
    "model.alone": Choices(choices=(0.3, 1.0, 3.0)),
    "fusion": Choices(choices=("concat", {"name": "concat", "dropout": 0.3}, "logit_sum", "gated", "low_rank")),
}


class TuningRecipe(Options):
    """What `plait tune` may change: for parts of the recipe, by their dotted names, the numbers or values to try."""

    space: dict[str, Between | Choices] = Field(_SPACE, min_length=1)


Switch = Literal["auto", "on", "off"]


MANY = 4000  # rows from which on training is in large batches, where little is trained


class TrainingRecipe(Options):
    """The training loop. Learning rates are per step; `warmup` is a share of all steps; `clip` of 0 clips nothing.

    `epochs: auto` is 40, fewer where that would be more than 12,000 steps (but not under 8), and more where it would be
    fewer than 500 steps, which a small table needs to learn anything. `batch_size: auto` is 32. Where all pictures, texts and the like
    have frozen encoders, a table of 4,000 training rows or more takes 20 epochs in batches of 128 instead.

    `mixup` is the alpha of Zhang et al. 2018: each row is mixed with another one, all its columns and targets alike; 0 leaves it out.
    `unlabelled` weighs the loss of rows without a label (see `objective.consistency`), twice as many in each step as labelled ones; 0
    leaves them out.
    """

    epochs: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    epsilon: float = Field(1e-8, gt=0, description="added to the denominator of Adam's step")
    warmup: float = Field(0.3, ge=0, le=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = Field(1.0, ge=0)
    mixup: float = Field(0.0, ge=0)
    unlabelled: float = Field(0.0, ge=0)
    patience: int = Field(0, ge=0, description="epochs without a better score before training stops; 0: never stop early")
    keep: Literal["best", "last"] = "best"
    checkpoint_minutes: float = Field(5.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    allocator: Switch = "auto"
    trackers: tuple[Literal["csv", "tensorboard"], ...] = ("csv",)

    @field_validator("epochs", "batch_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected 1 or more, or auto")
        return value

    def for_rows(self, rows: int, frozen: bool = False) -> TrainingRecipe:
        """The same with numbers for so many training rows in place of `auto`. `frozen`: no encoder of media or texts is trained."""
        many = frozen and rows >= MANY
        batch = self.batch_size if self.batch_size != "auto" else 128 if many else 32
        steps = max(rows // batch, 1)
        epochs = self.epochs if self.epochs != "auto" else 20 if many else max(min(40, max(8, 12_000 // steps)), -(-500 // steps))
        return self.model_copy(update={"epochs": epochs, "batch_size": batch})

    @property
    def all_epochs(self) -> int:
        """The number of epochs, once it is settled."""
        assert self.epochs != "auto"
        return self.epochs

    @property
    def batch(self) -> int:
        """The rows of a batch, once that is settled."""
        assert self.batch_size != "auto"
        return self.batch_size

    @field_validator("channels_last", "compile", "allocator", mode="before")
    @classmethod
    def _from_bool(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Recipe(Options):
    """Everything that decides what is trained. `modalities` and `encoders` hold for all columns of a modality;
    what `columns` says of one column comes before them. `quality` stands for an `ensemble`: none (`fast`), pretrained
    vectors, a linear model and trees beside the network (`good`), or more of them, trained over and over (`best`)."""

    columns: dict[str, ColumnRecipe] = {}
    modalities: dict[str, dict[str, Any]] = {}
    encoders: dict[str, Choice] = {}
    fusion: Choice = Choice(name="concat")
    tasks: dict[str, Choice] = {}
    split: SplitRecipe = SplitRecipe()
    model: ModelRecipe = ModelRecipe()
    training: TrainingRecipe = TrainingRecipe()
    quality: Literal["fast", "good", "best"] = "fast"
    ensemble: EnsembleRecipe | None = None
    tuning: TuningRecipe = TuningRecipe()
    task_defaults: dict[str, dict[str, Any]] = {}
    seed: int = 0

    def resolve(self, schema: Schema, tasks: Mapping[str, str]) -> Recipe:
        """The recipe for this table with nothing left open: every input's modality and encoder, every target's task.

        `tasks` gives the task inferred for each target; the recipe's own choice comes before it.
        """
        known = {c.name for c in schema}
        for name in self.columns:
            if name not in known:
                raise RecipeError(f"recipe: no column '{name}' in the table: {nearest(name, known)}")
        columns = {c.name: ColumnRecipe(role=c.role) for c in schema if c.role != "input"}
        for name in schema.of("input"):
            columns[name] = self._resolve_input(name, schema[name].modality or "", schema.rows)
        chosen = {t: self.tasks.get(t, Choice(name=task)) for t, task in tasks.items()}
        resolved = {t: choice.resolved("tasks", self.task_defaults.get(choice.name)) for t, choice in chosen.items()}
        return self.model_copy(
            update={
                "columns": columns,
                "modalities": {},
                "encoders": {},
                "task_defaults": {},
                "tasks": resolved,
                "fusion": self.fusion.resolved("fusion"),
                "ensemble": self.ensemble or EnsembleRecipe(**QUALITY[self.quality]),
            }
        )

    def with_encoders(self, encoders: Mapping[str, Choice], schema: Schema) -> Recipe:
        """The same with these encoders, by modality, in place of all others. Options of those modalities are left out: they were
        chosen for another encoder."""
        columns = dict(self.columns)
        for name in schema.of("input"):
            if name in columns and schema[name].modality in encoders:
                columns[name] = ColumnRecipe(role="input", modality=Choice(name=schema[name].modality or ""))
        modalities = {m: options for m, options in self.modalities.items() if m not in encoders}
        return self.model_copy(update={"columns": columns, "modalities": modalities, "encoders": {**self.encoders, **encoders}})

    def _resolve_input(self, name: str, modality: str, rows: int) -> ColumnRecipe:
        own = self.columns.get(name, ColumnRecipe())
        choice = own.modality if own.modality and own.modality.name == modality else Choice(name=modality)
        default = Choice(name=components.find("modalities", modality).encoder)
        encoder = own.encoder or self.encoders.get(modality) or default
        component = components.find("encoders", encoder.name)
        settled = component.settled(components.configure("encoders", encoder.name, encoder.options), modality, rows)
        return ColumnRecipe(
            role="input",
            modality=choice.resolved("modalities", {**component.asks(settled, modality), **self.modalities.get(modality, {})}),
            encoder=Choice(name=encoder.name, **settled.model_dump(mode="json")),
        )

    def light(self) -> Recipe:
        """The same without the columns of media and texts whose encoders are to be trained. Of a resolved recipe."""
        kept = {name: c for name, c in self.columns.items() if not c.encoder or c.encoder.name == "tabular" or self._is_frozen(c.encoder)}
        return self.model_copy(update={"columns": kept})

    def frozen(self) -> bool:
        """Whether all encoders are frozen but those of numbers and the like. Of a resolved recipe."""
        found = [self._is_frozen(c.encoder) for c in self.columns.values() if c.encoder and c.encoder.name != "tabular"]
        return bool(found) and all(found)

    @staticmethod
    def _is_frozen(choice: Choice) -> bool:
        return bool(components.find("encoders", choice.name).frozen(components.configure("encoders", choice.name, choice.options)))

    def allow_external(self) -> None:
        """Lets the components `module:Class` that this recipe names be imported: call it on a caller's own recipe only."""
        choices = [self.fusion, *self.encoders.values(), *self.tasks.values()]
        choices += [c for column in self.columns.values() for c in (column.modality, column.encoder) if c]
        for choice in choices:
            if ":" in choice.name:
                components.allow(choice.name)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=100)


def builtin() -> list[str]:
    """The names of the recipes that come with plait."""
    folder = resources.files("plait") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(source: str | Path | Mapping[str, Any] | Recipe | None, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from a built-in name, a YAML file, a mapping, or nothing, with `a.b=value` overrides applied in order.

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
        raise RecipeError(components.explain(error, Recipe, "recipe")) from error
    except TypeError as error:  # a key that is no string
        raise RecipeError(f"recipe: expected names and values: {error}") from error


def _read(source: str) -> dict[str, Any]:
    if re.fullmatch(r"[\w-]+", source) and not Path(source).is_file():
        if source not in builtin():
            raise RecipeError(f"no recipe '{source}': {nearest(source, builtin())} A file of your own ends in .yaml.")
        text = (resources.files("plait") / "recipes" / f"{source}.yaml").read_text(encoding="utf-8")
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
