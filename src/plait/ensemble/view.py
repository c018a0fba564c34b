"""Ways to prepare one table for members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from plait.data import frozen as embedding
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.media.cell import Store
from plait.model.column import build_encoder
from plait.nn import device
from plait.nn.device import Settings
from plait.table.json import JSON, read_as, read_object
from plait.table.table import Progress, Table


@dataclass
class View:
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
        for column, modality in self.preprocessing.inputs.items():
            planned = self.plan.columns[column]
            encoder = build_encoder(modality, planned.encoder, column) if planned.frozen else None
            if isinstance(encoder, FrozenEncoder):
                encoders[column] = encoder
        return encoders

    def dataset(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Dataset:
        """Prepare all rows of a table, and embed the columns of frozen encoders."""
        prepared = self.preprocessing.prepare(table, targets, progress, store)
        embedding.embed(prepared, self.preprocessing, self.frozen, self.plan, self.settings, store)
        return Dataset(prepared, self.preprocessing)

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
    precision, frozen = trained.get("precision", settings.precision), trained.get("frozen", settings.frozen)
    if not device.bf16_is_fast(settings.device):
        precision = "fp32" if precision == "bf16" else precision
        frozen = "fp32" if frozen == "bf16" else frozen
    return replace(settings, precision=precision, frozen=frozen)
