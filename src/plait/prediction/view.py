"""Ways to prepare one table for members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, JsonValue

from plait.data.plan import Plan
from plait.data.prepare import Preparing
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.model.column import build_encoder
from plait.nn import device
from plait.nn.device import Settings
from plait.table.json import JSON
from plait.table.table import Table


@dataclass
class View(Preparing):
    """One way to prepare a table: the fitted inputs of a plan. Frozen embeddings replace the cells."""

    name: str
    plan: Plan
    preprocessing: Preprocessing
    settings: Settings

    @classmethod
    def fit(cls, name: str, plan: Plan, table: Table) -> View:
        """Fit the state of a plan's inputs on its training rows."""
        preprocessing = Preprocessing.fit(table, plan, plan.split.train)
        settings = device.settings(plan.recipe.training, preprocessing.convolves(plan))
        return cls(name, plan, preprocessing, settings)

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
        """Return the plan, the precisions and the fitted state, as JSON. It does not say the name."""
        saved = _Saved(
            plan=self.plan.to_dict(),
            settings={"precision": self.settings.precision, "frozen": self.settings.frozen},
            state=self.preprocessing.state(),
        )
        return saved.model_dump(mode="json")

    @classmethod
    def from_state(cls, name: str, state: object) -> View:
        """Invert `state`. Raises `ValueError` or `KeyError` if it does not fit."""
        saved = _Saved.model_validate(state)
        plan = Plan.from_dict(saved.plan)
        preprocessing = Preprocessing.from_state(plan, dict(saved.state))
        settings = device.settings(plan.recipe.training, preprocessing.convolves(plan))
        return cls(name, plan, preprocessing, device.in_precisions(settings, saved.settings))


class _Saved(BaseModel):
    """What is saved of a view."""

    model_config = ConfigDict(extra="forbid")
    plan: dict[str, JsonValue]
    settings: dict[str, str]
    state: dict[str, JsonValue]
