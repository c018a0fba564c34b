"""Ways to prepare one table for members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from plait.data.plan import Plan
from plait.data.prepare import Preparing
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.model.column import build_encoder
from plait.nn import device
from plait.nn.device import Settings
from plait.table.json import JSON, read_as, read_object
from plait.table.table import Table


@dataclass
class View(Preparing):
    """One way to prepare a table: the fitted inputs of a plan. Frozen embeddings replace the cells."""

    plan: Plan
    preprocessing: Preprocessing
    settings: Settings

    @classmethod
    def fit(cls, plan: Plan, table: Table) -> View:
        """Fit the state of a plan's inputs on its training rows."""
        preprocessing = Preprocessing.fit(table, plan, plan.split.train)
        settings = device.settings(plan.recipe.training, preprocessing.convolves(plan))
        return cls(plan, preprocessing, settings)

    @cached_property
    def frozen(self) -> dict[str, FrozenEncoder]:
        """The frozen encoders, by column."""
        encoders = {}
        for column in self.plan.frozen_columns:
            modality = self.preprocessing.inputs[column]
            encoder = build_encoder(modality, self.plan.columns[column].encoder, column)
            assert isinstance(encoder, FrozenEncoder)
            encoders[column] = encoder
        return encoders

    def state(self) -> JSON:
        """Return the plan, the precisions and the fitted state, as JSON."""
        return {
            "plan": self.plan.to_dict(),
            "settings": {"precision": self.settings.precision, "frozen": self.settings.frozen},
            "state": self.preprocessing.state(),
        }

    @classmethod
    def from_state(cls, state: JSON) -> View:
        """Invert `state`."""
        plan = Plan.from_dict(state["plan"])
        preprocessing = Preprocessing.from_state(plan, read_object(state["state"]))
        trained = read_as(dict[str, str], state["settings"])
        return cls(plan, preprocessing, settings_as(trained, plan, preprocessing))


def settings_as(trained: Mapping[str, str], plan: Plan, preprocessing: Preprocessing) -> Settings:
    """Return this machine's settings, in the precisions that a model was trained in.

    A model trained in bf16 runs in fp32 where bf16 is slow.
    """
    settings = device.settings(plan.recipe.training, preprocessing.convolves(plan))
    precision = trained.get("precision", settings.precision)
    frozen = trained.get("frozen", settings.frozen)
    if not device.bf16_is_fast(settings.device):
        precision = "fp32" if precision == "bf16" else precision
        frozen = "fp32" if frozen == "bf16" else frozen
    return replace(settings, precision=precision, frozen=frozen)
