"""Compute the outputs and the fused vectors of rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.prepare import Preparing
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.errors import RecipeError
from plait.media.cell import Store
from plait.model import network
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import Settings, to_channels_last
from plait.table.table import Progress, Table
from plait.tasks.base import Task, joined

BATCH = 64


class Rows(Protocol):
    """Rows that have been prepared: a `Dataset`, or several of the same rows."""

    @property
    def prepared(self) -> Prepared:
        """The prepared table, which has the labels."""
        ...

    @property
    def rows(self) -> Tensor:
        """The numbers of the rows in the prepared table."""
        ...

    def __len__(self) -> int: ...


class Answering(Protocol):
    """A model that answers rows: one network, or an ensemble."""

    @property
    def columns(self) -> list[str]:
        """The names of the inputs."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The fitted task of each target."""
        ...

    def prepare(
        self, table: Table, targets: bool = True, store: Store | None = None, progress: Progress = ...
    ) -> Rows:
        """Prepare all rows of a table for `outputs`."""

    def outputs(
        self, rows: Any, subsets: Sequence[Sequence[str]], progress: Progress = ...
    ) -> list[dict[str, Tensor]]:
        """Return each target's outputs for all rows, for each subset of the columns, the others hidden."""


class Predictor(Preparing):
    """A model set up to answer fast.

    It is in eval mode. If it was trained in bf16, the weights of its large products are converted once, in
    a copy.
    """

    def __init__(
        self, model: MultimodalModel, preprocessing: Preprocessing, settings: Settings, plan: Plan
    ) -> None:
        self.preprocessing, self.settings, self.plan = preprocessing, settings, plan
        if settings.precision == "bf16":
            model = copy.deepcopy(model)
            for module in model.modules():
                if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.Embedding)):
                    module.bfloat16()
        if settings.channels_last:
            to_channels_last(model)
        self.model = model.eval().to(settings.device)

    @property
    def columns(self) -> list[str]:
        """The names of the inputs."""
        return self.model.columns

    @property
    def tasks(self) -> dict[str, Task]:
        """The fitted task of each target."""
        return self.preprocessing.tasks

    @property
    def frozen(self) -> dict[str, FrozenEncoder]:
        """The model's frozen encoders, by column."""
        return network.frozen(self.model, self.plan)

    def outputs(
        self, rows: Dataset, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[dict[str, Tensor]]:
        """Return each target's outputs for all rows, for each subset of the columns; nothing without rows.

        Every column is encoded once: all subsets together cost little more than one.
        """
        of_batches: list[list[dict[str, Tensor]]] = []
        for batch in rows.in_order(BATCH):
            of_batches.append(self.of_batch(batch, subsets))
            progress(len(batch))
        if not of_batches:
            return []
        joined_subsets = []
        for subset in range(len(subsets)):
            of_subset = [outputs[subset] for outputs in of_batches]
            by_target = {}
            for target in self.model.targets:
                by_target[target] = joined([outputs[target] for outputs in of_subset])
            joined_subsets.append(by_target)
        return joined_subsets

    @torch.inference_mode()
    def of_batch(self, batch: Batch, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return each task's output for a batch as encoders take it, for each subset of the columns.

        All outputs are in float32 on the CPU.
        """
        batch = batch.to(torch.device(self.settings.device))
        of_subsets = []
        with self.settings.autocast():
            encoded = self.model.encode(batch)
            for columns in subsets:
                subset = self.model.keep(encoded, columns)
                outputs = self.model.answer(self.model.fuse(subset), subset)
                decoded = {}
                for target, output in outputs.items():
                    decoded[target] = self._decoded(target, output)
                of_subsets.append(decoded)
        return of_subsets

    def _decoded(self, target: str, output: Tensor) -> Tensor:
        decoded = self.model.task(target).decode(output, thorough=True)
        return (decoded.float() if decoded.is_floating_point() else decoded).cpu()

    @torch.inference_mode()
    def fused(self, batch: Batch, columns: Sequence[str]) -> Tensor:
        """Return the fused vector of each row of a table that has these columns, in float32 on the CPU.

        It is that of the target which reads the most columns.
        """
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded = self.model.keep(self.model.encode(batch), columns)
            return self.model.fuse(encoded)[self._widest_target].answered_BD().float().cpu()

    @property
    def width(self) -> int:
        """The width of the fused vector."""
        return self.model.fuser(self._widest_target).width

    @property
    def _widest_target(self) -> str:
        """The target that is predicted from the most columns."""
        if not self.model.fuser_of:
            raise RecipeError(
                "no target of this model is answered from a fused vector; "
                "an aligned column has embeddings of its own: column="
            )
        return max(self.model.fuser_of, key=lambda target: len(self.model.fuser(target).columns))
