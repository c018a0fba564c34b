"""Compute what a network answers for rows: the outputs of its targets, and fused vectors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

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

BATCH = 64  # rows that go through the network at once

# The layers that hold nearly all weights. The others, such as norms, stay in float32.
LARGE_PRODUCTS = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.Embedding)

ByTarget: TypeAlias = dict[str, Tensor]  # the output of each target


class Rows(Protocol):
    """Prepared rows of a table: a `Dataset`, or several datasets of the same rows."""

    @property
    def prepared(self) -> Prepared:
        """The prepared table that the rows are from. It has the labels."""
        ...

    @property
    def rows(self) -> Tensor:
        """The rows' numbers in the prepared table."""
        ...

    def __len__(self) -> int: ...


class Answering(Protocol):
    """A model that answers rows which are prepared: one network, an ensemble, out-of-fold predictions."""

    @property
    def columns(self) -> list[str]:
        """The names of the inputs."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The fitted task of each target."""
        ...

    def subset_outputs(
        self, rows: Any, subsets: Sequence[Sequence[str]], progress: Progress = ...
    ) -> list[ByTarget]:
        """Return the outputs for all rows, for each subset of the columns. The other columns are hidden."""


class AnsweringTables(Answering, Protocol):
    """A model that answers any table: it prepares the rows as well."""

    @property
    def preprocessings(self) -> list[Preprocessing]:
        """The ways in which it prepares a table."""
        ...

    def prepare(
        self, table: Table, targets: bool = True, store: Store | None = None, progress: Progress = ...
    ) -> Rows:
        """Prepare all rows of a table for `outputs`."""

    def outputs(self, rows: Any, progress: Progress = ...) -> ByTarget:
        """Return the outputs for all rows, of which there is at least one."""


class Predictor(Preparing):
    """A model set up to answer fast.

    It is in eval mode. If it was trained in bf16, the weights of its large products are converted once, in
    a copy.
    """

    def __init__(
        self, model: MultimodalModel, preprocessing: Preprocessing, settings: Settings, plan: Plan
    ) -> None:
        self.preprocessing = preprocessing
        self.settings = settings
        self.plan = plan

        if settings.precision == "bf16":
            model = copy.deepcopy(model)
            for module in model.modules():
                if isinstance(module, LARGE_PRODUCTS):
                    module.bfloat16()
        if settings.channels_last:
            to_channels_last(model)
        self.model = model.eval().to(settings.device)

    @property
    def columns(self) -> list[str]:
        """The names of the inputs."""
        return self.model.columns

    @property
    def preprocessings(self) -> list[Preprocessing]:
        """The one way in which it prepares a table."""
        return [self.preprocessing]

    @property
    def tasks(self) -> dict[str, Task]:
        """The task of each target, with its trained head."""
        return self.model.tasks_by_target

    @property
    def frozen(self) -> dict[str, FrozenEncoder]:
        """The model's frozen encoders, by column."""
        return network.frozen(self.model, self.plan)

    def outputs(self, rows: Dataset, progress: Progress = lambda n: None) -> ByTarget:
        """Return the outputs for all rows, of which there is at least one."""
        of_batches = []
        for batch in rows.in_order(BATCH):
            of_batches.append(self.of_batch(batch))
            progress(len(batch))
        return self._joined(of_batches)

    def subset_outputs(
        self, rows: Dataset, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None
    ) -> list[ByTarget]:
        """Return the outputs for all rows, for each subset of the columns. Without rows, the list is empty.

        Every column is encoded once: all subsets together cost little more than one.
        """
        of_batches: list[list[ByTarget]] = []
        for batch in rows.in_order(BATCH):
            of_batches.append(self._subsets_of_batch(batch, subsets))
            progress(len(batch))

        # Each batch has a list of subsets. Join what all batches have of each subset.
        of_subsets = zip(*of_batches, strict=True)
        return [self._joined(of_subset) for of_subset in of_subsets]

    @torch.inference_mode()
    def of_batch(self, batch: Batch) -> ByTarget:
        """Return the decoded outputs for a batch from `Dataset`.

        All outputs are on the CPU, and in float32 unless they are integers.
        """
        with self.settings.autocast():
            outputs = self.model(self._packed(batch))
            return self._decoded(outputs)

    @torch.inference_mode()
    def _subsets_of_batch(self, batch: Batch, subsets: Sequence[Sequence[str]]) -> list[ByTarget]:
        """Return what `of_batch` does, for each subset of the columns."""
        of_subsets = []
        with self.settings.autocast():
            encoded = self.model.encode(self._packed(batch))
            for columns in subsets:
                # These are the steps of `forward`, for a table that has these columns only.
                subset = self.model.keep(encoded, columns)
                fused = self.model.fuse(subset)
                outputs = self.model.answer(fused, subset)
                of_subsets.append(self._decoded(outputs))
        return of_subsets

    def _packed(self, batch: Batch) -> Batch:
        """Return a batch on the model's device, without absent cells that need not be encoded."""
        return self.model.packed(batch).to(torch.device(self.settings.device))

    def _decoded(self, outputs: ByTarget) -> ByTarget:
        """Decode the output of each target, and move it to the CPU."""
        decoded = {}
        for target, output in outputs.items():
            x = self.model.task(target).decode(output, thorough=True)

            # Ids of texts are integers. NumPy has no bf16.
            if x.is_floating_point():
                x = x.float()
            decoded[target] = x.cpu()
        return decoded

    def _joined(self, of_batches: Sequence[ByTarget]) -> ByTarget:
        """Join the outputs of all batches."""
        outputs = {}
        for target in self.model.targets:
            outputs[target] = joined([of_batch[target] for of_batch in of_batches])
        return outputs

    @torch.inference_mode()
    def fused(self, batch: Batch) -> Tensor:
        """Return the vector that each row is answered from, in float32 on the CPU.

        Of several targets, the one that reads the most columns gives it.
        """
        with self.settings.autocast():
            encoded = self.model.encode(self._packed(batch))
            fused = self.model.fuse(encoded)[self._widest_target]
            return fused.answered_BD().float().cpu()

    @property
    def width(self) -> int:
        """The width of the fused vector."""
        return self.model.fuser(self._widest_target).width

    @property
    def _widest_target(self) -> str:
        """The target that is predicted from the most columns."""
        targets = self.model.fuser_of
        if not targets:
            raise RecipeError(
                "no target of this model is answered from a fused vector; "
                "name an aligned column to get its embeddings: column="
            )
        return max(targets, key=lambda target: len(self.model.fuser(target).columns))
