"""What goes with what: two or more columns of any modality in one space, where what belongs to one row
lies close together.

B rows, K columns, D width of the space.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import module_key
from plait.recipe.sections import COMPARED, Between, Choices
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.aligning import ranking
from plait.tasks.aligning.linear_start import Projection, linear_maps
from plait.tasks.aligning.losses import info_nce, multilinear, same, siglip, volume
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.base import Outputs, TaskOptions, masked_mean
from plait.tasks.base_comparison import Comparison

PAIRWISE = ("infonce", "siglip")


SHARES = (
    0.5,
    0.0,
    0.25,
    0.75,
    0.9,
)  # the first of those that do equally well is taken; not 1: not every column has a map


MEASURED = 4000  # rows that an epoch is scored by


HOTTEST = math.log(100.0)  # as in CLIP: the scale of logits is never more


class Config(TaskOptions):
    """`inputs` are the columns; all pictures, texts, sounds and clips if left out. `objective` compares
    them two by two (`infonce`, `siglip`) or all at once (`gram`, `symile`). With an `anchor` the others
    are compared with that column only (ImageBind, Girdhar et al. 2023; in `gram`, the paper's anchor);
    without, each column with each, and in `gram` and `symile` each column is the anchor in turn.

    Rows that have the same cell in any of the columns, or the same `group`, are not each other's
    negatives. `bank` keeps so many vectors of earlier rows of each column as negatives besides (Wang et
    al. 2020, "Cross-batch memory"; two-by-two objectives). `hardness` weighs hard negatives more
    (`infonce`, Robinson et al. 2021). `hidden` of 0 makes the projections linear.
    """

    objective: Literal["infonce", "siglip", "gram", "symile"] = "infonce"
    anchor: str | None = None
    group: str | None = None
    width: int = Field(256, ge=2)
    hidden: int = Field(512, ge=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0, description="where the learned temperature begins")
    bank: int = Field(0, ge=0)
    hardness: float = Field(0.0, ge=0)


class Alignment(Comparison):
    """Its target are the rows themselves: a number for each different cell of each column, and for each
    group.

    The output has a row's vectors of length 1, (B, K, D), and zeros where the row lacks the column.
    They are made of the mean of a cell's tokens and of the logarithm of their number: how long a
    recording is tells much of what is said in it, and no mean knows it.

    Where projections began at linear maps, these have a `share` in what a trained model makes of a
    cell: vectors then have twice the width, the square root of the share times what the map makes, and
    that of the rest times what was learned, so that a cosine is the weighted mean of both. Training
    does not see it; validation rows choose it.
    """

    options = Config
    metrics = dict(ranking.METRICS)
    score = "mrr"
    higher = True
    tunes = {
        "dropout": Between(low=0.0, high=0.6),
        "temperature": Between(low=0.02, high=0.2, log=True),
        "width": Choices(choices=(128, 256, 512)),
        "hidden": Choices(choices=(0, 256, 512)),
    }

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.columns = config, list(config.inputs)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        self.bias = nn.Parameter(
            torch.tensor(-10.0 if config.objective == "siglip" else 0.0),
            requires_grad=config.objective == "siglip",
        )
        # beginning at ones over the square root of the width, as long as a vector of the space
        neutral_KD = torch.full((len(self.columns), config.width), config.width**-0.5)
        self.neutral_KD = nn.Parameter(neutral_KD, requires_grad=config.objective == "symile")
        self.share: Tensor
        self.bank_x: Tensor
        self.bank_ids: Tensor
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("bank_x", torch.zeros(config.bank, len(self.columns), config.width))
        self.register_buffer("bank_ids", torch.full((config.bank, len(self.columns) + 1), -1))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        return None  # no column is its target

    @classmethod
    def reads(cls, config: Config, name: str) -> list[str]:
        return [*config.inputs, *([config.group] if config.group else [])]

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Alignment:
        present = [
            field(cells, i).is_valid().to_numpy(zero_copy_only=False) for i in range(len(config.inputs))
        ]
        if int((np.sum(present, axis=0) > 1).sum()) < 2:
            raise TrainingError(
                f"task '{name}': expected two or more training rows that have at least two of "
                f"{', '.join(config.inputs)}, found fewer"
            )
        return cls(config)

    def build_head(self, widths: dict[str, int]) -> None:
        config = self.config
        self.heads = nn.ModuleDict()
        for c in self.columns:
            self.heads[module_key(c)] = Projection(widths[c] + 1, config.hidden, config.width, config.dropout)

    def begin(self, encoded: Mapping[str, Iterable[Tokens]], starts: Mapping[str, int]) -> None:
        """Sets where the projections of these columns begin, from batches of training rows' tokens,
        which training does not change from `starts` on: see `projections.linear_maps`.
        """
        vectors, have = {}, {}
        for c, batches in encoded.items():
            parts = [
                (self._summary(tokens)[:, starts[c] :].float(), tokens.mask_BL.any(1)) for tokens in batches
            ]
            vectors[c], have[c] = (torch.cat(some).numpy() for some in zip(*parts, strict=True))
        for c, (weight, bias) in linear_maps(vectors, have, self.config.width).items():
            self.heads[module_key(c)].begin(weight, bias, starts[c])  # type: ignore[operator]
        if self.config.objective in PAIRWISE:
            self.share.fill_(0.5)

    @property
    def width(self) -> int:
        """Of a trained model's vectors."""
        return self.config.width * (2 if self.share > 0 else 1)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by: one over the learned temperature."""
        return self.log_scale.clamp(max=HOTTEST).exp()

    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Chooses the share of the linear maps by the mean reciprocal rank on validation rows, given
        with the share as it is.
        """
        if not self.share > 0:
            return
        fixed, learned = (
            F.normalize(part, dim=-1).numpy() for part in outputs.output.split(self.config.width, -1)
        )
        scores = {}
        for share in SHARES:
            rest = np.where((fixed != 0).any(-1, keepdims=True), 1 - share, 1.0)
            joined = np.concatenate([share**0.5 * fixed, rest**0.5 * learned], -1)
            scores[share] = self.measure_score(joined, target.numpy())
        self.share.fill_(max(scores, key=lambda share: scores[share]))

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        parts = [field(cells, i) for i in range(len(self.columns) + bool(self.config.group))]
        ids = [identify(part) for part in parts] + ([] if self.config.group else [np.full(len(cells), -1)])
        target = torch.from_numpy(np.stack(ids, 1).astype(np.int64))
        return target, (target[:, : len(self.columns)] >= 0).any(1), []

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        found = []
        for c in self.columns:
            head, summary = self.heads[module_key(c)], self._summary(tokens[c])
            x_BD = F.normalize(head(summary).float(), dim=-1)
            if not self.training and self.share > 0:
                fixed_BD = F.normalize(head.first(summary).float(), dim=-1)  # type: ignore[operator]
                rest_B1 = torch.where(
                    (fixed_BD != 0).any(1, keepdim=True), 1 - self.share, 1.0
                )  # all of it where there is no map
                x_BD = torch.cat([self.share.sqrt() * fixed_BD, rest_B1.sqrt() * x_BD], -1)
            found.append(x_BD * tokens[c].mask_BL.any(1)[:, None])
        return torch.stack(found, 1)

    def _summary(self, tokens: Tokens) -> Tensor:
        """The mean of a cell's tokens, and the logarithm of their number."""
        pooled_BD = tokens.pooled_BD()
        return torch.cat([pooled_BD, tokens.mask_BL.sum(1, keepdim=True).log1p().to(pooled_BD.dtype)], 1)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        have_BK = (output != 0).any(-1) & labelled_B[:, None]
        other_BB = ~same(target, target) & ~torch.eye(len(target), dtype=torch.bool, device=target.device)
        compare = self._pairs if self.config.objective in PAIRWISE else self._tuples
        with torch.autocast(
            output.device.type, enabled=False
        ):  # cosines that differ by a thousandth are told apart
            loss = compare(output, target, have_BK, other_BB, self.scale)
        if self.training and self.config.bank and torch.is_grad_enabled():
            self._remember(output.detach(), target)
        return loss

    def _pairs(self, x_BKD: Tensor, ids: Tensor, have_BK: Tensor, other_BB: Tensor, scale: Tensor) -> Tensor:
        """The mean over pairs of columns of both directions' mean over the rows that have both."""
        losses = []
        bank_MKD, bank_ids = (
            (self.bank_x, self.bank_ids) if self.training else (self.bank_x[:0], self.bank_ids[:0])
        )
        far_BM = torch.cat([other_BB, ~same(ids, bank_ids)], 1)
        for one, to in self.directions():
            both_B = have_BK[:, one] & have_BK[:, to]
            keys_MD = torch.cat([x_BKD[:, to], bank_MKD[:, to]]) if len(bank_MKD) else x_BKD[:, to]
            other_BM = far_BM & (keys_MD != 0).any(-1) & both_B[:, None]
            logits_BM = scale * x_BKD[:, one] @ keys_MD.T
            if self.config.objective == "siglip":
                losses.append(masked_mean(siglip(logits_BM + self.bias, other_BM), both_B))
            else:
                losses.append(masked_mean(info_nce(logits_BM, other_BM, self.config.hardness), both_B))
        return torch.stack(losses).mean()

    def _tuples(self, x_BKD: Tensor, ids: Tensor, have_BK: Tensor, other_BB: Tensor, scale: Tensor) -> Tensor:
        """The mean over anchors of both directions' mean over the rows that have the anchor and
        something beside it.
        """
        losses = []
        for anchor in (
            [self.columns.index(self.config.anchor)] if self.config.anchor else range(len(self.columns))
        ):
            whole_B = have_BK[:, anchor] & (have_BK.sum(1) > 1)
            other_BM = other_BB & whole_B[:, None] & whole_B[None]
            if self.config.objective == "gram":
                logits_BB = -scale * volume(x_BKD, have_BK, x_BKD, have_BK, anchor)
                losses += [
                    masked_mean(info_nce(logits_BB, other_BM), whole_B),
                    masked_mean(info_nce(logits_BB.T, other_BM), whole_B),
                ]
            else:
                orders = [torch.randperm(len(ids), device=ids.device) for _ in self.columns]
                logits_BB = scale * multilinear(x_BKD, have_BK, self.neutral_KD, anchor, orders)
                losses.append(
                    masked_mean(info_nce(logits_BB, self._drawn(ids, whole_B, anchor, orders)), whole_B)
                )
        return torch.stack(losses).mean()

    def _drawn(self, ids: Tensor, whole_B: Tensor, anchor: int, orders: list[Tensor]) -> Tensor:
        """True where a tuple drawn by lot differs from the row's own in some column."""
        others = [k for k in range(len(self.columns)) if k != anchor]
        known = [(ids[:, k, None] == ids[orders[k], k][None]) | (ids[:, k] < 0)[:, None] for k in others]
        return (
            ~torch.stack(known).all(0)
            & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
            & whole_B[:, None]
        )

    @torch.no_grad()
    def _remember(self, output: Tensor, target: Tensor) -> None:
        self.bank_x = torch.cat([output, self.bank_x])[: self.config.bank]
        self.bank_ids = torch.cat([target, self.bank_ids])[: self.config.bank]

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of columns that are compared, by their places."""
        every = list(itertools.combinations(range(len(self.columns)), 2))
        if self.config.anchor is None or self.config.objective in ("gram", "symile"):
            return every
        anchor = self.columns.index(self.config.anchor)
        return [pair for pair in every if anchor in pair]

    def directions(self) -> list[tuple[int, int]]:
        """Both directions of each pair: what asks, and what is searched."""
        return [direction for a, b in self.pairs() for direction in ((a, b), (b, a))]

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """How well each two of a row's own cells go together: the cosine of their vectors, null where
        one is missing.
        """
        have = (output != 0).any(-1)
        found = {}
        for a, b in self.pairs():
            cosine = (output[:, a] * output[:, b]).sum(-1).numpy().astype(np.float64)
            key = "" if len(self.pairs()) == 1 else f"{self.columns[a]}_{self.columns[b]}"
            found[key] = pa.array(cosine, mask=~(have[:, a] & have[:, b]).numpy())
        return found

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> RankRows:
        """Rank what each row finds, in both directions of all pairs; the gallery are the rows that have
        the other column.

        Of many rows, score 4,000 spread evenly: an epoch's end is no time to compare all with all.
        """
        if len(output) > MEASURED:
            rows = np.linspace(0, len(output) - 1, MEASURED).astype(int)
            output, target = output[rows], target[rows]
        has_BK = (output != 0).any(-1)
        directions = self.directions()
        rank_BD = np.full((len(output), len(directions)), np.nan)
        for number, (query, gallery) in enumerate(directions):
            asks_B, has_gallery_B = has_BK[:, query] & has_BK[:, gallery], has_BK[:, gallery]
            ids = target[:, [query, gallery]]
            rank_BD[asks_B, number] = ranking.ranks(
                output[asks_B, query], output[has_gallery_B, gallery], ids[asks_B], ids[has_gallery_B]
            )
        return RankRows(rank_BD)

    def baseline(self, target: Tensor) -> Tensor:
        return torch.zeros(len(self.columns), self.config.width)

    def baseline_loss(self, target: Tensor) -> float:
        """That of a comparison by lot, in a batch of the usual size."""
        return math.log(max(min(len(target), COMPARED), 2))

    def similarity(self, output: Tensor) -> Tensor:
        """How well all of a row's cells go together, as the objective sees it, the more the better: the
        multilinear product, minus the volume, or the mean cosine of the pairs it has. (B,)
        """
        have_BK = (output != 0).any(-1)
        if self.config.objective == "symile":
            return torch.where(have_BK[..., None], output, self.neutral_KD).prod(1).sum(-1)
        if self.config.objective == "gram":
            rows = [
                volume(x[None], have[None], x[None], have[None], 0)[0, 0]
                for x, have in zip(output, have_BK, strict=True)
            ]
            return -torch.stack(rows)
        cosines = torch.stack([(output[:, a] * output[:, b]).sum(-1) for a, b in self.pairs()], 1)
        both = torch.stack([have_BK[:, a] & have_BK[:, b] for a, b in self.pairs()], 1)
        return (cosines * both).sum(1) / both.sum(1).clamp(min=1)

    def query(self, given_KD: np.ndarray) -> np.ndarray:
        """One vector to look for, from the vectors of a query's own columns (rows of zeros for those it
        lacks): in `symile` their product, with the neutral vector for what is missing; else their mean,
        of length 1.
        """
        have = (given_KD != 0).any(1)
        if self.config.objective == "symile":
            full = np.where(have[:, None], given_KD, self.neutral_KD.detach().numpy())
            mixed = full.prod(0)
        else:
            mixed = given_KD[have].sum(0)
        length = float(np.linalg.norm(mixed))
        return (mixed / length if length else mixed).astype(np.float32)

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, config: Config, state: dict[str, Any]) -> Alignment:
        return cls(config)


component = Alignment


def field(cells: pa.ChunkedArray, number: int) -> pa.ChunkedArray:
    """One column of a column of structs."""
    return pc.struct_field(cells, [number])


def identify(cells: pa.ChunkedArray) -> np.ndarray:
    """A number for each different cell, the same for the same cell, and -1 for none. Texts that differ
    in case or blanks only are the same.
    """
    if is_text(cells):
        cells = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
    elif pa.types.is_nested(cells.type) or pa.types.is_large_binary(cells.type):
        cells = pa.chunked_array(
            [pa.array([None if c is None else _key(c) for c in cells.to_pylist()], pa.binary())]
        )
    codes = pc.dictionary_encode(cells)
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return np.asarray(pc.fill_null(codes.indices, -1), dtype=np.int64)


def _key(cell: Any) -> bytes:
    return (
        cell
        if isinstance(cell, bytes)
        else json.dumps(
            cell, default=lambda x: x.hex() if isinstance(x, bytes) else str(x), sort_keys=True
        ).encode()
    )
