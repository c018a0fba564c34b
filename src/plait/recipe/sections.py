"""The parts of a recipe: how a column enters, the split, the model, the ensemble, tuning, and the
training loop.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from plait.recipe.registry import Choice, Options
from plait.table.json import JSON
from plait.table.schema import Role


def _one_or_more(value: int | str) -> int | str:
    if isinstance(value, int) and value < 1:
        raise ValueError("expected 1 or more, or auto")
    return value


Count: TypeAlias = Annotated[int | Literal["auto"], AfterValidator(_one_or_more)]


class ColumnRecipe(Options):
    """How one column enters. What is left out is inferred from the table.

    `decimal` is the decimal mark of its numbers, and `format` the format of its dates, as in `%d/%m/%Y`.
    """

    role: Role | None = None
    modality: Choice | None = None
    encoder: Choice | None = None
    decimal: Literal[".", ","] | None = None
    format: str = ""


class SplitRecipe(Options):
    """Which rows train, which validate, which are kept for a test.

    `column` names a column that holds train / valid / test. Without it the table's own is used, such as
    `split` or `is_train`, unless `column` is `none`. Where there is none, the fractions are drawn at random
    from the seed, with classes in equal shares (`stratify`), with all rows of one `group` on one side,
    or in the order of `time`. With both a column and `group`, the group keeps together what is still
    drawn at random: validation rows, and folds.
    """

    column: str | None = None
    valid: float = Field(0.2, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    stratify: bool = True
    group: str | None = None
    time: str | None = None

    @model_validator(mode="after")
    def _some_rows_train(self) -> SplitRecipe:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"expected valid + test below 1, came {self.valid:g} + {self.test:g}: no row would train"
            )
        return self


class ModelRecipe(Options):
    """How cells are encoded together, and what becomes of missing ones.

    `missing` is the token that stands in for a missing cell: `learned`, or `zero`. `modality_dropout` is the
    share of rows in which training hides some of the present cells: any subset of them (see
    `training/hiding.py`).

    A block is one media column, or all plain columns together. `unimodal_weight` weighs the losses of
    unimodal models, one for each block. Training adds them to the loss of the fused model (see
    `training/objective.py`); 0 leaves them out. With `balance: blend`, gradient blending sets these
    weights instead, ten times in a training, by what each model still learns (see `training/blending.py`).
    With `late_fusion`, the answer mixes the fused model's and the unimodal ones' (see
    `tasks/base_prediction.py`).
    """

    missing: Literal["learned", "zero"] = "learned"
    modality_dropout: float = Field(0.2, ge=0, lt=1)
    unimodal_weight: float = Field(1.0, ge=0)
    balance: Literal["given", "blend"] = "given"
    late_fusion: bool = True


class EnsembleRecipe(Options):
    """Members that are trained beside the recipe's own network, and weighed by what each adds on rows
    that it has not seen.

    `members` has a name of your own for each, and what it is (`plait options members`). Each is trained
    on all rows that train and validate but one of `folds` parts, for each part in turn, `repeats` times
    over with other parts; a row is answered by the mean of them. `repeats: auto` is 3 below 2,000
    training rows, where the luck of the parts counts most, else 1. `stack` adds a linear model on the
    other members' answers. They are weighed by `bags` greedy selections of `rounds` each, among half of
    the members and by rows drawn with replacement; `bags: 1` selects once, among all and by all
    (Caruana et al. 2004). A split by time has no folds: members then train on its training rows.
    """

    members: dict[str, Choice] = {}
    folds: int = Field(5, ge=2)
    repeats: Count = 1
    stack: bool = False
    rounds: int = Field(20, ge=1)
    bags: int = Field(20, ge=1)


_VECTORS: JSON = {"image": "pretrained", "text": "pretrained"}


_SECOND: JSON = {"image": {"name": "pretrained", "model": "mobilenet_v2"}, "text": "pretrained"}


_LIGHT: JSON = {"name": "network", "light": True}


_CONCAT: JSON = {"name": "concat", "dropout": 0.3}


_GOOD: JSON = {
    "frozen": {**_LIGHT, "encoders": _VECTORS, "fusion": _CONCAT},
    "linear": "linear",
    "trees": "trees",
}


QUALITY: dict[str, JSON] = {
    "fast": {},
    "good": {"members": _GOOD, "repeats": "auto"},
    "best": {
        "members": {
            **_GOOD,
            "linear with n-grams": {"name": "linear", "ngrams": True},
            "frozen, logit sum": {**_LIGHT, "encoders": _VECTORS, "fusion": "logit_sum"},
            "frozen, second vectors": {**_LIGHT, "encoders": _SECOND},
        },
        "repeats": "auto",
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

    choices: tuple[object, ...] = Field(min_length=2)


_SPACE: dict[str, Between | Choices] = {
    "training.learning_rate": Between(low=3e-4, high=1e-2, log=True),
    "training.weight_decay": Between(low=1e-3, high=0.5, log=True),
    "training.mixup": Choices(choices=(0.0, 0.2, 1.0)),
    "model.modality_dropout": Choices(choices=(0.0, 0.2, 0.4)),
    "model.unimodal_weight": Choices(choices=(0.3, 1.0, 3.0)),
    "fusion": Choices(
        choices=("concat", {"name": "concat", "dropout": 0.3}, "logit_sum", "gated", "low_rank")
    ),
}


class TuningRecipe(Options):
    """What `plait tune` may change: for parts of the recipe, by their dotted names, the numbers or
    values to try.
    """

    space: dict[str, Between | Choices] = Field(_SPACE, min_length=1)


Switch = Literal["auto", "on", "off"]


LEAST_STEPS = 500  # of any training


UNAUGMENTED = 0.2  # of its epochs


COMPARED = 256  # rows of a batch where rows are compared with each other


class TrainingOptions(Options):
    """The options of the training loop that a recipe and a plan share."""

    micro_batch: int = Field(0, ge=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    epsilon: float = Field(1e-8, gt=0, description="added to the denominator of Adam's step")
    warmup: float = Field(0.3, ge=0, le=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = Field(1.0, ge=0)
    mixup: float = Field(0.0, ge=0)
    unlabelled: float = Field(0.0, ge=0)
    patience: int = Field(
        0, ge=0, description="epochs without a better score before training stops; 0: never stop early"
    )
    keep: Literal["best", "last"] = "best"
    best_by: str = Field(
        "",
        description="the target whose main metric chooses the best epoch; if empty, the mean of all",
    )
    checkpoint_minutes: float = Field(5.0, gt=0)
    trackers: tuple[Literal["csv", "tensorboard"], ...] = ("csv",)


class TrainingRecipe(TrainingOptions):
    """The training loop. Learning rates are per step; `warmup` is a share of all steps; `clip` of 0
    clips nothing.

    `epochs: auto` is 40, fewer where that would be more than 12,000 steps (but not under 8), and more
    where it would be fewer than 500 steps, which a small table needs to learn anything (2,500 where
    speech is transcribed, 1,200 where texts are written). `batch_size: auto` is 32; 16 where texts are
    written; where columns are aligned, a quarter of the rows, from 32 to 256, because a batch holds
    what each row is told apart from. Where all images, texts and the like have frozen encoders, a
    table of 4,000 training rows or more takes 20 epochs in batches of 128 instead.

    `micro_batch` is how many rows of a batch are in memory at once, 0 for all: gradients of its parts
    are added up, and an alignment still compares all rows of the batch (see `training/objective.py`).

    Over the last `unaugmented` share of the epochs cells are seen as prediction sees them. Of cells
    that masks, shifts and crops take from, a network learns weights that make up for what is missing on
    average, too large for whole ones (Touvron et al. 2019, "Fixing the train-test resolution
    discrepancy", for crops): of a tone's pitch a regression answered a fifth too much. `unaugmented:
    auto` is a fifth, and nothing where speech is transcribed: that read its own recordings no better
    for it, and those of another kind worse.

    `mixup` is the alpha of Zhang et al. 2018: each row is mixed with another one, all its columns and
    targets alike; 0 leaves it out. `unlabelled` weighs the loss of rows without a label (see
    `objective.consistency`), twice as many in each step as labelled ones; 0 leaves them out.
    """

    epochs: Count = "auto"
    batch_size: Count = "auto"
    unaugmented: float | Literal["auto"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    allocator: Switch = "auto"

    @field_validator("unaugmented")
    @classmethod
    def _share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError("expected a share from 0 to 1, or auto")
        return value

    @field_validator("channels_last", "compile", "allocator", mode="before")
    @classmethod
    def _from_bool(cls, value: object) -> object:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
