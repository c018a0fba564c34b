"""The model: encode each column, fuse, hand to the tasks. B rows, L tokens, D width."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plait.data.plan import Plan
from plait.data.preprocessing import Preprocessing, configured
from plait.encoders.base import Encoder
from plait.model.column import ColumnEncoder, build_encoder, with_statistics
from plait.model.fused import Fused, parts
from plait.model.late_fusion import Votes
from plait.model.table_columns import Cells, together
from plait.nn.batch import Batch, Tokens
from plait.nn.layers import module_key
from plait.nn.summaries import Statistics
from plait.tasks.base import Task


def frozen(model: MultimodalModel) -> dict[str, Encoder]:
    """The frozen encoders, by column."""
    return {
        c: model.encoder(c).encoder for c in model.encoded_alone if hasattr(model.encoder(c).encoder, "embed")
    }


class MultimodalModel(nn.Module):
    """Encoders by column, or of many plain `cells` at once; what fuses them; tasks by target. Tasks
    that read the same columns share one fused vector.
    """

    def __init__(
        self,
        columns: Sequence[str],
        encoders: dict[str, ColumnEncoder],
        cells: Cells | None,
        fused: dict[tuple[str, ...], Fused],
        tasks: dict[str, Task],
        votes: bool = True,
    ) -> None:
        super().__init__()
        self.columns, self.targets = list(columns), list(tasks)
        self.encoders, self.cells = nn.ModuleDict({module_key(c): e for c, e in encoders.items()}), cells
        self.fused = nn.ModuleDict({module_key(",".join(columns)): part for columns, part in fused.items()})
        self.tasks = nn.ModuleDict({module_key(t): task for t, task in tasks.items()})
        voting = [
            t for t, task in tasks.items() if votes and task.fuses and task.logits and self.fused_for(t).solo
        ]
        self.votes = nn.ModuleDict({module_key(t): Votes(list(self.fused_for(t).parts)) for t in voting})
        # targets that nothing is to be hidden from in training: those that have one column of several,
        # and those that compare rows
        self.unhidden = [
            t
            for t, task in tasks.items()
            if task.compares or (len(self.columns) > 1 and len(task.read(self.columns)) == 1)
        ]

    @classmethod
    def build(cls, plan: Plan, preprocessing: Preprocessing, training: bool = True) -> MultimodalModel:
        """The untrained model of a plan; with `training`, with the weights that training
        begins from.

        Raises `RecipeError` when components do not fit each other.
        """
        built = {c: build_encoder(m, plan.columns[c].encoder, c) for c, m in preprocessing.inputs.items()}
        statistics = {
            c: Statistics(preprocessing.inputs[c].layout) for c in with_statistics(preprocessing, built)
        }
        cells = together(
            preprocessing, {c: e for c, e in built.items() if c not in statistics}, plan.model.missing
        )
        single = [c for c in built if cells is None or c not in cells.columns]
        encoders = {
            c: ColumnEncoder(built[c], plan.model.missing, c in preprocessing.several, statistics.get(c))
            for c in single
        }
        for column in encoders.values() if training else ():
            column.encoder.begin()
        fusion, config = configured("fusion", plan.fusion)
        widths = {c: encoders[c].width if c in encoders else e.width for c, e in built.items()}
        tasks = copy.deepcopy(preprocessing.tasks)  # other models of the same table have heads of their own
        reads = {t: {c: widths[c] for c in task.read(widths)} for t, task in tasks.items()}
        fusions = {tuple(reads[t]): fusion.build(config, reads[t]) for t, task in tasks.items() if task.fuses}
        for t, task in tasks.items():
            task.build_head(fusions[tuple(reads[t])].width if task.fuses else 0, reads[t])
            if training:
                task.load_pretrained()
        plain = {c for c, m in preprocessing.inputs.items() if m.tabular}
        apart = {columns: parts(columns, plain) if plan.model.alone > 0 else {} for columns in fusions}
        fused = {
            columns: Fused({c: widths[c] for c in columns}, found, apart[columns])
            for columns, found in fusions.items()
        }
        return cls(list(built), encoders, cells, fused, tasks, plan.model.votes)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        fused = self.fuse(encoded, batch.present)
        return self.answer(fused, encoded)

    def encode(self, batch: Batch) -> dict[str, Tokens]:
        """Each column's tokens; its learned token in the rows that lack it."""
        found = self.cells(batch.values, batch.present, batch.given or batch.present) if self.cells else {}
        return {
            c: found[c] if c in found else self.encoder(c)(batch.values[c], batch.present[c])
            for c in self.columns
        }

    def fuse(
        self,
        encoded: dict[str, Tokens],
        present: dict[str, Tensor],
        single: bool = True,
        targets: Sequence[str] | None = None,
        columns: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """For each target (of `targets`) whose task asks for one, the fused vector of each row; see
        `Fused` for what `single` and `columns` say.
        """
        keys = {t: self._key(t) for t in (self.targets if targets is None else targets) if self.task(t).fuses}
        found = {
            key: self.fused[key](encoded, present, single, columns) for key in dict.fromkeys(keys.values())
        }
        return {t: found[key] for t, key in keys.items()}

    def hide(
        self, encoded: dict[str, Tokens], present: dict[str, Tensor], columns: Collection[str] | None = None
    ) -> dict[str, Tokens]:
        """The same tokens, with cells hidden that `present` now lacks; those of other columns than
        `columns` are not there at all.
        """
        found = self.cells.hide(encoded, present, columns) if self.cells else {}
        return {
            c: found[c] if c in found else self.encoder(c).hide(tokens, present[c])
            for c, tokens in encoded.items()
        }

    def answer(
        self, fused: dict[str, Tensor], encoded: dict[str, Tokens], targets: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """The outputs of all tasks, or those of `targets`. One that does not fuse is given a vector of
        no width.
        """
        nothing_BD = next(iter(encoded.values())).x_BLD[:, 0, :0]
        return {
            t: self.task(t)(fused.get(t, nothing_BD), encoded)
            for t in (self.targets if targets is None else targets)
        }

    def predict_hidden(
        self,
        encoded: dict[str, Tokens],
        present: dict[str, Tensor],
        columns: Collection[str] | None = None,
        own: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """The answers from tokens computed before, of these columns (or all), with cells hidden that
        `present` now lacks: only fusion and heads run. Parts by themselves have a vote (see `Votes`);
        the `own` answers of single columns are the same whatever is hidden. A row that has none of a
        target's inputs gets the task's guess where no training row has taught what to make of nothing
        (see `Task.blind`, `Fused.knows_empty`).
        """
        hidden = self.hide(encoded, present, columns)
        own = self.own(encoded) if own is None else own
        outputs = self.answer(self.fuse(hidden, present, columns=columns), hidden)
        for t, output in outputs.items():
            part, votes = self.fused_for(t) if self.task(t).fuses else None, self.votes_for(t)
            if part is not None and votes is not None and bool(votes.share > 0):
                said = {
                    p: self.task(t)(part.alone(p, hidden), hidden) if len(part.parts[p]) > 1 else own[t][p]
                    for p in part.parts
                }
                outputs[t] = output = votes.mixed(self.task(t), output, said, part.there(present))
            guess = (
                self.task(t).blind() if self.task(t).guesses and not self._knows_empty(t, columns) else None
            )
            if guess is not None:
                there_B = torch.stack([present[c] for c in self.task(t).read(self.columns)]).any(0)
                outputs[t] = torch.where(there_B.reshape(-1, *(1,) * guess.ndim), output, guess.to(output))
        return outputs

    def own(self, encoded: dict[str, Tokens]) -> dict[str, dict[str, Tensor]]:
        """For each target with votes what each part by itself answers; nothing of meaning where it is
        missing.
        """
        fused = {t: self.fused_for(t) for t in self.targets if self.votes_for(t) is not None}
        return {
            t: {p: self.task(t)(part.alone(p, encoded), encoded) for p in part.parts}
            for t, part in fused.items()
        }

    def losses(
        self, outputs: dict[str, Tensor], targets: dict[str, Tensor], labelled: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The losses of the tasks that `outputs` has, each the mean over its labelled rows."""
        return {t: self.task(t).loss(output, targets[t], labelled[t]) for t, output in outputs.items()}

    def encoder(self, column: str) -> ColumnEncoder:
        """That of a column which is not one of `cells`."""
        return cast(ColumnEncoder, self.encoders[module_key(column)])

    @property
    def encoded_alone(self) -> list[str]:
        """The columns that have an encoder of their own."""
        return [c for c in self.columns if module_key(c) in self.encoders]

    def task(self, target: str) -> Task:
        return cast(Task, self.tasks[module_key(target)])

    def fused_for(self, target: str) -> Fused:
        """What makes the vector that this target is answered from."""
        return cast(Fused, self.fused[self._key(target)])

    def votes_for(self, target: str) -> Votes | None:
        """The votes of the parts by themselves, where they have any."""
        return cast(Votes, self.votes[module_key(target)]) if module_key(target) in self.votes else None

    def _knows_empty(self, target: str, columns: Collection[str] | None) -> bool:
        """Whether training has taught what empty cells of these columns say of a target."""
        read = [c for c in self.task(target).read(self.columns) if columns is None or c in columns]
        return self.fused_for(target).knows_empty(columns) or (
            self.cells is not None and self.cells.knows_empty(read)
        )

    def _key(self, target: str) -> str:
        return module_key(",".join(self.task(target).read(self.columns)))
