"""The network: encode each column, fuse, answer each target. B rows, L tokens, D width."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing
from plait.encoders.base import Encoder, FrozenEncoder
from plait.fusion.base import fusions
from plait.model.column import ColumnEncoder, build_encoder, columns_with_statistics
from plait.model.fused import Fuser, blocks_of
from plait.model.stand_in import StandIn
from plait.model.table_columns import TableColumns, together
from plait.nn.batch import Batch, Encoded, Fused, Masks, Tokens, Values
from plait.nn.layers import module_key
from plait.nn.summaries import Statistics
from plait.tasks.base import Task, Widths
from plait.tasks.base_comparison import Comparison
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

    Validation, prediction and export call `forward`. Training and the evaluation of subsets of the
    columns compose the same three steps: a subset is `answer(fuse(keep(encoded, columns)), ...)`.
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
        self.columns, self.targets = list(columns), list(tasks)
        self.encoders = nn.ModuleDict({module_key(column): e for column, e in encoders.items()})
        self.table_columns = table_columns
        self.fusers = nn.ModuleDict({_key(columns): fuser for columns, fuser in fusers.items()})
        self.tasks = nn.ModuleDict({module_key(target): task for target, task in tasks.items()})

        # Targets that read the same columns share a fuser.
        self.fuser_of = {
            t: _key(task.read(columns)) for t, task in tasks.items() if isinstance(task, Prediction)
        }

    @classmethod
    def build(cls, plan: Plan, preprocessing: Preprocessing, training: bool = True) -> MultimodalModel:
        """Build the network of a resolved plan. With `training`, load the weights that training
        starts from.

        Raises `RecipeError` when components do not fit each other.
        """
        built = {c: build_encoder(m, plan.columns[c].encoder, c) for c, m in preprocessing.inputs.items()}
        table_columns, encoders = _grouped(built, plan.model.missing, preprocessing)
        for encoder in encoders.values() if training else ():
            encoder.encoder.begin()
        widths = {column: encoder.width for column, encoder in (built | encoders).items()}

        # Other models of the same table have heads of their own.
        tasks = copy.deepcopy(preprocessing.tasks)
        fusers = _fusers(plan, preprocessing, tasks, widths)
        for task in tasks.values():
            columns = task.read(widths)
            task.build(_task_widths(plan, {c: widths[c] for c in columns}, fusers.get(columns)))
            if training:
                task.load_pretrained()
        return cls(list(built), encoders, table_columns, fusers, tasks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the output of each target: what is trained, served and exported."""
        encoded = self.encode(batch)
        fused = self.fuse(encoded)
        return self.answer(fused, encoded)

    def encode(self, batch: Batch) -> Encoded:
        """Encode each column, with a stand-in token wherever a row lacks its cell."""
        tokens: dict[str, Tokens] = {}
        for group in self.groups:
            tokens |= group(batch.values, batch.present, batch.in_table)
        return Encoded(tokens, batch.present, batch.in_table)

    def fuse(self, encoded: Encoded) -> dict[str, Fused]:
        """Return the fused vector, and one vector of each block, for every target that is predicted
        from them.
        """
        by_columns = {key: cast(Fused, fuser(encoded)) for key, fuser in self.fusers.items()}
        return {target: by_columns[key] for target, key in self.fuser_of.items()}

    def answer(self, fused: dict[str, Fused], encoded: Encoded) -> dict[str, Tensor]:
        """Return the output of every task: logits or values, late fusion and baseline included."""
        return {target: self.task(target).answer(fused.get(target), encoded) for target in self.targets}

    def hide(self, encoded: Encoded, masks: Masks) -> Encoded:
        """Return the same rows with stand-in tokens in place of cells that these masks lack."""
        tokens: dict[str, Tokens] = {}
        for group in self.groups:
            tokens |= group.hide(encoded.tokens, masks.present, masks.in_table)
        return Encoded(tokens, masks.present, masks.in_table)

    def keep(self, encoded: Encoded, columns: Collection[str]) -> Encoded:
        """Return the same rows as if their table had these columns only."""
        absent_B = torch.zeros_like(next(iter(encoded.present.values())))
        present = {c: p if c in columns else absent_B for c, p in encoded.present.items()}
        in_table = {c: t if c in columns else absent_B for c, t in encoded.in_table.items()}
        return self.hide(encoded, Masks(present, in_table))

    @property
    def groups(self) -> list[ColumnGroup]:
        """Every encoder: one for each media column, one for all plain columns."""
        groups = [cast(ColumnGroup, encoder) for encoder in self.encoders.values()]
        return groups if self.table_columns is None else [self.table_columns, *groups]

    def encoder(self, column: str) -> ColumnEncoder:
        """Return the encoder of a column that has its own."""
        return cast(ColumnEncoder, self.encoders[module_key(column)])

    @property
    def encoded_alone(self) -> list[str]:
        """The columns that have an encoder of their own."""
        return [column for column in self.columns if module_key(column) in self.encoders]

    def task(self, target: str) -> Task:
        """Return the task of a target, with its trained head."""
        return cast(Task, self.tasks[module_key(target)])

    def prediction(self, target: str) -> Prediction:
        """Return the task of a target that is predicted from a fused vector."""
        return cast(Prediction, self.task(target))

    @property
    def comparisons(self) -> list[str]:
        """The targets whose losses compare all rows of a batch with each other."""
        return [target for target in self.targets if isinstance(self.task(target), Comparison)]

    def fuser(self, target: str) -> Fuser:
        """Return what makes the vectors that a target is predicted from."""
        return cast(Fuser, self.fusers[self.fuser_of[target]])


