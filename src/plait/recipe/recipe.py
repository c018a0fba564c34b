"""The recipe: what a user asks for, from YAML or Python. The plan decides the rest (`data/plan.py`)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from plait.errors import RecipeError, RenamedWarning, nearest
from plait.recipe.explain import explain, shortened
from plait.recipe.parse import parse, parse_value, split_override
from plait.recipe.registry import Choice, Options
from plait.recipe.sections import (
    ColumnRecipe,
    EnsembleRecipe,
    ModelRecipe,
    SplitRecipe,
    TrainingRecipe,
    TuningRecipe,
)
from plait.table.json import JSON

# Options that have a new name, by section. The old one is accepted for one release, with a warning.
RENAMED = {"model": {"alone": "unimodal_weight", "votes": "late_fusion"}}

# Values of options that have a new name, likewise, by their path. A star stands for any name.
RENAMED_VALUES = {("model", "balance"): ("given", "fixed"), ("tasks", "*", "answers"): ("seen", "training")}
MAX_BYTES = 1_000_000  # of a recipe file
MAX_SEED = 2**32 - 1  # the largest that NumPy and scikit-learn take


class TaskChoice(Choice):
    """A task and its options. Options without a name are those of the task that the labels suggest."""

    name: str = Field("", min_length=1)


class Recipe(Options):
    """All that a user can ask for.

    `modalities` and `encoders` hold for all columns of a modality. What `columns` says about one column
    comes before them.

    `quality` stands for an `ensemble`. `fast` trains a linear model and trees beside the network, which end
    within seconds; `network` leaves them out. `good` and `best` train more members. Tasks that members cannot
    learn, such as texts and alignments, are left to the network, unless `good` or `best` is asked for: then
    this is an error. `singles` also trains one network for each target, to compare with: `fast` has no
    members then.

    `locale`, such as `de` or `en_GB`, says how numbers and dates are written where a column can be read in
    two ways.
    """

    columns: dict[str, ColumnRecipe] = Field(
        {}, description="what each column is; what is left out is inferred"
    )
    modalities: dict[str, dict[str, object]] = Field({}, description="options of all columns of a modality")
    encoders: dict[str, Choice] = Field({}, description="the encoder of all columns of a modality")
    pretrained: Literal["auto", "off"] = Field(
        "auto",
        description="auto: columns without an encoder of their own get a frozen pretrained network whose "
        "weights are on this machine; off: theirs are trained from scratch",
    )
    fusion: Choice = Field(Choice(name="concat"), description="how the columns become one vector")
    balancing: Choice = Field(Choice(name="equal"), description="how several targets' losses are weighed")
    tasks: dict[str, TaskChoice] = Field(
        {}, description="the task of each target; what is left out is inferred"
    )
    split: SplitRecipe = Field(SplitRecipe(), description="see recipe/split")
    model: ModelRecipe = Field(ModelRecipe(), description="see recipe/model")
    training: TrainingRecipe = Field(TrainingRecipe(), description="see recipe/training")
    quality: Literal["network", "fast", "good", "best"] = Field(
        "fast", description="which ensemble is trained, if any"
    )
    ensemble: EnsembleRecipe | None = Field(
        None, description="what differs from quality; see recipe/ensemble"
    )
    tuning: TuningRecipe = Field(TuningRecipe(), description="see recipe/tuning")
    task_defaults: dict[str, dict[str, object]] = Field({}, description="options of all targets of a task")
    singles: bool = Field(False, description="also train a model for each target, to compare with")
    locale: str = Field("", description="how numbers and dates are written, such as de or en_GB")
    examples: int = Field(
        6, ge=0, le=100, description="test rows kept beside the model, as examples for those who use it"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="of everything random")

    @field_validator("pretrained", mode="before")
    @classmethod
    def _from_bool(cls, value: object) -> object:
        # YAML reads a bare off as a truth value
        return "off" if value is False else value

    def to_dict(self) -> JSON:
        """Return what was asked for, and nothing else, as JSON. `load` is the inverse."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_yaml(self) -> str:
        """Return what was asked for as the text of a recipe file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)


def builtin() -> list[str]:
    """Return the names of the recipes that come with plait."""
    files = [file.name for file in _builtin_folder().iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def _builtin_folder() -> Traversable:
    return resources.files("plait.recipe") / "builtin"


def ensemble_of_quality(quality: str) -> EnsembleRecipe:
    """Return the ensemble that a quality stands for, from a file in the folder `quality`."""
    file = resources.files("plait.recipe") / "quality" / f"{quality}.yaml"
    return EnsembleRecipe(**yaml.safe_load(file.read_text(encoding="utf-8")))


def load(source: str | Path | Mapping[str, object] | Recipe | None, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe from a built-in name, a YAML file, a mapping, or nothing.

    Overrides such as `training.epochs=5` are applied in order. Raises `RecipeError` for an unknown name,
    option or value.
    """
    if isinstance(source, Recipe):
        data: dict[str, object] = {**source.to_dict()}
    elif isinstance(source, Mapping):
        data = dict(source)
    elif source is None:
        data = {}
    elif isinstance(source, (str, Path)):
        data = _read(str(source))
    else:
        raise RecipeError(f"recipe: expected a name, a file or names and values, came {source!r}")

    for override in overrides:
        _override(data, override)
    data = _with_new_names(data)

    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe, "recipe")) from error


