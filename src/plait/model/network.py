"""The network: encode each column, fuse, answer each target. B rows, L tokens, D width."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder, FrozenEncoder
from plait.fusion.base import fusions
from plait.model.column import ColumnEncoder, build_encoder
from plait.model.fused import Fuser, blocks_of
from plait.model.memory import check_memory
from plait.model.stand_in import StandIn
from plait.model.table_columns import TableColumns, together
from plait.nn.batch import Batch, Encoded, Fused, Masks, Tokens, Values, select
from plait.nn.layers import module_key
from plait.nn.summaries import Statistics
from plait.tasks.base import Task, Widths
from plait.tasks.base_comparison import Comparison, comparisons
from plait.tasks.base_prediction import Prediction


class ColumnGroup(Protocol):
    """The encoder of one column or of several: a `ColumnEncoder`, or the `TableColumns`."""

    columns: list[str]
    stand_in: StandIn

    def __call__(
        self, values: Mapping[str, Values], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Encode the cells, with a stand-in token for each absent one."""

    def hide(
        self, tokens: Mapping[str, Tokens], present: Mapping[str, Tensor], in_table: Mapping[str, Tensor]
    ) -> dict[str, Tokens]:
        """Put stand-in tokens in place of cells that are absent now."""


class MultimodalModel(nn.Module):
    """Encoders by column, fusers by the columns that they read, tasks by target.

    Validation, prediction and export call `forward`. Training, embeddings and the evaluation of subsets
    of the columns compose the same steps: a subset is `answer(fuse(keep(encoded, columns)), ...)`.
    """

    def __init__(
        self,
        columns: list[str],
        encoders: dict[str, ColumnEncoder],
        table_columns: TableColumns | None,
        fusers: dict[tuple[str, ...], Fuser],
        tasks: dict[str, Task],
    ) -> None:
        super().__init__()
        self.columns = list(columns)
        self.targets = list(tasks)

        # The order of these four is that of the weights on disk and in the optimizer.
        self.encoders = nn.ModuleDict()
        self.table_columns = table_columns
        self.fusers = nn.ModuleDict()
        self.tasks = nn.ModuleDict()

        for column, encoder in encoders.items():
            self.encoders[module_key(column)] = encoder
        for read_columns, fuser in fusers.items():
            self.fusers[_fuser_key(read_columns)] = fuser
        for target, task in tasks.items():
            self.tasks[module_key(target)] = task

        # Targets that read the same columns share a fuser.
        self.fuser_of: dict[str, str] = {}
        for target, task in tasks.items():
            if task.fuses:
                self.fuser_of[target] = _fuser_key(task.read(columns))

    @classmethod
    def build(cls, plan: Plan, preprocessing: Preprocessing, training: bool = True) -> MultimodalModel:
        """Build the network of a plan. With `training`, load the weights that training starts from.

        Raises `RecipeError` if components do not fit each other, or if the network does not fit the machine.
        """
        if training:
            check_memory(plan, lambda: cls.build(plan, preprocessing, training=False).parts(plan))
        encoders: dict[str, Encoder] = {}
        for column, modality in preprocessing.inputs.items():
            encoders[column] = build_encoder(modality, plan.columns[column].encoder, column)
        table_columns, column_encoders = _grouped(encoders, plan.model.missing, preprocessing)

        if training:
            for column_encoder in column_encoders.values():
                column_encoder.encoder.begin()

        # A column's tokens are wider than its encoder's where statistics are appended to them.
        widths = {column: encoder.width for column, encoder in encoders.items()}
        for column, column_encoder in column_encoders.items():
            widths[column] = column_encoder.width

        # Several models may share the preprocessing, but not the heads.
        tasks = copy.deepcopy(preprocessing.tasks)
        fusers = _fusers(plan, preprocessing, tasks, widths)
        for task in tasks.values():
            task.build(_task_widths(plan, task, widths, fusers))
            if training:
                task.load_pretrained()
        return cls(list(encoders), column_encoders, table_columns, fusers, tasks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the output of each target: what is trained, served and exported."""
        encoded = self.encode(batch)
        fused = self.fuse(encoded)
        return self.answer(fused, encoded)

    def packed(self, batch: Batch) -> Batch:
        """Leave out absent cells, so that encoders run on present ones only. Call it before `encode`.

        It saves time, and changes no answer. It looks at the batch's masks, and therefore is no part of
        `forward`, which can be exported. On a GPU each look would wait for the GPU: pack before the batch
        moves there. A batch that is packed stays as it is.
        """
        if batch.packed:
            return batch
        values = dict(batch.values)
        for column in self.separate_columns:
            values[column] = values[column].packed(batch.present[column])
        return replace(batch, values=values, packed=True)

    def encode(self, batch: Batch) -> Encoded:
        """Encode each column, with a stand-in token wherever a row lacks its cell."""
        tokens: dict[str, Tokens] = {}
        for group in self.groups:
            tokens |= group(batch.values, batch.present, batch.in_table)
        return Encoded(tokens, batch.present, batch.in_table)

    def fuse(self, encoded: Encoded) -> dict[str, Fused]:
        """Return the fused vector and one vector of each block, for every target of a `Prediction`."""
        fused: dict[str, Fused] = {}
        for key, fuser in self.fusers.items():
            fused[key] = fuser(encoded)
        return {target: fused[key] for target, key in self.fuser_of.items()}

    def answer(self, fused: dict[str, Fused], encoded: Encoded) -> dict[str, Tensor]:
        """Return the output of every task: logits or values, late fusion and baseline included."""
        outputs: dict[str, Tensor] = {}
        for target in self.targets:
            task = self.task(target)
            outputs[target] = task.answer(fused.get(target), encoded)
        return outputs

    def hide(self, encoded: Encoded, masks: Masks) -> Encoded:
        """Return the same rows with stand-in tokens in place of cells that these masks lack."""
        tokens: dict[str, Tokens] = {}
        for group in self.groups:
            tokens |= group.hide(encoded.tokens, masks.present, masks.in_table)
        return Encoded(tokens, masks.present, masks.in_table)

    def keep(self, encoded: Encoded, columns: Collection[str]) -> Encoded:
        """Return the same rows as if their table had these columns only."""
        present = _only(columns, encoded.present)
        in_table = _only(columns, encoded.in_table)
        return self.hide(encoded, Masks(present, in_table))

    @property
    def groups(self) -> list[ColumnGroup]:
        """Every encoder: one for each media column, one for all plain columns."""
        groups: list[ColumnGroup] = []
        if self.table_columns is not None:
            groups.append(self.table_columns)
        for encoder in self.encoders.values():
            groups.append(cast(ColumnEncoder, encoder))
        return groups

    def parts(self, plan: Plan) -> dict[str, nn.Module]:
        """Return the parts of the network, by what users call them in messages."""
        parts: dict[str, nn.Module] = {}
        for column in self.separate_columns:
            encoder = plan.columns[column].encoder.name
            parts[f"the encoder '{encoder}' of column '{column}'"] = self.encoder(column)
        if self.table_columns is not None:
            names = ", ".join(self.table_columns.columns[:5])
            parts[f"the encoder of the plain columns ({names})"] = self.table_columns
        parts[f"the fusion '{plan.fusion.name}'"] = self.fusers
        for target in self.targets:
            parts[f"the {plan.tasks[target].name} of '{target}'"] = self.task(target)
        return parts

    def encoder(self, column: str) -> ColumnEncoder:
        """Return the encoder of one of the columns in `separate_columns`."""
        return cast(ColumnEncoder, self.encoders[module_key(column)])

    @property
    def separate_columns(self) -> list[str]:
        """The columns that have an encoder each. The others share one."""
        return [column for column in self.columns if module_key(column) in self.encoders]

    def task(self, target: str) -> Task:
        """Return the task of a target, with its trained head."""
        return cast(Task, self.tasks[module_key(target)])

    def prediction(self, target: str) -> Prediction:
        """Return the task of a target that is predicted from a fused vector."""
        return cast(Prediction, self.task(target))

    @property
    def tasks_by_target(self) -> dict[str, Task]:
        """The task of each target, with its trained head."""
        return {target: self.task(target) for target in self.targets}

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """The tasks whose losses compare all rows of a batch with each other, by target."""
        return comparisons(self.tasks_by_target)

    @property
    def late_fused(self) -> list[str]:
        """The targets whose answers are mixed with late fusion."""
        return [target for target in self.fuser_of if self.prediction(target).late_fusion is not None]

    def fuser(self, target: str) -> Fuser:
        """Return the fuser that makes the vectors of a target of a `Prediction`."""
        key = self.fuser_of[target]
        return cast(Fuser, self.fusers[key])


def frozen(model: MultimodalModel, plan: Plan) -> dict[str, FrozenEncoder]:
    """Return the encoders that the model's plan says are frozen, by column."""
    encoders = {}
    for column in plan.frozen_columns:
        encoder = model.encoder(column).encoder
        assert isinstance(encoder, FrozenEncoder)
        encoders[column] = encoder
    return encoders


def _only(columns: Collection[str], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks by column that are False everywhere for all but these columns."""
    nowhere_B = torch.zeros_like(next(iter(masks.values())))
    return {column: mask_B if column in columns else nowhere_B for column, mask_B in masks.items()}


def _grouped(
    encoders: dict[str, Encoder], missing: str, preprocessing: Preprocessing
) -> tuple[TableColumns | None, dict[str, ColumnEncoder]]:
    """Put the plain columns into one `TableColumns`, and each other column into a `ColumnEncoder`."""
    with_statistics = preprocessing.measured
    without_statistics = [column for column in encoders if column not in with_statistics]
    table_columns = together(preprocessing, select(encoders, without_statistics), missing)
    in_table_columns = table_columns.columns if table_columns is not None else []

    column_encoders = {}
    for column, encoder in encoders.items():
        if column in in_table_columns:
            continue

        statistics = None
        if column in with_statistics:
            layout = preprocessing.inputs[column].traits_layout()
            assert layout is not None
            statistics = Statistics(layout)
        several = column in preprocessing.several
        column_encoders[column] = ColumnEncoder(column, encoder, missing, several, statistics)
    return table_columns, column_encoders


def _fusers(
    plan: Plan, preprocessing: Preprocessing, tasks: dict[str, Task], widths: dict[str, int]
) -> dict[tuple[str, ...], Fuser]:
    """Build one fuser for each set of columns that a `Prediction` reads."""
    fusion_class, config = fusions.choose(plan.fusion)
    plain = {column for column, modality in preprocessing.inputs.items() if modality.plain}
    has_unimodal_heads = plan.model.unimodal_weight > 0

    fusers: dict[tuple[str, ...], Fuser] = {}
    for task in tasks.values():
        columns = task.read(widths)
        if not task.fuses or columns in fusers:
            continue
        read_widths = select(widths, columns)
        fusion = fusion_class.build(config, read_widths)
        blocks = blocks_of(columns, plain)
        fusers[columns] = Fuser(read_widths, fusion, blocks, has_unimodal_heads)
    return fusers


def _task_widths(
    plan: Plan, task: Task, widths: dict[str, int], fusers: dict[tuple[str, ...], Fuser]
) -> Widths:
    """Return the widths that a task builds its head for.

    `widths` are those of all columns' tokens, `fusers` those of all targets.
    """
    columns = task.read(widths)
    read_widths = select(widths, columns)
    fuser = fusers.get(columns)
    if fuser is None:
        return Widths(fused=0, columns=read_widths)

    late_fusion = bool(fuser.unimodal_blocks) and plan.model.late_fusion
    return Widths(fuser.width, read_widths, list(fuser.blocks), late_fusion)


def _fuser_key(columns: tuple[str, ...]) -> str:
    """Return the key in `MultimodalModel.fusers` of the columns that a fuser reads."""
    return module_key(",".join(columns))
