"""The sections of a recipe: columns, split, model, ensemble, tuning, and training."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from plait.recipe.bounds import MAX_COUNT, MAX_RATE, MAX_ROUNDS, MAX_WEIGHT
from plait.recipe.registry import Choice, Options
from plait.table.schema import Role


def _is_count(value: int | str) -> int | str:
    if isinstance(value, int) and not 1 <= value <= MAX_COUNT:
        raise ValueError(f"expected 1 to {MAX_COUNT:,}, or auto")
    return value


def _is_patience(value: int | str) -> int | str:
    return value if value == 0 else _is_count(value)


Patience: TypeAlias = Annotated[int | Literal["auto"], AfterValidator(_is_patience)]
Count: TypeAlias = Annotated[int | Literal["auto"], AfterValidator(_is_count)]


class ColumnRecipe(Options):
    """What one column is, and how it is encoded. What is left out is inferred from the table."""

    role: Role | None = Field(None, description="what the column is for")
    modality: Choice | None = Field(None, description="what its cells are, with options")
    encoder: Choice | None = Field(None, description="what reads them, with options")
    decimal: Literal[".", ","] | None = Field(None, description="the decimal mark of its numbers")
    format: str = Field("", description="the format of its dates, as in %d/%m/%Y")


class SplitRecipe(Options):
    """Which rows train, which validate, and which test.

    `column` decides if it is given. Without it the table's own split is used, such as `split` or `is_train`,
    unless `column` is `none`. Where there is none, rows are drawn at random from the seed, or taken in the
    order of `time`. With both a column and `group`, the group keeps together what is still drawn at random:
    validation rows, and folds.
    """

    column: str | None = Field(None, description="a column that holds train, valid or test; or none")
    valid: float = Field(0.2, ge=0, lt=1, description="share of the rows that validate")
    test: float = Field(0.0, ge=0, lt=1, description="share of the rows that test")
    stratify: bool = Field(True, description="give each side the same share of every class")
    group: str | None = Field(None, description="a column: rows with the same value lie on one side")
    time: str | None = Field(
        None, description="a column of dates or numbers: the last rows test, those before them validate"
    )

    @model_validator(mode="after")
    def _some_rows_train(self) -> SplitRecipe:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"expected valid + test below 1, came {self.valid:g} + {self.test:g}: no row would train"
            )
        return self


class ModelRecipe(Options):
    """How columns are fused, and what stands in for missing cells.

    A block is one media column, or all plain columns together. Each block has a unimodal head, which is
    trained beside the fused one. With `balance: blend`, gradient blending replaces the weights of the
    unimodal losses, ten times in a training, by what each block still learns (Wang et al. 2020).
    """

    missing: Literal["learned", "zero"] = Field(
        "learned", description="the token that stands in for a missing cell"
    )
    modality_dropout: float = Field(
        0.2, ge=0, lt=1, description="share of rows in which training hides some of the present cells"
    )
    unimodal_weight: float = Field(
        1.0,
        ge=0,
        le=MAX_WEIGHT,
        description="weight of the unimodal losses beside the fused one; 0 leaves them out",
    )
    balance: Literal["fixed", "blend"] = Field(
        "fixed", description="fixed: unimodal_weight holds throughout; blend: see above"
    )
    late_fusion: bool = Field(True, description="mix the answers of the unimodal heads into the fused one")

    @field_validator("balance", mode="before")
    @classmethod
    def _new_name(cls, balance: object) -> object:
        return "fixed" if balance == "given" else balance  # plans and recipes of earlier versions


# Names of an ensemble's candidates for weights that are no members of the recipe, with what they are.
OWN_NETWORK = "network"
STACK = "stack"
RESERVED = {OWN_NETWORK: "the run's own network", STACK: "the stacked model", "": "no member"}


class EnsembleRecipe(Options):
    """Members that are trained beside the recipe's network, and how their answers are mixed.

    The rows that train and validate are cut into folds. Each member is trained once for each fold, on all
    other folds; the mean of these fits answers new rows. A split by time has no folds: members then train on
    its training rows.

    Members are trained in their order. One that learns fold by fold is dropped after its first fold if it is
    far behind the others, and they do not get better with it. Where rows are cut anew (`repeats`), only
    members that weigh a tenth or more are trained again, and all of them with `stack`.

    Weights come from out-of-fold predictions, by the mean of several greedy selections (Caruana et al. 2004).
    Each selection sees all members, and rows drawn with replacement. `bags: 1` makes one selection, by all
    rows.
    """

    members: dict[str, Choice] = Field(
        {}, description="a name of your choice for each member, and its component (plait options members)"
    )
    folds: int = Field(
        5, ge=2, le=100, description="parts that rows are cut into for out-of-fold predictions"
    )
    repeats: Count = Field(
        1, description="times that rows are cut into other folds; auto: 3 below 2,000 training rows, else 1"
    )
    stack: bool | Literal["auto"] = Field(
        False,
        description="add a linear model on the answers of the others; auto: from 2,000 training rows on",
    )
    rounds: int = Field(
        20, ge=1, le=MAX_ROUNDS, description="members that each selection takes, one after the other"
    )
    bags: int = Field(10, ge=1, le=MAX_ROUNDS, description="selections")

    @field_validator("members")
    @classmethod
    def _not_reserved(cls, members: dict[str, Choice]) -> dict[str, Choice]:
        for name in members:
            if name in RESERVED:
                raise ValueError(f"'{name}' is the name of {RESERVED[name]}; give the member another one")
        return members


class Between(Options):
    """Numbers from `low` to `high`."""

    low: float = Field(description="smallest number")
    high: float = Field(description="largest number")
    log: bool = Field(False, description="draw evenly in the logarithm, for options such as a learning rate")
    whole: bool = Field(False, description="draw whole numbers only")

    @model_validator(mode="after")
    def _ordered(self) -> Between:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("expected low <= high, and low above 0 with log")
        return self


class Choices(Options):
    """One of several values."""

    choices: tuple[object, ...] = Field(min_length=2, description="values as a recipe would state them")


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
    """What `plait tune` may change."""

    space: dict[str, Between | Choices] = Field(
        _SPACE,
        min_length=1,
        description="for options of the recipe, by their dotted names, the values to try",
    )


Switch = Literal["auto", "on", "off"]


LEAST_STEPS = 500  # a small table needs so many to learn anything


UNAUGMENTED = 0.2  # share of the epochs, where a recipe says auto


COMPARED = 256  # rows of a batch, at most, where rows are compared with each other


class TrainingOptions(Options):
    """The options of the training loop that a recipe and a plan share."""

    micro_batch: int = Field(
        0,
        ge=0,
        le=MAX_COUNT,
        description="rows of a batch that are in memory at once; 0: all",
    )
    optimizer: Literal["adamw", "adam", "sgd"] = Field(
        "adamw", description="how steps are taken from gradients"
    )
    learning_rate: float = Field(0.002, gt=0, le=MAX_RATE, description="the highest one, after the warmup")
    weight_decay: float = Field(
        0.05,
        ge=0,
        le=MAX_RATE,
        description="how much weights shrink, times the learning rate, in a step (adamw)",
    )
    epsilon: float = Field(1e-08, gt=0, le=1, description="added to the denominator of Adam's step")
    warmup: float = Field(0.3, ge=0, le=1, description="share of all steps in which the learning rate rises")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="how the learning rate goes on after the warmup"
    )
    clip: float = Field(1.0, ge=0, le=MAX_WEIGHT, description="largest norm of the gradient; 0: no limit")
    mixup: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="alpha of Zhang et al. 2018: how much rows are mixed with others; 0: not at all",
    )
    unlabelled: float = Field(
        0.0, ge=0, le=MAX_WEIGHT, description="weight of the loss of rows without a label; 0 leaves them out"
    )
    keep: Literal["best", "last"] = Field("best", description="the epoch whose weights the model gets")
    best_by: str = Field(
        "",
        description="the target whose main metric chooses the best epoch; if empty, the mean of all",
    )
    checkpoint_minutes: float = Field(5.0, gt=0, le=MAX_WEIGHT, description="minutes between two checkpoints")
    trackers: tuple[Literal["csv", "tensorboard"], ...] = Field(
        ("csv",), description="where losses and metrics are logged"
    )


class TrainingRecipe(TrainingOptions):
    """The training loop.

    `epochs: auto` is 40. It is fewer where 40 would take more than 12,000 steps, but at least 8. It is more
    where 40 would take fewer than 500 steps (1,200 if texts are written, 2,500 if speech is transcribed).
    `batch_size: auto` is 32, and 16 if texts are written. If all media have frozen encoders, a table of 4,000
    training rows or more takes 20 epochs in batches of 128.

    An alignment alone takes 250 steps, in 30 to 40 epochs. Its batches have a 16th of the rows, from 32 to
    256.

    `patience: auto` is 10 for alignments alone. Else it is a quarter of the epochs, and five at least, where
    no encoder of media or texts is trained. It is 0 elsewhere: an encoder often learns most when the learning
    rate falls.

    A micro-batch only saves memory. Gradients add up to those of the batch, whatever labels and cells are
    missing, and an alignment still compares all of its rows. Batch norms see one micro-batch at a time, and
    mixed rows find their partners in it.

    The last `unaugmented` share of the epochs shows cells as prediction shows them. On augmented cells a
    network learns weights that make up for what masks and crops take away, and complete cells then get
    answers that are too large (Touvron et al. 2019). `unaugmented: auto` is 0.2, and 0 if speech is
    transcribed, where it made the transcripts of other kinds of recordings worse.

    With `unlabelled`, each step also takes two rows without a label for each row with one. If the network is
    sure of such a row, its answer stands in for the label of the same row with cells hidden and augmented
    (Sohn et al. 2020).

    `refit` trains the network again, on training and validation rows, for as many epochs as were best.
    Temperatures and weights stay those that validation rows gave, and scores of these rows are those of the
    network before. `refit: auto` does so if all media and texts have frozen encoders, for fewer than 4,000
    training rows: there it helped.
    """

    epochs: Count = Field("auto", description="times that all training rows are seen; auto: see above")
    patience: Patience = Field(
        "auto",
        description="epochs without a better score before training stops; 0: never; auto: see above",
    )
    batch_size: Count = Field("auto", description="rows in each step")
    unaugmented: float | Literal["auto"] = Field(
        "auto", description="share of the epochs, at the end, that see cells without augmentation"
    )
    refit: Switch = Field("auto", description="train again on training and validation rows in the end")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="of the network's arithmetic")
    channels_last: Switch = Field("auto", description="keep the channels of a pixel together in memory")
    compile: Switch = Field("auto", description="compile the network by torch.compile")
    allocator: Switch = Field("auto", description="keep freed memory for the next step (CPU)")

    @field_validator("unaugmented")
    @classmethod
    def _share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError("expected a share from 0 to 1, or auto")
        return value

    @field_validator("channels_last", "compile", "allocator", "refit", mode="before")
    @classmethod
    def _from_bool(cls, value: object) -> object:
        # YAML reads a bare on or off as a truth value
        if isinstance(value, bool):
            return "on" if value else "off"
        return value