def _read(source: str) -> dict[str, object]:
    """Read a built-in recipe or a YAML file. Raises `RecipeError`."""
    text = _read_text(source)
    try:
        data = parse(text)
    except ValueError as error:
        raise RecipeError(f"recipe '{source}' is not valid YAML: {error}") from error
    if data is None:  # an empty file
        return {}
    if not isinstance(data, dict):
        raise RecipeError(
            f"recipe '{source}': expected names and values, as in `training: {{epochs: 5}}`, came a "
            f"{type(data).__name__}"
        )
    return data


def _read_text(source: str) -> str:
    path = Path(source)
    if path.is_file():
        return _read_file(path)
    if not re.fullmatch(r"[\w-]+", source):
        raise RecipeError(f"no recipe file '{source}' (looked in {Path.cwd()})")
    if source not in builtin():
        hint = nearest(source, builtin())
        raise RecipeError(f"no recipe '{source}': {hint} The name of a recipe file ends in .yaml.")
    return (_builtin_folder() / f"{source}.yaml").read_text(encoding="utf-8")


def _read_file(path: Path) -> str:
    """Return the text of a recipe file. Raises `RecipeError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"recipe '{path}': expected a file of at most {MAX_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe '{path}' is not text in UTF-8: {error}; save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"recipe '{path}' cannot be read: {error.strerror}") from error


def _with_new_names(data: dict[str, object]) -> dict[str, object]:
    """Return a recipe with the new names of renamed options. Warns of each old name.

    Raises `RecipeError` if an option is stated under both of its names.
    """
    renamed = dict(data)
    for section, names in RENAMED.items():
        options = renamed.get(section)
        if not isinstance(options, Mapping):
            continue
        renamed[section] = {names.get(name, name): value for name, value in options.items()}

        for old, new in names.items():
            if old in options and new in options:
                raise RecipeError(
                    f"recipe: {section}.{old} is the old name of {section}.{new}; state only the new one"
                )
            if old in options:
                _warn_of_old_name(f"{section}.{old}", f"{section}.{new}")
    for path, (old, new) in RENAMED_VALUES.items():
        renamed = _with_new_value(renamed, path, old, new)
    return renamed


def _with_new_value(
    options: Mapping[str, object], path: Sequence[str], old: str, new: str, above: str = ""
) -> dict[str, object]:
    """Return options in which the ones at a path have the new name of a value; `above` is where they lie."""
    renamed = dict(options)
    for name in options if path[0] == "*" else [path[0]]:
        option = options.get(name)
        if len(path) > 1 and isinstance(option, Mapping):
            renamed[name] = _with_new_value(option, path[1:], old, new, f"{above}{name}.")
        elif len(path) == 1 and option == old:
            renamed[name] = new
            _warn_of_old_name(f"{above}{name}={old}", f"{above}{name}={new}")
    return renamed


def _warn_of_old_name(old: str, new: str) -> None:
    message = f"recipe: {old} is now {new}; the next release will not accept the old name"
    warnings.warn(message, RenamedWarning, stacklevel=2)


def _override(data: dict[str, object], text: str) -> None:
    """Set the option that an override such as `training.epochs=5` names, in place."""
    if not isinstance(text, str):
        raise RecipeError(f"override {text!r}: expected a text, as in 'training.epochs=5'")
    names, value = split_override(text)
    if value is None or not all(names):
        raise RecipeError(f"override '{shortened(text)}': expected name=value, as in training.epochs=5")
    *parents, last = names
    section = data
    for name in parents:
        section = _subsection(section, name)
    try:
        section[last] = parse_value(value)
    except ValueError as error:
        raise RecipeError(
            f"override '{shortened(text)}': '{shortened(value)}' is not a valid value"
        ) from error


def _subsection(section: dict[str, object], name: str) -> dict[str, object]:
    """Return the mapping under a name, and put one there if there is none."""
    present = section.get(name)
    mapping: dict[str, object] = {}
    if isinstance(present, Mapping):
        mapping = dict(present)  # the caller may own it
    elif isinstance(present, str):  # `encoder: cnn` has no options yet: it becomes `encoder: {name: cnn}`
        mapping = {"name": present}
    section[name] = mapping
    return mapping
