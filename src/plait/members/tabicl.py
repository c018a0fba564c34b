"""TabICL, a transformer that reads the training rows as its context (Qu et al. 2025, arXiv 2502.05564).

It is pretrained on synthetic tables, and learns nothing from a table but its context. The package `tabicl`
holds the code; whoever has its checkpoints can use it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from plait.errors import ArtifactError, RecipeError
from plait.members.base import Examples, IndependentMember, Lesson, feature_matrix
from plait.prediction.view import View
from plait.recipe.registry import Options
from plait.runs import files
from plait.tasks.base_prediction import Prediction

if TYPE_CHECKING:
    from tabicl import TabICLClassifier, TabICLRegressor

FILE = "tabicl.safetensors"
REPOSITORY = "jingang/TabICL"
CHECKPOINTS = {
    "classifier": "tabicl-classifier-v2-20260212.ckpt",
    "regressor": "tabicl-regressor-v2-20260212.ckpt",
}
LEAST_PROBABILITY = 1e-6  # of a class, so that its logarithm is finite
LEAST_MEAN = 1e-6  # of a target that is learned as the logarithm of its mean, in units of the overall mean

Answer = Literal["binary", "multiclass", "mean", "log of mean"]
ANSWERS: dict[str, Answer] = {
    "binary": "binary",
    "multiclass": "multiclass",
    "regression": "mean",
    "huber": "mean",
    "tweedie": "log of mean",
}


class Config(Options):
    """Which checkpoints are read. They are neither fetched nor saved with a model.

    `auto` takes the one in the hub's cache. The time grows with `rows`, `estimators` and the number of
    features.
    """

    classifier: str = Field(
        "auto", description="the file of the checkpoint for classes; auto: the hub's cache"
    )
    regressor: str = Field(
        "auto", description="the file of the checkpoint for numbers; auto: the hub's cache"
    )
    estimators: int = Field(
        8, ge=1, le=64, description="orders and scales of the features, whose answers are averaged"
    )
    rows: int = Field(
        10_000, ge=10, le=1_000_000, description="training rows that it reads at most, drawn at random"
    )


class TabICL(IndependentMember):
    """Answers of TabICL on the features of each row, with the training rows as its context.

    Binary targets, classes and numbers are answered; each label of a multilabel target is one binary target.
    """

    options = Config

    def __init__(self, config: Config, x: np.ndarray, contexts: dict[str, list[_Context]]) -> None:
        """Take the features of the training rows (N, D), NaN where missing, and each target's contexts."""
        self.config = config
        self.x = x
        self.contexts = contexts

    @classmethod
    def check(cls, config: Config) -> None:
        """Raise `RecipeError` unless the package is installed and some checkpoint is on this machine."""
        if importlib.util.find_spec("tabicl") is None:
            raise RecipeError("it needs the package tabicl: pip install 'plait[tabicl]'")
        found = [_found(config, kind) for kind in CHECKPOINTS]
        if not any(found):
            _find(config, "regressor")

    @classmethod
    def check_tasks(
        cls, config: Config, tasks: Mapping[str, Prediction], labels: Mapping[str, Tensor]
    ) -> None:
        """Raise `RecipeError` unless each task's checkpoint is on this machine."""
        for target, task in tasks.items():
            for parameters, _ in task.boosting(labels[target]):
                _find(config, _kind(ANSWERS[str(parameters["objective"])]))

    @classmethod
    def learn(cls, config: Config, lesson: Lesson) -> TabICL:
        """Keep the rows that have a label. Nothing is trained."""
        rng = np.random.default_rng(lesson.seed)
        contexts = {target: _contexts(config, lesson, target, rng) for target in lesson.tasks}
        return cls(config, feature_matrix(lesson.train.blocks()), contexts)

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return logits, or numbers on the scale of the task, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            blocks = examples.blocks()
            shown = np.concatenate(
                [np.full(block.reduced.shape[1], block.column in subset) for block in blocks]
            )
            x = feature_matrix(blocks)
            by_target = {}
            for target, contexts in self.contexts.items():
                output = np.concatenate([self._answers(context, x, shown) for context in contexts], 1)
                is_scalar = contexts[0].job.is_scalar
                by_target[target] = torch.from_numpy(output[:, 0] if is_scalar else output)
            outputs.append(by_target)
        return outputs

    def _answers(self, context: _Context, x: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Return the outputs of one job (rows, outputs). `shown` is True for features that may be read."""
        outputs = np.tile(context.baseline, (len(x), 1))
        context_x = self.x[context.rows]
        used = shown & ~np.isnan(context_x).all(0)
        context_x = context_x[:, used]
        x = x[:, used]
        has_cell = ~np.isnan(x).all(1)
        if not has_cell.any() or len(np.unique(context.y)) < 2:
            return outputs

        # TabICL leaves out a feature that no asked row has. So that a row is answered alike whatever the
        # others are, rows of the context are asked with it that have all features between them.
        asked = np.concatenate([x[has_cell], context_x[_covering(context_x)]])
        model = self._model(context)
        with warnings.catch_warnings():
            # Of features with outliers, scikit-learn's power transformation says that it overflows.
            warnings.simplefilter("ignore")
            _fit(model, context_x, context.y)
            outputs[has_cell] = context.outputs_of(model, asked)[: has_cell.sum()]
        return outputs

    def _model(self, context: _Context) -> TabICLClassifier | TabICLRegressor:
        """Return the package's model. Raises `ArtifactError` if the checkpoint is gone or another one."""
        from tabicl import TabICLClassifier, TabICLRegressor

        path = _find(self.config, context.job.kind)
        if _identity(path) != context.job.identity:
            raise ArtifactError(
                f"member 'tabicl': '{path}' is not the checkpoint that the model was trained with; put that "
                f"one there"
            )
        build = TabICLClassifier if context.job.kind == "classifier" else TabICLRegressor
        return build(
            n_estimators=self.config.estimators,
            model_path=path,
            allow_auto_download=False,
            random_state=0,
        )

    def save(self, folder: Path) -> None:
        """Write the context: features and labels of the training rows, but no checkpoint."""
        tensors = {"x": torch.from_numpy(self.x)}
        saved = {}
        for number, (target, contexts) in enumerate(self.contexts.items()):
            saved[target] = [context.job for context in contexts]
            for job, context in enumerate(contexts):
                for name, array in context.arrays.items():
                    tensors[f"{number}/{job}/{name}"] = torch.from_numpy(array)
        text = _Saved(targets=saved).model_dump_json()
        files.write_tensors(folder / FILE, tensors, {"tabicl": text})

    @classmethod
    def load(cls, config: Config, folder: Path, view: View | None) -> TabICL:
        """Invert `save`. Raises `ArtifactError` unless the file holds a context."""
        path = folder / FILE
        tensors, metadata = files.read_tensors(path)
        return files.load_part(f"'{path}'", lambda: cls._from_tensors(config, tensors, metadata["tabicl"]))

    @classmethod
    def _from_tensors(cls, config: Config, tensors: dict[str, Tensor], text: str) -> TabICL:
        """Invert `save`. Raises `KeyError` or `ValueError` for what cannot be a context."""
        x = tensors["x"].numpy()
        contexts: dict[str, list[_Context]] = {}
        for number, (target, jobs) in enumerate(_Saved.model_validate_json(text).targets.items()):
            contexts[target] = []
            for job, saved in enumerate(jobs):
                arrays = {name: tensors[f"{number}/{job}/{name}"].numpy() for name in _ARRAYS}
                context = _Context(saved, **arrays)
                context.check(len(x))
                contexts[target].append(context)
        return cls(config, x, contexts)


component = TabICL

_ARRAYS = ("rows", "y", "baseline")


class _Job(BaseModel):
    """What is answered, by which checkpoint (a hash of it), and whether outputs are (rows,)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer: Answer
    identity: str
    is_scalar: bool

    @property
    def kind(self) -> str:
        """The kind of checkpoint that answers."""
        return _kind(self.answer)


class _Saved(BaseModel):
    """The jobs of each target."""

    model_config = ConfigDict(extra="forbid", strict=True)

    targets: dict[str, list[_Job]]


@dataclass(frozen=True)
class _Context:
    """The training rows of one job, their labels `y`, and the output (outputs,) of a row without any cell."""

    job: _Job
    rows: np.ndarray
    y: np.ndarray
    baseline: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def check(self, count: int) -> None:
        """Raise `ValueError` unless the rows are among `count` ones, and each has a label that can be."""
        if len(self.rows) != len(self.y) or (
            len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < count
        ):
            raise ValueError(f"{len(self.rows)} rows of {count} do not go with {len(self.y)} labels")

        is_multiclass = self.job.answer == "multiclass"
        if self.baseline.ndim != 1 or (len(self.baseline) != 1 and not is_multiclass):
            raise ValueError(f"a baseline of shape {self.baseline.shape} does not go with {self.job.answer}")
        classes = {"binary": 2, "multiclass": len(self.baseline)}.get(self.job.answer)
        if classes and not np.isin(self.y, np.arange(classes)).all():
            raise ValueError(f"labels are not among {classes} classes")

    def outputs_of(self, model: TabICLClassifier | TabICLRegressor, x: np.ndarray) -> np.ndarray:
        """Return the outputs (rows, outputs) of a fitted model."""
        if self.job.kind == "regressor":
            mean = model.predict(x)[:, None]
            if self.job.answer == "log of mean":
                mean = np.log(np.maximum(mean, LEAST_MEAN))
            return mean.astype(np.float32)

        # A class that the context lacks keeps the least probability.
        classes = 2 if self.job.answer == "binary" else len(self.baseline)
        probability = np.full((len(x), classes), LEAST_PROBABILITY)
        found = np.maximum(model.predict_proba(x), LEAST_PROBABILITY)
        probability[:, model.classes_.astype(int)] = found
        logit = np.log(probability).astype(np.float32)
        return logit[:, 1:] - logit[:, :1] if self.job.answer == "binary" else logit


def _kind(answer: Answer) -> str:
    """Return the kind of checkpoint that gives such answers."""
    return "classifier" if answer in ("binary", "multiclass") else "regressor"


def _contexts(config: Config, lesson: Lesson, target: str, rng: np.random.Generator) -> list[_Context]:
    """Return a context for each job of a target: one, or one for each label of several."""
    task = lesson.tasks[target]
    rows, y = lesson.labelled(target, lesson.train)
    kept = np.sort(rng.permutation(len(rows))[: config.rows])
    baseline = task.baseline(y).float()
    jobs = task.boosting(y)

    contexts = []
    for number, (parameters, labels) in enumerate(jobs):
        job = _Job(answer=ANSWERS[str(parameters["objective"])], identity="", is_scalar=not baseline.ndim)
        job = job.model_copy(update={"identity": _identity(_find(config, job.kind))})
        of_job = baseline[number] if len(jobs) > 1 else baseline
        context = _Context(job, rows[kept], labels[kept].numpy(), of_job.reshape(-1).numpy())
        contexts.append(context)
    return contexts


def _fit(model: TabICLClassifier | TabICLRegressor, x: np.ndarray, y: np.ndarray) -> None:
    """Load the checkpoint, and keep the context. Raises `ArtifactError` if the file is no checkpoint."""
    try:
        model.fit(x, y)
    except (pickle.UnpicklingError, AssertionError, RuntimeError, TypeError) as error:
        # The package checks a checkpoint's content in no other way.
        raise ArtifactError(
            f"'{model.model_path}' holds no checkpoint of TabICL, or one that does not fit this package "
            f"({type(error).__name__})"
        ) from error


def _covering(x: np.ndarray) -> np.ndarray:
    """Return a few rows that have all features between them: the first row of each feature."""
    return np.unique((~np.isnan(x)).argmax(0))


def _found(config: Config, kind: str) -> Path | None:
    """Return the file of a checkpoint that is on this machine, None if it is not. The hub is not asked."""
    setting = str(getattr(config, kind))
    if setting != "auto":
        path = Path(setting).expanduser()
        return path if path.is_file() else None

    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(REPOSITORY, CHECKPOINTS[kind])
    return Path(cached) if isinstance(cached, str) else None


def _find(config: Config, kind: str) -> Path:
    """Return the file of a checkpoint. Raises `RecipeError` that says where it was looked for."""
    path = _found(config, kind)
    if path is not None:
        return path
    setting = str(getattr(config, kind))
    name = CHECKPOINTS[kind]
    if setting != "auto":
        raise RecipeError(
            f"there is no checkpoint '{setting}'; expected a file such as {name} of {REPOSITORY}"
        )
    raise RecipeError(
        f"the checkpoint {name} is not in the hub's cache, and plait does not fetch it by itself: "
        f"hf download {REPOSITORY} {name}; or give the option {kind} a file"
    )


@cache
def _identity(path: Path) -> str:
    """Return a short hash of a checkpoint."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:24]
