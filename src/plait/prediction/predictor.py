"""From rows to answers and embeddings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from plait.data import frozen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.errors import RecipeError
from plait.media.cell import Store
from plait.model import network
from plait.model.fused import Fused
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings, to_channels_last
from plait.table.table import Progress, Table
from plait.tasks.base import Task, joined

BATCH = 64


class Rows(Protocol):
    """Rows that have been prepared: a `Dataset`, or more than one. Labels are found in `prepared.batch`
    at `rows`.
    """

    @property
    def prepared(self) -> Prepared: ...
    @property
    def rows(self) -> Tensor: ...
    def __len__(self) -> int: ...


class Answering(Protocol):
    """What answers: one network, or an ensemble."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def tasks(self) -> dict[str, Task]: ...

    def prepare(
        self, table: Table, targets: bool = True, store: Store | None = None, progress: Progress = ...
    ) -> Any:
        """All rows of a table, ready for `outputs`."""

    def outputs(
        self, rows: Any, subsets: Sequence[Sequence[str]], progress: Progress = ...
    ) -> list[dict[str, Tensor]]:
        """For each subset of the columns, all others hidden, each target's outputs for all rows."""


class Predictor:
    """A model set up to answer fast: in eval mode, with the weights of its large products in bf16 where
    it was trained so, converted once. The model that it is given is left as it is.
    """

    def __init__(
        self, model: MultimodalModel, preprocessing: Preprocessing, settings: Settings, plan: Plan
    ) -> None:
        self.preprocessing, self.settings, self.plan = preprocessing, settings, plan
        if settings.precision == "bf16":
            model = copy.deepcopy(model)
            for part in model.modules():
                if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.Embedding)):
                    part.bfloat16()
        if settings.channels_last:
            to_channels_last(model)
        self.model = model.eval().to(settings.device)

    @property
    def columns(self) -> list[str]:
        return self.model.columns

    @property
    def tasks(self) -> dict[str, Task]:
        return self.preprocessing.tasks

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        store: Store | None = None,
        progress: Progress = lambda n: None,
    ) -> Dataset:
        prepared = self.preprocessing.prepare(table, targets, progress, store)
        frozen.embed(
            prepared, self.preprocessing, network.frozen(self.model), self.plan, self.settings, store
        )
        return Dataset(prepared, self.preprocessing)

    def outputs(
        self, rows: Dataset, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Every column is encoded once: all subsets together cost little more than one."""
        found: list[list[dict[str, Tensor]]] = []
        for batch in rows.in_order(BATCH):
            found.append(self.of_batch(batch, subsets))
            progress(len(batch))
        return (
            [
                {t: joined([part[i][t] for part in found]) for t in self.model.targets}
                for i in range(len(subsets))
            ]
            if found
            else []
        )

    @torch.inference_mode()
    def of_batch(self, batch: Batch, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Each task's output for a batch as encoders take it, in fp32 on the CPU."""
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded = self.model.encode(batch)
            own = self.model.own(encoded)
            found = [
                self.model.predict_hidden(encoded, batch.only(given).present, given, own)
                for given in map(set, subsets)
            ]
            decoded = [
                {t: self.model.task(t).decode(output, thorough=True) for t, output in one.items()}
                for one in found
            ]
        return [
            {t: (output.float() if output.is_floating_point() else output).cpu() for t, output in one.items()}
            for one in decoded
        ]

    @torch.inference_mode()
    def fused(self, batch: Batch, columns: Sequence[str]) -> Tensor:
        """The fused vector of each row of a table that has these columns, in fp32 on the CPU: that of
        the target which reads the most of them.
        """
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded, given = self.model.encode(batch), set(columns)
            return (
                self._widest(self.model.hide(encoded, batch.present, given), batch.present, columns=given)
                .float()
                .cpu()
            )

    @property
    def width(self) -> int:
        """Of the fused vector."""
        return self._widest.width

    @property
    def _widest(self) -> Fused:
        if not len(self.model.fused):
            raise RecipeError(
                "no target of this model is answered from a fused vector; an aligned column has vectors of "
                "its own: column="
            )
        return max(
            (cast(Fused, part) for part in self.model.fused.values()), key=lambda part: len(part.columns)
        )
