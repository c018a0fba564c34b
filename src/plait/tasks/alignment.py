"""Embed two or more columns of any modality in one space, where cells of one row lie close together.

B rows, K columns, D width of the space, M candidates of a comparison: the rows of a batch and of the bank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Literal, Self, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import ArtifactError, TrainingError
from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.nn.layers import module_key
from plait.recipe.bounds import MAX_COUNT, MAX_WIDTH
from plait.recipe.sections import COMPARED, Between, Choices
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.aligning import ranking
from plait.tasks.aligning.cells import components, field, identify
from plait.tasks.aligning.linear_map import ColumnVectors, reciprocal_ranks
from plait.tasks.aligning.losses import volume
from plait.tasks.aligning.mixture import Mixture
from plait.tasks.aligning.objectives import PAIRWISE, Rows, pair_loss, product_loss, volume_loss
from plait.tasks.aligning.projection import Projection
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.base import Outputs, TaskOptions
from plait.tasks.base_comparison import Comparison

FORM = 2  # of the vectors, see `mixture.Mixture`; 1 had one share for all pairs
MAX_BANK = 2**30  # numbers in the bank of a column, 4 GB
MEASURED = 4000  # rows that an epoch is scored by
HOTTEST = math.log(100.0)  # the upper limit of the logits' scale in training, as in CLIP
SCALES = tuple(10.0 ** (exponent / 5) for exponent in range(16))  # of logits that `calibrate` compares
CALIBRATED = 2000  # rows that shares are chosen by
SCALED = 1000  # rows that a scale is chosen by

Sampled = TypeVar("Sampled", np.ndarray, Tensor)


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

    Linear maps between columns are fitted in closed form before training, on what training does not change:
    embeddings of frozen encoders, and statistics of cells such as durations and n-grams. A trained model's
    vector joins the maps' vectors and the network's (see `mixture.Mixture`). Validation rows choose their
    shares, for each pair of columns: the map alone, the network alone, or between.
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

        # One over the temperature of a calibrated mixture; 0 before.
        self.served_scale: Tensor
        self.register_buffer("served_scale", torch.zeros(()))

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
        """Make one projection for each column, of what `_summary` returns, and the linear maps of pairs."""
        config = self.config
        self.heads = nn.ModuleDict()
        summary_widths = []
        for column in self.columns:
            width = widths[column] + 1
            projection = Projection(width, config.hidden, config.width, config.dropout)
            self.heads[module_key(column)] = projection
            summary_widths.append(width)

        # Only cosines can be mixed: volumes and products of joined vectors are not sums of both halves.
        pairs = self.pairs() if config.objective in PAIRWISE else []
        self.mixture = Mixture(pairs, summary_widths, config.width)

    def begin(
        self, encoded: Mapping[str, Iterable[Tokens]], blocks: Mapping[str, list[slice]], target: Tensor
    ) -> None:
        """Fit linear maps between these columns (see `linear_map.PairMap`).

        They are fitted on batches of training rows' tokens, whose targets are (N, K + 1). Of each token they
        read the entries in `blocks`, which training does not change.
        """
        columns = {}
        for column, batches in encoded.items():
            summaries, masks = [], []
            for tokens in batches:
                summaries.append(self._summary(tokens).float())
                masks.append(tokens.mask_BL.any(1))
            vectors = ColumnVectors(torch.cat(summaries), torch.cat(masks), blocks[column])
            columns[self.columns.index(column)] = vectors
        ids = target.numpy()
        self.mixture.fit(columns, ids, components(ids))

    @property
    def width(self) -> int:
        """Return the width of a trained model's vectors."""
        return self.mixture.width

    @property
    def trained_scale(self) -> Tensor:
        """Return the factor of cosines in the logits of training: one over the learned temperature."""
        log_scale = self.log_scale.clamp(max=HOTTEST)
        return log_scale.exp()

    @property
    def scale(self) -> Tensor:
        """Return the factor of a trained model's cosines in logits."""
        return torch.where(self.served_scale > 0, self.served_scale, self.trained_scale)

    @property
    def compares_whole_rows(self) -> bool:
        """Return whether a row's columns are scored together, which no single vector stands for."""
        return self.config.objective == "gram"

    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Choose the shares of linear maps and network, and the temperature of their mixture.

        Shares have the best mean reciprocal rank on validation rows; the temperature has the least loss.
        """
        if not self.mixture.is_fitted:
            return
        output = sampled(outputs.output, CALIBRATED)
        ids = sampled(target, CALIBRATED)

        def score(first: Tensor, second: Tensor, a: int, b: int) -> np.ndarray:
            """Return the reciprocal ranks of rows with both columns."""
            both = (first != 0).any(1) & (second != 0).any(1)
            return reciprocal_ranks(first[both], second[both], ids[both][:, [a, b]].numpy())

        self.mixture.calibrate(output, score)
        mixed = self.mixture.mixed(self.mixture.halves(output))
        self.served_scale.fill_(self._best_scale(sampled(mixed, SCALED), sampled(ids, SCALED)))

    def _best_scale(self, output: Tensor, ids: Tensor) -> float:
        """Return the scale of cosines with the least InfoNCE loss on these rows; 0 if no row is a pair."""
        labelled_B = torch.ones(len(output), dtype=torch.bool)
        rows = Rows.of(output, ids, labelled_B)
        if not bool((rows.present_BK.sum(1) > 1).any()):
            return 0.0
        nothing = (output[:0], ids[:0])
        losses = {}
        for scale in SCALES:
            losses[scale] = float(pair_loss(rows, self.directions(), nothing, torch.tensor(scale), None, 0.0))
        return min(losses, key=losses.__getitem__)

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
        """Return unit vectors: the learned ones in training (B, K, D), else mixed ones (B, K, `width`)."""
        summaries, learned = [], []
        for column in self.columns:
            summary = self._summary(tokens[column])
            summaries.append(summary)
            learned.append(F.normalize(self._head(column)(summary).float(), dim=-1))
        vectors = learned
        if self.mixture.is_fitted and not self.training:
            vectors = self.mixture.join(summaries, learned)

        present = []
        for column, x_BD in zip(self.columns, vectors, strict=True):
            present_B = tokens[column].mask_BL.any(1)
            present.append(x_BD * present_B[:, None])
        return torch.stack(present, 1)

    def _head(self, column: str) -> Projection:
        return cast(Projection, self.heads[module_key(column)])

    def _summary(self, tokens: Tokens) -> Tensor:
        """Return the mean of a cell's tokens, and the logarithm of one more than their number, (B, D + 1)."""
        pooled_BD = tokens.pooled_BD()
        count_B1 = tokens.mask_BL.sum(1, keepdim=True)
        log_count_B1 = count_B1.log1p().to(pooled_BD.dtype)
        return torch.cat([pooled_BD, log_count_B1], 1)

    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the loss of the objective; zero if no row has two columns.

        Of mixed vectors, the network's half is compared: linear maps are not trained.
        """
        if output.shape[-1] != self.config.width:
            output = self.mixture.halves(output).learned_BKD

        # Half precision would lose cosines that differ by a thousandth.
        with torch.autocast(output.device.type, enabled=False):
            rows = Rows.of(output, target, labelled_B)
            loss = self._compare(rows)

        # A loss without gradients is measured after a step, of a batch that the bank has already.
        if self.training and self.config.bank and torch.is_grad_enabled():
            self._remember(output.detach(), target)
        return loss

    def _compare(self, rows: Rows) -> Tensor:
        """Return the loss of the objective."""
        if self.config.objective in PAIRWISE:
            bank = (self.bank_x, self.bank_ids)
            if not self.training:
                # Validation rows are compared with each other only.
                bank = (self.bank_x[:0], self.bank_ids[:0])
            bias = self.bias if self.config.objective == "siglip" else None
            return pair_loss(rows, self.directions(), bank, self.trained_scale, bias, self.config.hardness)

        anchors = list(range(len(self.columns)))
        if self.config.anchor:
            anchors = [self.columns.index(self.config.anchor)]
        if self.config.objective == "gram":
            return volume_loss(rows, anchors, self.trained_scale)
        return product_loss(rows, anchors, self.neutral_KD, self.trained_scale)

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

    def shares(self) -> dict[str, float]:
        """Return the share of the linear map in the cosines of each pair of columns that has a map."""
        shares = {}
        for (first, second), share in zip(self.mixture.pairs, self.mixture.shares.tolist(), strict=True):
            if self.mixture.place((first, second)) is not None:
                shares[f"{self.columns[first]} ~ {self.columns[second]}"] = share
        return shares

    def halves(self, output: Tensor, first: int, second: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the vectors of the linear map and of the network, if the two columns have a map."""
        pair = (min(first, second), max(first, second))
        place = self.mixture.place(pair)
        if place is None or output.shape[-1] == self.config.width:
            return {}
        halves = self.mixture.halves(output)
        linear = halves.linear[place]
        learned = (halves.learned_BKD[:, first], halves.learned_BKD[:, second])
        return {"linear map": linear if first < second else linear[::-1], "network": learned}

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

        Until shares are chosen, the network's half of mixed vectors is ranked. Beside a linear map, which
        stays as it is, one could not see what an epoch has learned.
        """
        output, target = sampled(output, MEASURED), sampled(target, MEASURED)
        if output.shape[-1] != self.config.width and not float(self.served_scale):
            output = self.mixture.halves(torch.from_numpy(output)).learned_BKD.numpy()

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
        """Return the form of the space: all that it learns is in parameters and buffers."""
        return {"form": FORM}

    @classmethod
    def from_state(cls, config: Config, state: JSON) -> Alignment:
        """Restore the task. Raises `ArtifactError` for a space of another form."""
        if state.get("form") != FORM:
            raise ArtifactError(
                f"the alignment of {', '.join(config.inputs)} has vectors of form {state.get('form', 1)}; "
                f"this plait reads {FORM}. Train the model again, or load it with the plait that wrote it"
            )
        return cls(config)


component = Alignment


def sampled(rows: Sampled, count: int) -> Sampled:
    """Return at most `count` of the rows, spread evenly."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]


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
