"""Embed two or more columns of any modality in one space, where cells of one row lie close together.

B rows, K columns, D width of the space, M candidates of a comparison: the rows of a batch and of the bank.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import TrainingError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import module_key
from plait.recipe.bounds import MAX_COUNT, MAX_WIDTH
from plait.recipe.sections import COMPARED, Between, Choices
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.table import Source
from plait.table.values import is_text
from plait.tasks.aligning import ranking
from plait.tasks.aligning.linear_start import Projection, linear_maps
from plait.tasks.aligning.losses import info_nce, multilinear, same, siglip, volume
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.base import Outputs, TaskOptions, masked_mean
from plait.tasks.base_comparison import Comparison

PAIRWISE = ("infonce", "siglip")  # objectives that compare columns two by two

# Candidates for the share of the linear maps. The first of equally good ones wins.
# 1 is not among them, because not every column has a map.
SHARES = (0.5, 0.0, 0.25, 0.75, 0.9)

MAX_BANK = 2**30  # numbers in the bank of a column, 4 GB
MEASURED = 4000  # rows that an epoch is scored by
HOTTEST = math.log(100.0)  # the upper limit of the logits' scale, as in CLIP


class Config(TaskOptions):
    """`inputs` are the columns: all images, texts, audio and video if left out.

    `objective` compares them two by two (`infonce`, `siglip`) or all at once (`gram`, `symile`). With an
    `anchor`, the other columns are compared with that column only (ImageBind, Girdhar et al. 2023; in
    `gram`, the paper's anchor). Without one, each column is compared with each other one. In `gram` and
    `symile` each column is then the anchor in turn.

    Rows that have the same cell in any of the columns, or the same `group`, are not each other's
    negatives. `bank` is the number of earlier rows whose vectors serve as further negatives (Wang et
    al. 2020, "Cross-batch memory"; two-by-two objectives). `hardness` gives hard negatives more weight
    (`infonce`, Robinson et al. 2021). With `hidden` of 0 the projections are linear.
    """

    objective: Literal["infonce", "siglip", "gram", "symile"] = Field(
        "infonce", description="the loss that compares cells (see above)"
    )
    anchor: str | None = Field(None, description="the column that all others are compared with; null: none")
    group: str | None = Field(
        None, description="a column: rows with the same value are not each other's negatives; null: none"
    )
    width: int = Field(256, ge=2, le=MAX_WIDTH, description="of the space")
    hidden: int = Field(
        512,
        ge=0,
        le=MAX_WIDTH,
        description="width of the hidden layer of the projections; 0: they are linear",
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="share of hidden entries that are set to zero in training"
    )
    temperature: float = Field(0.07, gt=0, le=100, description="where the learned temperature begins")
    bank: int = Field(
        0, ge=0, le=MAX_COUNT, description="earlier rows whose vectors are further negatives; 0: none"
    )
    hardness: float = Field(
        0.0, ge=0, le=100, description="how much more hard negatives weigh; 0: all weigh the same"
    )

    @model_validator(mode="after")
    def _bank_fits(self) -> Self:
        if self.bank * self.width > MAX_BANK:
            raise ValueError(
                f"expected a bank ({self.bank:,}) of at most {MAX_BANK // self.width:,} vectors of width "
                f"{self.width:,}"
            )
        return self


class Alignment(Comparison):
    """Compare the columns of a row.

    The target holds an id for each different cell of each column, and one for each group, (B, K + 1). The
    id is -1 where there is no cell.

    The output holds a row's unit vectors, (B, K, D), and zeros where the row lacks the column. A vector
    is made of the mean of a cell's tokens and of the logarithm of their number. The number is there
    because the length of a recording says much about its content, and a mean does not show it.

    Where projections began at linear maps, these maps have a `share` in the vectors of a trained model.
    A vector then has twice the width: sqrt(share) times the map's vector, next to sqrt(1 - share) times
    the learned one. So a cosine is the weighted mean of both cosines. Training does not see the share.
    Validation rows choose it.
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
        self.config = config
        self.columns = list(config.inputs)
        columns = len(self.columns)
        log_scale = math.log(1 / config.temperature)
        self.log_scale = nn.Parameter(torch.tensor(log_scale))

        # At the start nearly all candidates are negatives, so sigmoids begin near 0 (Zhai et al. 2023).
        has_bias = config.objective == "siglip"
        bias = torch.tensor(-10.0 if has_bias else 0.0)
        self.bias = nn.Parameter(bias, requires_grad=has_bias)

        # Start at 1 / sqrt(width) in each dimension, which makes a unit vector.
        neutral_KD = torch.full((columns, config.width), config.width**-0.5)
        self.neutral_KD = nn.Parameter(neutral_KD, requires_grad=config.objective == "symile")

        self.share: Tensor
        self.register_buffer("share", torch.zeros(()))
        self.has_share = False  # as `share` says; `forward` must not branch on a tensor
        self.register_load_state_dict_post_hook(_read_share)  # type: ignore[no-untyped-call]

        # Empty places of the bank have vectors of zeros, as missing cells have.
        self.bank_x: Tensor
        self.bank_ids: Tensor
        self.register_buffer("bank_x", torch.zeros(config.bank, columns, config.width))
        self.register_buffer("bank_ids", torch.full((config.bank, columns + 1), -1))

    @classmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Return None: no column is its target."""
        return None

    @classmethod
    def reads(cls, config: Config, name: str) -> list[str]:
        """Return the columns that are compared, and the `group` if there is one."""
        columns = list(config.inputs)
        if config.group:
            columns.append(config.group)
        return columns

    @classmethod
    def fit(cls, config: Config, cells: pa.ChunkedArray, name: str) -> Alignment:
        """Return the task. Raises `TrainingError` if fewer than two rows have two of the columns."""
        present = []
        for number in range(len(config.inputs)):
            is_valid = field(cells, number).is_valid()
            present.append(is_valid.to_numpy(zero_copy_only=False))
        cells_of_row = np.sum(present, axis=0)
        pairs = int((cells_of_row > 1).sum())
        if pairs < 2:
            raise TrainingError(
                f"task '{name}': expected two or more training rows that have at least two of "
                f"{', '.join(config.inputs)}, found fewer"
            )
        return cls(config)

    def build_head(self, widths: dict[str, int]) -> None:
        """Make one projection for each column, of what `_summary` returns."""
        config = self.config
        self.heads = nn.ModuleDict()
        for column in self.columns:
            width = widths[column] + 1
            projection = Projection(width, config.hidden, config.width, config.dropout)
            self.heads[module_key(column)] = projection

    def begin(self, encoded: Mapping[str, Iterable[Tokens]], starts: Mapping[str, int]) -> None:
        """Start the projections of these columns at linear maps (see `linear_start.linear_maps`).

        The maps are fitted on batches of training rows' tokens. Of each vector they read the entries from
        `starts` on, which training does not change.
        """
        vectors, present = {}, {}
        for column, batches in encoded.items():
            start = starts[column]
            summaries, masks = [], []
            for tokens in batches:
                summary = self._summary(tokens)
                summaries.append(summary[:, start:].float())
                masks.append(tokens.mask_BL.any(1))
            vectors[column] = torch.cat(summaries).numpy()
            present[column] = torch.cat(masks).numpy()

        maps = linear_maps(vectors, present, self.config.width)
        for column, (weight, bias) in maps.items():
            self._head(column).begin(weight, bias, starts[column])

        # Only cosines can be mixed: volumes and products of joined vectors are not the means of both halves.
        # `calibrate` chooses the final share.
        if self.config.objective in PAIRWISE:
            self.set_share(0.5)

    def set_share(self, share: float) -> None:
        """Set the share of the linear maps in a trained model's vectors; 0 leaves the maps out."""
        self.share.fill_(share)
        self.has_share = share > 0

    @property
    def width(self) -> int:
        """Return the width of a trained model's vectors."""
        return self.config.width * (2 if self.has_share else 1)

    @property
    def scale(self) -> Tensor:
        """Return the factor of cosines in logits: one over the learned temperature, 100 at most."""
        log_scale = self.log_scale.clamp(max=HOTTEST)
        return log_scale.exp()

    @property
    def compares_whole_rows(self) -> bool:
        """Return whether a row's columns are scored together, which no single vector stands for."""
        return self.config.objective == "gram"

    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Choose the share of the linear maps by the mean reciprocal rank on validation rows.

        The outputs were made with the present share, so both halves are normalised again.
        """
        if not self.has_share:
            return
        # Vectors of length zero stay zero: their cells are missing, or their column has no map.
        fixed_half, learned_half = outputs.output.split(self.config.width, -1)
        fixed = F.normalize(fixed_half, dim=-1).numpy()
        learned = F.normalize(learned_half, dim=-1).numpy()
        has_map = (fixed != 0).any(-1, keepdims=True)

        scores = {}
        for share in SHARES:
            learned_share = np.where(has_map, 1 - share, 1.0)
            halves = [share**0.5 * fixed, learned_share**0.5 * learned]
            joined = np.concatenate(halves, -1)
            scores[share] = self.measure_score(joined, target.numpy())
        best_share = max(scores, key=scores.__getitem__)
        self.set_share(best_share)

    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return ids (B, K + 1): of each column's cell, and of the group (-1 if there is none).

        A row counts as labelled if it has any of the columns. There are no problems.
        """
        columns = len(self.columns)
        ids = [identify(field(cells, number)) for number in range(columns)]
        if self.config.group:
            ids.append(identify(field(cells, columns)))
        else:
            ids.append(np.full(len(cells), -1))
        ids_BK = np.stack(ids, 1).astype(np.int64)
        target = torch.from_numpy(ids_BK)
        has_cell_BK = target[:, :columns] >= 0
        return target, has_cell_BK.any(1), []

    def forward(self, tokens: dict[str, Tokens]) -> Tensor:
        """Return unit vectors, (B, K, D), or (B, K, 2 D) with a share of the linear maps."""
        has_share = self.has_share and not self.training
        vectors = []
        for column in self.columns:
            head = self._head(column)
            summary = self._summary(tokens[column])
            x_BD = F.normalize(head(summary).float(), dim=-1)
            if has_share:
                fixed_BD = F.normalize(head.first(summary).float(), dim=-1)
                x_BD = self._with_share(fixed_BD, x_BD)
            present_B = tokens[column].mask_BL.any(1)
            vectors.append(x_BD * present_B[:, None])
        return torch.stack(vectors, 1)

    def _with_share(self, fixed_BD: Tensor, learned_BD: Tensor) -> Tensor:
        """Return both vectors side by side, weighted by the square roots of their shares, (B, 2 D)."""
        # A column without a map has the learned vector only.
        has_map_B1 = (fixed_BD != 0).any(1, keepdim=True)
        learned_share_B1 = torch.where(has_map_B1, 1 - self.share, 1.0)
        fixed_half = self.share.sqrt() * fixed_BD
        learned_half = learned_share_B1.sqrt() * learned_BD
        return torch.cat([fixed_half, learned_half], -1)

    def _head(self, column: str) -> Projection:
        return cast(Projection, self.heads[module_key(column)])

    def _summary(self, tokens: Tokens) -> Tensor:
        """Return the mean of a cell's tokens, and the logarithm of one more than their number, (B, D + 1)."""
        pooled_BD = tokens.pooled_BD()
        count_B1 = tokens.mask_BL.sum(1, keepdim=True)
        log_count_B1 = count_B1.log1p().to(pooled_BD.dtype)
        return torch.cat([pooled_BD, log_count_B1], 1)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the loss of the objective; zero if no row has two columns."""
        # A row that lacks a column has a vector of zeros there.
        present_BK = (output != 0).any(-1) & labelled_B[:, None]
        is_self_BB = torch.eye(len(target), dtype=torch.bool, device=target.device)
        negative_BB = ~same(target, target) & ~is_self_BB

        compare = self._pairs if self.config.objective in PAIRWISE else self._tuples

        # Half precision would lose cosines that differ by a thousandth.
        with torch.autocast(output.device.type, enabled=False):
            loss = compare(output, target, present_BK, negative_BB, self.scale)

        # A loss without gradients is measured after a step, of a batch that the bank has already.
        if self.training and self.config.bank and torch.is_grad_enabled():
            self._remember(output.detach(), target)
        return loss

    def _pairs(
        self, x_BKD: Tensor, ids: Tensor, present_BK: Tensor, negative_BB: Tensor, scale: Tensor
    ) -> Tensor:
        """Return the mean over pairs of columns, both directions, and the rows that have both columns."""
        bank_MKD, bank_ids = self.bank_x, self.bank_ids
        if not self.training:
            # Validation rows are compared with each other only.
            bank_MKD, bank_ids = bank_MKD[:0], bank_ids[:0]
        differs_from_bank_BM = ~same(ids, bank_ids)
        differs_BM = torch.cat([negative_BB, differs_from_bank_BM], 1)

        losses = []
        for query, key in self.directions():
            both_B = present_BK[:, query] & present_BK[:, key]
            keys_MD = x_BKD[:, key]
            if len(bank_MKD):
                keys_MD = torch.cat([keys_MD, bank_MKD[:, key]])
            has_key_M = (keys_MD != 0).any(-1)
            negative_BM = differs_BM & has_key_M & both_B[:, None]
            logits_BM = scale * x_BKD[:, query] @ keys_MD.T
            if self.config.objective == "siglip":
                loss_B = siglip(logits_BM + self.bias, negative_BM)
            else:
                loss_B = info_nce(logits_BM, negative_BM, self.config.hardness)
            losses.append(masked_mean(loss_B, both_B))
        return torch.stack(losses).mean()

    def _tuples(
        self, x_BKD: Tensor, ids: Tensor, present_BK: Tensor, negative_BB: Tensor, scale: Tensor
    ) -> Tensor:
        """Return the mean over anchors and the rows that have the anchor and another column.

        `gram` is also averaged over both directions.
        """
        anchors = list(range(len(self.columns)))
        if self.config.anchor:
            anchors = [self.columns.index(self.config.anchor)]

        losses = []
        for anchor in anchors:
            complete_B = present_BK[:, anchor] & (present_BK.sum(1) > 1)
            if self.config.objective == "gram":
                # Vectors that belong together span a small volume.
                both_complete_BB = complete_B[:, None] & complete_B[None]
                complete_negative_BB = negative_BB & both_complete_BB
                logits_BB = -scale * volume(x_BKD, present_BK, x_BKD, present_BK, anchor)
                losses.append(masked_mean(info_nce(logits_BB, complete_negative_BB), complete_B))
                losses.append(masked_mean(info_nce(logits_BB.T, complete_negative_BB), complete_B))
            else:
                orders = [torch.randperm(len(ids), device=ids.device) for _ in self.columns]
                products_BB = multilinear(x_BKD, present_BK, self.neutral_KD, anchor, orders)
                logits_BB = scale * products_BB
                negative_tuple_BB = self._negative_tuples(ids, complete_B, anchor, orders)
                losses.append(masked_mean(info_nce(logits_BB, negative_tuple_BB), complete_B))
        return torch.stack(losses).mean()

    def _negative_tuples(self, ids: Tensor, complete_B: Tensor, anchor: int, orders: list[Tensor]) -> Tensor:
        """Return True where a randomly drawn tuple differs from the row's own cells in a column, (B, B)."""
        same_cell = []
        for column in range(len(self.columns)):
            if column == anchor:
                continue
            ids_B = ids[:, column]
            drawn_B = ids_B[orders[column]]

            # What the row lacks cannot differ.
            lacks_cell_B = ids_B < 0
            same_cell.append((ids_B[:, None] == drawn_B[None]) | lacks_cell_B[:, None])
        differs_BB = ~torch.stack(same_cell).all(0)
        is_self_BB = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        return differs_BB & ~is_self_BB & complete_B[:, None]

    @torch.no_grad()
    def _remember(self, output: Tensor, target: Tensor) -> None:
        """Put a batch at the front of the bank. The oldest rows fall out."""
        size = self.config.bank
        self.bank_x = torch.cat([output, self.bank_x])[:size]
        self.bank_ids = torch.cat([target, self.bank_ids])[:size]

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of columns that are compared, as indices into `columns`."""
        all_pairs = list(itertools.combinations(range(len(self.columns)), 2))
        compares_all = self.config.objective not in PAIRWISE
        if self.config.anchor is None or compares_all:
            return all_pairs
        anchor = self.columns.index(self.config.anchor)
        return [pair for pair in all_pairs if anchor in pair]

    def directions(self) -> list[tuple[int, int]]:
        """Return both directions of each pair: (column of the query, column of the gallery)."""
        directions = []
        for first, second in self.pairs():
            directions += [(first, second), (second, first)]
        return directions

    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the cosine of each pair of compared cells; null where the row lacks one of them."""
        present_BK = (output != 0).any(-1)
        pairs = self.pairs()
        cosines = {}
        for first, second in pairs:
            cosine_B = _cosine(output, first, second).numpy()
            both_B = (present_BK[:, first] & present_BK[:, second]).numpy()
            suffix = f"{self.columns[first]}_{self.columns[second]}"
            if len(pairs) == 1:
                suffix = ""
            cosines[suffix] = pa.array(cosine_B.astype(np.float64), mask=~both_B)
        return cosines

    def score_rows(self, output: np.ndarray, target: np.ndarray) -> RankRows:
        """Rank what each row finds, in both directions of all pairs.

        The gallery is the rows that have the other column. Of many rows, 4,000 are scored, spread evenly:
        to compare all with all at the end of each epoch would take too long.
        """
        if len(output) > MEASURED:
            rows = np.linspace(0, len(output) - 1, MEASURED).astype(int)
            output, target = output[rows], target[rows]

        present_BK = (output != 0).any(-1)
        directions = self.directions()
        rank_BD = np.full((len(output), len(directions)), np.nan)
        for number, (query, gallery) in enumerate(directions):
            in_gallery_B = present_BK[:, gallery]
            is_query_B = present_BK[:, query] & in_gallery_B
            ids = target[:, [query, gallery]]
            rank_BD[is_query_B, number] = ranking.ranks(
                query_QD=output[is_query_B, query],
                gallery_GD=output[in_gallery_B, gallery],
                query_ids=ids[is_query_B],
                gallery_ids=ids[in_gallery_B],
            )
        return RankRows(rank_BD)

    def baseline(self, target: Tensor) -> Tensor:
        """Return zeros: without inputs, all rows look the same."""
        return torch.zeros(len(self.columns), self.config.width)

    def baseline_loss(self, target: Tensor) -> float:
        """Return the loss of a random choice among the rows of a batch of the usual size, in nats."""
        candidates = min(len(target), COMPARED)
        return math.log(max(candidates, 2))

    def similarity(self, output: Tensor) -> Tensor:
        """Return how well all cells of a row go together by the objective, (B,). Higher is better.

        This is the multilinear product (`symile`), minus the volume (`gram`), or else the mean cosine of
        the row's pairs.
        """
        present_BK = (output != 0).any(-1)
        if self.config.objective == "symile":
            # Outputs come from the CPU, wherever the model is.
            neutral_KD = self.neutral_KD.to(output.device)
            complete_BKD = torch.where(present_BK[..., None], output, neutral_KD)
            return complete_BKD.prod(1).sum(-1)
        if self.config.objective == "gram":
            return -_volumes(output, present_BK)

        cosines, both = [], []
        for first, second in self.pairs():
            cosines.append(_cosine(output, first, second))
            both.append(present_BK[:, first] & present_BK[:, second])
        both_BP = torch.stack(both, 1)
        total_B = (torch.stack(cosines, 1) * both_BP).sum(1)
        pairs_B = both_BP.sum(1)
        return total_B / pairs_B.clamp(min=1)

    def query(self, cells_KD: np.ndarray) -> np.ndarray:
        """Return one vector to search with, (D,), from the vectors of a query's cells.

        `cells_KD` has zeros for columns that the query lacks. The vector is the product of the cells'
        vectors in `symile`, with the neutral vector for a missing one, and else their mean direction. It
        has length 1, or 0 if there is no direction.
        """
        present_K = (cells_KD != 0).any(1)
        if self.config.objective == "symile":
            neutral_KD = self.neutral_KD.detach().cpu().numpy()
            complete_KD = np.where(present_K[:, None], cells_KD, neutral_KD)
            query_D = complete_KD.prod(0)
        else:
            query_D = cells_KD[present_K].sum(0)
        length = float(np.linalg.norm(query_D))
        if length:
            query_D = query_D / length
        return query_D.astype(np.float32)

    def state(self) -> JSON:
        """Return nothing: all that it learns is in its parameters."""
        return {}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Alignment:
        """Restore the task; all that it learned is in its parameters."""
        return cls(config)


component = Alignment


def _read_share(task: Alignment, _: object) -> None:
    """Take over the share of the weights that were loaded."""
    task.set_share(float(task.share))


def field(cells: pa.ChunkedArray, number: int) -> pa.ChunkedArray:
    """Return one column of a column of structs."""
    return pc.struct_field(cells, [number])


def _cosine(x_BKD: Tensor, first: int, second: int) -> Tensor:
    """Return the cosine of each row's unit vectors of two columns, (B,)."""
    products_BD = x_BKD[:, first] * x_BKD[:, second]
    return products_BD.sum(-1)


def _volumes(x_BKD: Tensor, present_BK: Tensor) -> Tensor:
    """Return the volume that each row's own vectors span, (B,)."""
    volumes = []
    for x_KD, present_K in zip(x_BKD, present_BK, strict=True):
        # One row as a batch, compared with itself.
        x_1KD, present_1K = x_KD[None], present_K[None]
        volume_11 = volume(x_1KD, present_1K, x_1KD, present_1K, anchor=0)
        volumes.append(volume_11[0, 0])
    return torch.stack(volumes)


def identify(cells: pa.ChunkedArray) -> np.ndarray:
    """Return an id for each different cell, from 0, and -1 for null, (N,).

    Texts that differ only in case or in blanks at both ends count as the same cell.
    """
    if pa.types.is_dictionary(cells.type):
        # Its texts may differ in case or in blanks, so its own numbers do not tell cells apart.
        cells = pc.cast(cells, cells.type.value_type)
    if is_text(cells):
        trimmed = pc.utf8_trim_whitespace(cells)
        cells = pc.utf8_lower(trimmed)
    elif pa.types.is_nested(cells.type) or pa.types.is_large_binary(cells.type):
        # Arrow cannot encode these types as a dictionary.
        keys = [_key(cell) for cell in cells.to_pylist()]
        cells = pa.chunked_array([pa.array(keys, pa.binary())])

    encoded = pc.dictionary_encode(cells)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    ids = pc.fill_null(encoded.indices, -1)
    return np.asarray(ids, dtype=np.int64)


def _key(cell: object) -> bytes | None:
    """Return bytes that are equal for equal cells; None for null."""
    if cell is None or isinstance(cell, bytes):
        return cell
    text = json.dumps(cell, default=_json_of, sort_keys=True)
    return text.encode()


def _json_of(cell: object) -> str:
    """Return a string for a value in a cell that JSON cannot express."""
    return cell.hex() if isinstance(cell, bytes) else str(cell)
