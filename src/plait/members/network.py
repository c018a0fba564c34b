"""The fused network, trained by the same loop as a fit of one network alone."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.split import NO_ROWS
from plait.members.base import Examples, IndependentMember, Lesson
from plait.modalities.base import modalities
from plait.model.network import MultimodalModel
from plait.nn.allocation import AllocationLimit, Undrawn
from plait.prediction.predictor import Predictor
from plait.prediction.view import View
from plait.recipe.bounds import MAX_RATE
from plait.recipe.registry import Choice, Options
from plait.runs import files
from plait.training.loop import Training, train

MAX_SIDE = 100_000  # pixels


class Config(Options):
    """The recipe's network, with its fusion, but without late fusion.

    The mixture weight of late fusion would be fitted on the rows that the member is weighed by. `encoders`
    are those of its view, by modality, in place of the recipe's. `light` leaves out columns of media and
    texts without a frozen encoder, so that it trains in seconds. `fusion` and `learning_rate` are the
    recipe's if left out.

    `scratch` asks for encoders that are trained from scratch, where plait has chosen frozen ones and the
    images are small enough. It becomes `encoders` and `cells`, the options of cells that they read.
    """

    encoders: dict[str, Choice] = Field({}, description="encoder by modality, in place of the recipe's")
    cells: dict[str, dict[str, object]] = Field(
        {}, description="options of cells by modality, for the encoders; in place of the recipe's"
    )
    scratch: dict[str, Annotated[int, Field(ge=1, le=MAX_SIDE)]] = Field(
        {},
        description="by modality, the largest side in pixels of images whose encoder is trained from scratch",
    )
    light: bool = Field(False, description="leave out media and texts without a frozen encoder")
    fusion: Choice | None = Field(None, description="in place of the recipe's; null: the recipe's")
    learning_rate: float | None = Field(
        None, gt=0, le=MAX_RATE, description="in place of the recipe's; null: the recipe's"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Config:
        for modality in self.scratch:
            modalities.find(modality)
            if modality in self.encoders:
                raise ValueError(f"{modality} has an encoder in both encoders and scratch; leave one out")
        for modality in self.cells:
            if modality not in self.encoders:
                raise ValueError(f"cells has options of {modality}, and encoders names no encoder for it")
        return self


class Network(IndependentMember):
    """`MultimodalModel`, with the weights of its last epoch.

    The held-out rows choose no epoch and fit no temperature: the member is weighed by them. It answers the
    targets that it has seen labels of.
    """

    options = Config

    def __init__(
        self, model: MultimodalModel, predictor: Predictor, view: str, targets: Collection[str]
    ) -> None:
        self.model = model  # as it was trained; that of the predictor may have weights of 16 bits
        self.predictor = predictor
        self.view = view
        self.targets = targets

    @classmethod
    def encoders(cls, config: Config) -> dict[str, Choice]:
        """Return the encoders of its view, by modality."""
        return config.encoders

    @classmethod
    def light(cls, config: Config) -> bool:
        """Return whether its view leaves out columns whose encoders would have to be trained."""
        return config.light

    @classmethod
    def learn(cls, config: Config, lesson: Lesson) -> Network:
        """Train a network on the lesson's rows, in a folder that is deleted."""
        plan = lesson.plan.for_member(config.fusion, config.learning_rate)
        data = lesson.train.views[lesson.view]
        no_rows = Dataset(data.prepared, data.preprocessing, NO_ROWS)
        settings = lesson.settings
        torch.manual_seed(lesson.seed)
        model = MultimodalModel.build(plan, data.preprocessing)

        # Checkpoints are of no use: a stopped fit of members begins anew.
        with tempfile.TemporaryDirectory(dir=lesson.folder) as folder:
            screen = Screen(quiet=True)
            deadline = lesson.deadline
            train(Training(model, plan, settings, data, no_rows, Path(folder), screen, deadline=deadline))
        predictor = Predictor(model.cpu(), data.preprocessing, settings, plan)
        return cls(model, predictor, lesson.view, list(lesson.tasks))

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of each target, for each subset of the columns."""
        answers = []
        for outputs in self.predictor.subset_outputs(examples.views[self.view], subsets):
            answers.append({target: outputs[target] for target in self.targets})
        return answers

    def save(self, folder: Path) -> None:
        """Write the weights."""
        files.write_tensors(folder / "weights.safetensors", self.model.state_dict())

    @classmethod
    def load(cls, config: Config, folder: Path, view: View | None) -> Network:
        """Invert `save`, for the plan and the preprocessing of its view."""
        assert view is not None
        plan = view.plan.for_member(config.fusion, config.learning_rate)
        path = folder / "weights.safetensors"
        tensors, _ = files.read_tensors(path)
        with AllocationLimit.of_weights(tensors.values()), Undrawn():
            model = MultimodalModel.build(plan, view.preprocessing, training=False)
        files.check_shapes(path, tensors, model.state_dict())
        model.load_state_dict(tensors)
        predictor = Predictor(model, view.preprocessing, view.settings, plan)
        return cls(model, predictor, view.name, list(plan.tasks))


component = Network