def frozen(model: MultimodalModel, plan: Plan) -> dict[str, FrozenEncoder]:
    """Return the encoders that the model's plan says are frozen, by column."""
    encoders = {}
    for column in plan.frozen_columns:
        encoder = model.encoder(column).encoder
        assert isinstance(encoder, FrozenEncoder)
        encoders[column] = encoder
    return encoders


def _grouped(
    built: dict[str, Encoder], missing: str, preprocessing: Preprocessing
) -> tuple[TableColumns | None, dict[str, ColumnEncoder]]:
    """Put the plain columns into one encoder, and give each other column one of its own."""
    with_statistics = columns_with_statistics(preprocessing, built)
    plain = {column: encoder for column, encoder in built.items() if column not in with_statistics}
    table_columns = together(preprocessing, plain, missing)
    encoders = {}
    for column, encoder in built.items():
        if table_columns is not None and column in table_columns.columns:
            continue
        layout = preprocessing.inputs[column].layout
        statistics = Statistics(layout) if column in with_statistics else None
        encoders[column] = ColumnEncoder(
            column,
            encoder,
            missing,
            several=column in preprocessing.several,
            statistics=statistics,
        )
    return table_columns, encoders


def _fusers(
    plan: Plan, preprocessing: Preprocessing, tasks: dict[str, Task], widths: dict[str, int]
) -> dict[tuple[str, ...], Fuser]:
    """Build a fuser for each set of columns that predictions are made from."""
    fusion, config = fusions.choose(plan.fusion)
    plain = {column for column, modality in preprocessing.inputs.items() if modality.tabular}
    fusers: dict[tuple[str, ...], Fuser] = {}
    for task in tasks.values():
        columns = task.read(widths)
        if isinstance(task, Prediction) and columns not in fusers:
            read = {column: widths[column] for column in columns}
            blocks = blocks_of(columns, plain)
            fusers[columns] = Fuser(read, fusion.build(config, read), blocks, plan.model.unimodal_weight > 0)
    return fusers


def _task_widths(plan: Plan, columns: dict[str, int], fuser: Fuser | None) -> Widths:
    """Return the sizes from which a task builds its head. A comparison has no fuser."""
    if fuser is None:
        return Widths(fused=0, columns=columns, blocks=[], late_fusion=False)
    late_fusion = bool(fuser.unimodal_blocks and plan.model.late_fusion)
    return Widths(fused=fuser.width, columns=columns, blocks=list(fuser.blocks), late_fusion=late_fusion)


def _key(columns: tuple[str, ...]) -> str:
    return module_key(",".join(columns))
