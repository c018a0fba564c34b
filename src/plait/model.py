"""The model: encode each column, fuse, hand to the tasks. B rows, L tokens, D width."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from plait import components
from plait.batch import Batch, Tokens, Values, place_within
from plait.encoders.base import Encoder
from plait.encoders.tabular import Cells, Tabular
from plait.errors import RecipeError
from plait.fusion.base import Fusion
from plait.layers import MLP, SetAttention, module_key, steps_mask
from plait.modalities.base import Modality
from plait.preprocessing import Preprocessing, configured
from plait.recipe import Choice, Recipe
from plait.statistics import WORDS, Statistics
from plait.tasks.base import Task
from plait.votes import Votes


class MultimodalModel(nn.Module):
    """Encoders by column, or of many plain `cells` at once; what fuses them; tasks by target. Tasks that read the same columns share one
    fused vector."""

    def __init__(
        self, columns: Sequence[str], encoders: dict[str, ColumnEncoder], cells: Cells | None, fused: dict[tuple[str, ...], Fused],
        tasks: dict[str, Task], votes: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.columns, self.targets = list(columns), list(tasks)
        self.encoders, self.cells = nn.ModuleDict({module_key(c): e for c, e in encoders.items()}), cells
        self.fused = nn.ModuleDict({module_key(",".join(columns)): part for columns, part in fused.items()})
        self.tasks = nn.ModuleDict({module_key(t): task for t, task in tasks.items()})
        voting = [t for t, task in tasks.items() if votes and task.fuses and task.logits and self.fused_for(t).solo]
        self.votes = nn.ModuleDict({module_key(t): Votes(list(self.fused_for(t).parts)) for t in voting})
        # targets that nothing is to be hidden from in training: those that have one column of several, and those that compare rows
        self.unhidden = [t for t, task in tasks.items() if task.compares or (len(self.columns) > 1 and len(task.read(self.columns)) == 1)]

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing, training: bool = True) -> MultimodalModel:
        """The untrained model of a resolved recipe; with `training`, with the weights that training begins from.

        Raises `RecipeError` when components do not fit each other.
        """
        built = {c: build_encoder(m, recipe.columns[c].encoder, c) for c, m in preprocessing.inputs.items()}
        statistics = {c: Statistics(preprocessing.inputs[c].layout) for c in with_statistics(preprocessing, built)}
        cells = together(preprocessing, {c: e for c, e in built.items() if c not in statistics}, recipe.model.missing)
        single = [c for c in built if cells is None or c not in cells.columns]
        encoders = {c: ColumnEncoder(built[c], recipe.model.missing, c in preprocessing.several, statistics.get(c)) for c in single}
        for column in encoders.values() if training else ():
            column.encoder.begin()
        fusion, config = configured("fusion", recipe.fusion)
        widths = {c: encoders[c].width if c in encoders else e.width for c, e in built.items()}
        tasks = copy.deepcopy(preprocessing.tasks)  # other models of the same table have heads of their own
        reads = {t: {c: widths[c] for c in task.read(widths)} for t, task in tasks.items()}
        fusions = {tuple(reads[t]): fusion.build(config, reads[t]) for t, task in tasks.items() if task.fuses}
        for t, task in tasks.items():
            task.build_head(fusions[tuple(reads[t])].width if task.fuses else 0, reads[t])
            if training:
                task.load_pretrained()
        plain = {c for c, m in preprocessing.inputs.items() if m.tabular}
        apart = {columns: parts(columns, plain) if recipe.model.alone > 0 else {} for columns in fusions}
        fused = {columns: Fused({c: widths[c] for c in columns}, found, apart[columns]) for columns, found in fusions.items()}
        return cls(list(built), encoders, cells, fused, tasks, recipe.model.votes)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        fused = self.fuse(encoded, batch.present)
        return self.answer(fused, encoded)

    def encode(self, batch: Batch) -> dict[str, Tokens]:
        """Each column's tokens; its learned token in the rows that lack it."""
        found = self.cells(batch.values, batch.present, batch.given or batch.present) if self.cells else {}
        return {c: found[c] if c in found else self.encoder(c)(batch.values[c], batch.present[c]) for c in self.columns}

    def fuse(
        self,
        encoded: dict[str, Tokens],
        present: dict[str, Tensor],
        single: bool = True,
        targets: Sequence[str] | None = None,
        columns: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """For each target (of `targets`) whose task asks for one, the fused vector of each row; see `Fused` for what `single` and `columns` say."""
        keys = {t: self._key(t) for t in (self.targets if targets is None else targets) if self.task(t).fuses}
        found = {key: self.fused[key](encoded, present, single, columns) for key in dict.fromkeys(keys.values())}
        return {t: found[key] for t, key in keys.items()}

    def hide(self, encoded: dict[str, Tokens], present: dict[str, Tensor], columns: Collection[str] | None = None) -> dict[str, Tokens]:
        """The same tokens, with cells hidden that `present` now lacks; those of other columns than `columns` are not there at all."""
        found = self.cells.hide(encoded, present, columns) if self.cells else {}
        return {c: found[c] if c in found else self.encoder(c).hide(tokens, present[c]) for c, tokens in encoded.items()}

    def answer(self, fused: dict[str, Tensor], encoded: dict[str, Tokens], targets: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The outputs of all tasks, or those of `targets`. One that does not fuse is given a vector of no width."""
        nothing_BD = next(iter(encoded.values())).x_BLD[:, 0, :0]
        return {t: self.task(t)(fused.get(t, nothing_BD), encoded) for t in (self.targets if targets is None else targets)}

    def predict_hidden(
        self,
        encoded: dict[str, Tokens],
        present: dict[str, Tensor],
        columns: Collection[str] | None = None,
        own: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """The answers from tokens computed before, of these columns (or all), with cells hidden that `present` now lacks: only fusion and
        heads run. Parts by themselves have a vote (see `Votes`); the `own` answers of single columns are the same whatever is hidden. A row
        that has none of a target's inputs gets the task's guess where no training row has taught what to make of nothing (see `Task.blind`,
        `Fused.knows_empty`)."""
        hidden = self.hide(encoded, present, columns)
        own = self.own(encoded) if own is None else own
        outputs = self.answer(self.fuse(hidden, present, columns=columns), hidden)
        for t, output in outputs.items():
            part, votes = self.fused_for(t) if self.task(t).fuses else None, self.votes_for(t)
            if part is not None and votes is not None and bool(votes.share > 0):
                said = {p: self.task(t)(part.alone(p, hidden), hidden) if len(part.parts[p]) > 1 else own[t][p] for p in part.parts}
                outputs[t] = output = votes.mixed(self.task(t), output, said, part.there(present))
            guess = self.task(t).blind() if self.task(t).guesses and not self._knows_empty(t, columns) else None
            if guess is not None:
                there_B = torch.stack([present[c] for c in self.task(t).read(self.columns)]).any(0)
                outputs[t] = torch.where(there_B.reshape(-1, *(1,) * guess.ndim), output, guess.to(output))
        return outputs

    def own(self, encoded: dict[str, Tokens]) -> dict[str, dict[str, Tensor]]:
        """For each target with votes what each part by itself answers; nothing of meaning where it is missing."""
        fused = {t: self.fused_for(t) for t in self.targets if self.votes_for(t) is not None}
        return {t: {p: self.task(t)(part.alone(p, encoded), encoded) for p in part.parts} for t, part in fused.items()}

    def losses(self, outputs: dict[str, Tensor], targets: dict[str, Tensor], labelled: dict[str, Tensor]) -> dict[str, Tensor]:
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
        return self.fused_for(target).knows_empty(columns) or (self.cells is not None and self.cells.knows_empty(read))

    def _key(self, target: str) -> str:
        return module_key(",".join(self.task(target).read(self.columns)))


TABLE = "\0table"  # the part that all numbers, categories and dates are; the others have their column's name, and no column has a name like this


def parts(columns: Sequence[str], cells: Collection[str]) -> dict[str, list[str]]:
    """The columns of each part: a medium by itself; numbers, categories and dates, which are `cells`, all together."""
    table = [c for c in columns if c in cells]
    found = {c: [c] for c in columns if len(table) < 2 or c not in table}
    return {**found, TABLE: table} if len(table) > 1 else found


class Fused(nn.Module):
    """The fused vector of some columns: a fusion, and for each part, where there are several, a small network of its own (`solo`), which trains the
    encoders of its columns without the other parts, and answers for rows that have nothing else. `empty` has a vector for each part, of what it says
    that a row has none of it, and one for rows that have no cell at all: added to that of a row with one part or none."""

    def __init__(self, widths: dict[str, int], fusion: Fusion, parts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.columns, self.fusion, self.width = list(widths), fusion, fusion.width
        self.parts = {p: list(columns) for p, columns in parts.items()} if len(parts) > 1 else {}
        self.solo = nn.ModuleDict({module_key(p): MLP(sum(widths[c] for c in columns), [fusion.width]) for p, columns in self.parts.items()})
        self.empty = nn.Embedding(len(self.parts) + 1, fusion.width) if self.solo else None
        if self.empty is not None:
            nn.init.zeros_(self.empty.weight)

    def forward(self, encoded: dict[str, Tokens], present: dict[str, Tensor], single: bool = True, columns: Collection[str] | None = None) -> Tensor:
        """The vector of each row. With `single`, that of a row with one part, or none, is what that part's own network makes of it, and the
        empty ones of `columns` (the others are not there at all) say: fusion has seen few such rows, the other has seen them all."""
        fused_BD: Tensor = self.fusion({c: encoded[c] for c in self.columns}, {c: present[c] for c in self.columns})
        if not self.solo or not single:
            return fused_BD
        there = self.there(present)
        there_BP = torch.stack(list(there.values()), 1)
        few_B = there_BP.sum(1) <= 1
        if not bool(few_B.any()):
            return fused_BD
        given_P = torch.tensor(self._given(columns), device=there_BP.device)
        few_BD = self.said_by_empty(~there_BP & given_P, ~there_BP.any(1)).to(fused_BD.dtype)
        for p, there_B in there.items():
            few_BD = few_BD + torch.where((few_B & there_B)[:, None], self.alone(p, encoded).to(fused_BD.dtype), 0)
        return torch.where(few_B[:, None], few_BD, fused_BD)

    def there(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In which rows each part has a cell."""
        return {
            p: torch.stack([present[c] for c in columns]).any(0) if len(columns) > 1 else present[columns[0]] for p, columns in self.parts.items()
        }

    def alone(self, part: str, encoded: Mapping[str, Tokens]) -> Tensor:
        """The vector of one part by itself."""
        return cast(Tensor, self.solo[module_key(part)](torch.cat([encoded[c].pooled_BD() for c in self.parts[part]], 1)))

    def said_by_empty(self, empty_BP: Tensor, nothing_B: Tensor) -> Tensor:
        """The sum of what the empty parts of each row say, and that there is nothing else where that is so."""
        assert self.empty is not None
        weight = self.empty.weight
        return torch.cat([empty_BP, nothing_B[:, None]], 1).to(weight.dtype) @ weight

    def knows_empty(self, columns: Collection[str] | None = None) -> bool:
        """Whether training rows have taught what it says that a part of these columns is empty: its vector is no longer zero."""
        if self.empty is None:
            return False
        at = [i for i, given in enumerate(self._given(columns)) if given]
        return bool((self.empty.weight[at] != 0).any())

    def _given(self, columns: Collection[str] | None) -> list[bool]:
        """Whether each part has one of these columns."""
        return [columns is None or any(c in columns for c in own) for own in self.parts.values()]


class ColumnEncoder(nn.Module):
    """One column's encoder, run on the rows that have the column, and the token that stands in for it in the others: a learned one, behind a
    frozen encoder one drawn by lot, as long as what such encoders make of cells.

    Where cells are lists of media (`several`), attention makes one token of each row's set. With `statistics` each token also holds these
    numbers of the whole cell, behind what the encoder makes of it.
    """

    def __init__(self, encoder: Encoder, missing: str, several: bool = False, statistics: Statistics | None = None) -> None:
        super().__init__()
        self.encoder, self.statistics = encoder, statistics
        self.width = encoder.width + (statistics.width if statistics else 0)
        self.attention = SetAttention(self.width) if several else None
        self.missing_D: Tensor
        if missing == "learned" and self.fixed == 0:  # the layers behind learn to know it; so nothing in a vector needs a gradient
            self.register_buffer("missing_D", torch.randn(self.width))
        elif missing == "learned":
            self.missing_D = nn.Parameter(torch.randn(self.width) * 0.02)
        else:
            self.register_buffer("missing_D", torch.zeros(self.width), persistent=False)

    @property
    def fixed(self) -> int | None:
        """From where on in a token training changes nothing: 0 for a frozen encoder, behind the encoder's part with statistics."""
        return 0 if hasattr(self.encoder, "embed") else self.encoder.width if self.statistics else None

    def forward(self, values: Values, present_B: Tensor) -> Tokens:
        if bool(present_B.all()):
            return self._encode(values)
        if values.encoded and values.count_B is None:  # hiding them costs less than picking the others
            return self.hide(self._encode(values), present_B)
        rows = present_B.nonzero()[:, 0]
        if not len(rows):
            x_BLD = self.missing_D.expand(len(present_B), 1, -1)
            return Tokens(x_BLD, torch.zeros(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device))
        some = self._encode(values.take(rows))
        x_BLD = self.missing_D.to(some.x_BLD.dtype).expand(len(present_B), some.x_BLD.shape[1], -1)
        mask_BL = torch.zeros(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
        return Tokens(x_BLD.index_copy(0, rows, some.x_BLD), mask_BL.index_copy(0, rows, some.mask_BL))

    def _encode(self, values: Values) -> Tokens:
        """The encoder's tokens; of a list of media, one for the set (see `_of_sets`). One that was learned on single media and
        meets a list, or windows of a long one, gets the tokens of all of them side by side."""
        found: Tokens = self.encoder(replace(values, count_B=None))
        if self.statistics is not None:
            numbers_B1D = self.statistics(values).to(found.x_BLD.dtype)[:, None]
            found = Tokens(torch.cat([found.x_BLD, numbers_B1D.expand(-1, found.x_BLD.shape[1], -1)], -1), found.mask_BL)
        if self.attention is not None:
            return self._of_sets(found, values.count_B)
        if values.count_B is None:
            return found
        count_B, (_, length, width) = values.count_B, found.x_BLD.shape
        at = (torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B), place_within(count_B))
        x_BKLD = found.x_BLD.new_zeros(len(count_B), int(count_B.max()), length, width).index_put(at, found.x_BLD)
        mask_BKL = found.mask_BL.new_zeros(x_BKLD.shape[:3]).index_put(at, found.mask_BL)
        return Tokens(x_BKLD.flatten(1, 2), mask_BKL.flatten(1, 2))

    def _of_sets(self, found: Tokens, count_B: Tensor | None) -> Tokens:
        assert self.attention is not None
        pooled_ND = found.pooled_BD()
        count_B = torch.ones(len(pooled_ND), dtype=torch.long, device=pooled_ND.device) if count_B is None else count_B
        at = (torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B), place_within(count_B))
        x_BKD = pooled_ND.new_zeros(len(count_B), int(count_B.max()), pooled_ND.shape[1]).index_put(at, pooled_ND)
        x_B1D = self.attention(x_BKD, steps_mask(x_BKD.shape[1], count_B))[:, None]
        return Tokens(x_B1D, torch.ones(x_B1D.shape[:2], dtype=torch.bool, device=x_B1D.device))

    def hide(self, tokens: Tokens, present_B: Tensor) -> Tokens:
        """The tokens with the learned one in every row that is not present."""
        rows, x_BLD = (~present_B).nonzero()[:, 0], tokens.x_BLD
        if len(rows):  # many times faster than `torch.where`
            x_BLD = x_BLD.index_copy(0, rows, self.missing_D.to(x_BLD.dtype).expand(len(rows), *x_BLD.shape[1:]))
        return Tokens(x_BLD, tokens.mask_BL & present_B[:, None])


def together(preprocessing: Preprocessing, encoders: Mapping[str, Encoder], missing: str) -> Cells | None:
    """One encoder for all plain cells of a row whose own are alike; none where that is one column or none."""
    plain = {c: e for c, e in encoders.items() if preprocessing.inputs[c].tabular and c not in preprocessing.several}
    found = {c: e for c, e in plain.items() if isinstance(e, Tabular) and e.plain}
    ((usual, _),) = Counter(e.width for e in found.values()).most_common(1) or [(0, 0)]
    found = {c: e for c, e in found.items() if e.width == usual}
    return Cells(found, missing) if len(found) > 1 else None


def with_statistics(preprocessing: Preprocessing, encoders: Mapping[str, Encoder]) -> set[str]:
    """The columns whose tokens are to hold statistics of the cell, for an alignment to begin at: those that one compares, and whose encoders begin
    from nothing. Where two of its columns have pretrained encoders, texts only: their n-grams say much, mean spectra and the like little
    beside pretrained vectors, which they would only disturb."""
    found = set()
    for task in (task for task in preprocessing.tasks.values() if task.compares):
        columns = task.read(preprocessing.inputs)
        known = sum(encoders[c].pretrained for c in columns)
        for c in (c for c in columns if not encoders[c].pretrained and c not in preprocessing.several):
            layout = preprocessing.inputs[c].layout
            if Statistics.known_for(layout) and (known < 2 or layout.kind in WORDS):
                found.add(c)
    return found


def build_encoder(modality: Modality, choice: Choice | None, column: str) -> Encoder:
    """The encoder that the recipe chose for a column. Raises `RecipeError` when it cannot read the modality's layout."""
    assert choice is not None
    encoder, config = configured("encoders", choice)
    if modality.layout.kind not in encoder.takes:
        fitting = [n for n in components.names("encoders") if modality.layout.kind in components.find("encoders", n).takes]
        raise RecipeError(
            f"column '{column}': encoder '{choice.name}' takes {', '.join(sorted(encoder.takes))}, "
            f"but {type(modality).__name__.lower()} gives {modality.layout.kind}; use {' or '.join(fitting)}"
        )
    built: Encoder = encoder.build(config, modality.layout)
    return built
