"""The model: encode each column, fuse, hand to the tasks. B rows, L tokens, D width."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from plait import components
from plait.batch import Batch, Tokens, Values, place_within
from plait.components import Options
from plait.encoders.base import Encoder
from plait.errors import RecipeError
from plait.fusion.base import Fusion
from plait.layers import MLP, SetAttention, module_key, steps_mask
from plait.modalities.base import Modality
from plait.preprocessing import Preprocessing, configured
from plait.recipe import Choice, Recipe
from plait.tasks.base import Task


class MultimodalModel(nn.Module):
    """Encoders by column, one fusion, tasks by target; and for each column a small network of its own (`solo`), which trains the
    column's encoder by itself, and answers for rows that have nothing else."""

    def __init__(self, encoders: dict[str, ColumnEncoder], fusion: Fusion, tasks: dict[str, Task], alone: bool = False) -> None:
        super().__init__()
        self.columns = list(encoders)
        self.targets = list(tasks)
        self.encoders = nn.ModuleDict({module_key(c): e for c, e in encoders.items()})
        self.fusion = fusion
        self.tasks = nn.ModuleDict({module_key(t): task for t, task in tasks.items()})
        self.solo = nn.ModuleDict({module_key(c): MLP(e.encoder.width, [fusion.width]) for c, e in encoders.items() if alone})

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing, training: bool = True) -> MultimodalModel:
        """The untrained model of a resolved recipe; with `training`, with the weights that training begins from.

        Raises `RecipeError` when components do not fit each other.
        """
        encoders = {
            c: ColumnEncoder(build_encoder(m, recipe.columns[c].encoder, c), recipe.model.missing, c in preprocessing.several)
            for c, m in preprocessing.inputs.items()
        }
        for column in encoders.values() if training else ():
            column.encoder.begin()
        fusion, config = configured("fusion", recipe.fusion)
        widths = {c: e.encoder.width for c, e in encoders.items()}
        tasks = copy.deepcopy(preprocessing.tasks)  # other models of the same table have heads of their own
        model_fusion = fusion.build(config, widths) if any(task.fuses for task in tasks.values()) else Unfused()
        for task in tasks.values():
            task.build_head(model_fusion.width, widths)
        return cls(encoders, model_fusion, tasks, alone=recipe.model.alone > 0 and len(encoders) > 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch)
        fused_BD = self.fuse(encoded, batch.present)
        return {t: self.task(t)(fused_BD, encoded) for t in self.targets}

    def encode(self, batch: Batch) -> dict[str, Tokens]:
        """Each column's tokens; its learned token in the rows that lack it."""
        return {c: self.encoder(c)(batch.values[c], batch.present[c]) for c in self.columns}

    def fuse(self, encoded: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        """The fused vector of each row; of a row with one column only, what that column's own network makes of it: fusion has seen
        few such rows, the other has seen them all."""
        fused_BD: Tensor = self.fusion(encoded, present)
        if not self.solo:
            return fused_BD
        single_B = torch.stack(list(present.values())).sum(0) == 1
        for c in self.columns if bool(single_B.any()) else ():
            solo_BD = self.solo[module_key(c)](encoded[c].pooled_BD()).to(fused_BD.dtype)
            fused_BD = torch.where((single_B & present[c])[:, None], solo_BD, fused_BD)
        return fused_BD

    def predict_hidden(self, encoded: dict[str, Tokens], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs from tokens computed before, with the columns hidden that `present` now lacks: only fusion and heads run."""
        hidden = {c: self.encoder(c).hide(tokens, present[c]) for c, tokens in encoded.items()}
        fused_BD = self.fuse(hidden, present)
        return {t: self.task(t)(fused_BD, hidden) for t in self.targets}

    def loss(self, outputs: dict[str, Tensor], targets: dict[str, Tensor], labelled: dict[str, Tensor]) -> Tensor:
        """The sum of the losses of the tasks that `outputs` has, each the mean over its labelled rows."""
        losses = [self.task(t).loss(output, targets[t], labelled[t]) for t, output in outputs.items()]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total

    def encoder(self, column: str) -> ColumnEncoder:
        return cast(ColumnEncoder, self.encoders[module_key(column)])

    def task(self, target: str) -> Task:
        return cast(Task, self.tasks[module_key(target)])


class Unfused(Fusion):
    """A vector of no width, where no task asks for a fused one."""

    options = Options
    width = 0

    @classmethod
    def build(cls, config: Options, widths: dict[str, int]) -> Unfused:
        return cls()

    def forward(self, tokens: dict[str, Tokens], present: dict[str, Tensor]) -> Tensor:
        x_BLD = next(iter(tokens.values())).x_BLD
        return x_BLD.new_zeros(len(x_BLD), 0)


class ColumnEncoder(nn.Module):
    """One column's encoder, run on the rows that have the column, and the token that stands in for it in the others.

    Where cells are lists of media (`several`), attention makes one token of each row's set.
    """

    def __init__(self, encoder: Encoder, missing: str, several: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = SetAttention(encoder.width) if several else None
        self.missing_D: Tensor
        if missing == "learned":
            self.missing_D = nn.Parameter(torch.randn(encoder.width) * 0.02)
        else:
            self.register_buffer("missing_D", torch.zeros(encoder.width), persistent=False)

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
        x_BLD = torch.where(present_B[:, None, None], tokens.x_BLD, self.missing_D.to(tokens.x_BLD.dtype))
        return Tokens(x_BLD, tokens.mask_BL & present_B[:, None])


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
