"""The fused network, trained by the same loop as a fit of one network alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from plait.console import Screen
from plait.data.plan import Plan
from plait.members.base import Examples, Lesson, Member, View
from plait.model.network import MultimodalModel
from plait.nn.device import Settings
from plait.prediction.predictor import Predictor
from plait.recipe.registry import Choice, Options
from plait.training.loop import Training, train


class Config(Options):
    """The recipe's own network, with its fusion, and without votes of parts by themselves: how far
    these are trusted would be found out on the rows that the member is weighed by. `encoders` are those
    of its view, by modality, in place of the recipe's. `light` leaves out columns of media and texts
    without a frozen encoder, so that it trains in seconds; the recipe's own network has them. `fusion`
    and `learning_rate` are the recipe's where left out.
    """

    encoders: dict[str, Choice] = {}
    light: bool = False
    fusion: Choice | None = None
    learning_rate: float | None = Field(None, gt=0)


class Network(Member):
    """`MultimodalModel`, with the weights of its best epoch on the held-out rows."""

    options = Config

    def __init__(self, predictor: Predictor, view: str) -> None:
        self.predictor, self.view = predictor, view

    @classmethod
    def encoders(cls, config: Config) -> dict[str, Choice]:
        return config.encoders

    @classmethod
    def light(cls, config: Config) -> bool:
        return config.light

    @classmethod
    def fit(cls, config: Config, lesson: Lesson) -> Network:
        plan = lesson.plan.for_member(config.fusion, config.learning_rate)
        data = lesson.train.views[lesson.view]
        torch.manual_seed(lesson.seed)
        model = MultimodalModel.build(plan, data.preprocessing)
        with tempfile.TemporaryDirectory(dir=lesson.folder) as folder:
            train(
                Training(
                    model,
                    plan,
                    lesson.settings,
                    data,
                    lesson.valid.views[lesson.view],
                    Path(folder),
                    Screen(quiet=True),
                )
            )
        return cls(Predictor(model.cpu(), data.preprocessing, lesson.settings, plan), lesson.view)

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        return self.predictor.outputs(examples.views[self.view], subsets)

    def save(self, folder: Path) -> None:
        save_file(
            {k: t.contiguous() for k, t in self.predictor.model.state_dict().items()},
            folder / "weights.safetensors",
        )

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Network:
        name, preprocessing = view
        plan = plan.for_member(config.fusion, config.learning_rate)
        model = MultimodalModel.build(plan, preprocessing, training=False)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        return cls(Predictor(model, preprocessing, settings, plan), name)


component = Network
