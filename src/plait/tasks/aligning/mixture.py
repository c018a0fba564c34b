"""Mix linear maps and a network: one vector for each cell, whose cosines are weighted sums of both cosines.

B rows, K columns, P pairs of columns, D width of the learned space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.tasks.aligning.linear_map import LIFTS, ColumnVectors, PairMap, Principal, dimensions_of, fit_pair

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # of the linear map, compared
USUAL_SHARE = 0.7  # before validation rows have chosen, and without any
LEAST_GAIN = 0.5  # standard errors that a share of the network must gain over the linear map alone
RESAMPLES = 40  # bootstrap samples of the validation rows
LEAST = 1e-6  # weight of a half that is not wanted: evaluation still reads from it what it finds alone
MEASURED = 2000  # rows that a share is chosen by


@dataclass(frozen=True)
class Halves:
    """The unit vectors that a mixed vector is made of; zeros where a cell is missing, or has no map.

    `linear[p]` has those of the first and of the second column of pair p.
    """

    linear: list[tuple[Tensor, Tensor]]
    learned_BKD: Tensor


class Mixture(nn.Module):
    """The linear maps of all pairs of columns, and their weights beside a network.

    A vector has a place for each map, one for the network's vector, and one of each column's own, which
    fills it up to length 1. The maps of a pair count by the pair's weight. So the cosine of two columns is
    the pair's weight times the cosine of its maps, plus the network's weight times the network's cosine.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], widths: Sequence[int], space: int) -> None:
        super().__init__()
        self.pairs = list(pairs)
        self.columns = len(widths)
        self.space = space
        dimensions = dimensions_of(len(pairs))
        self.maps = nn.ModuleList(PairMap((widths[a], widths[b]), dimensions) for a, b in pairs)
        self.map_width = dimensions + LIFTS
        self.shares: Tensor
        self.pair_weights: Tensor
        self.learned_weight: Tensor
        self.register_buffer("shares", torch.zeros(len(pairs)))
        self.register_buffer("pair_weights", torch.zeros(len(pairs)))
        self.register_buffer("learned_weight", torch.ones(()))

        self.is_fitted = False  # as the weights say; `forward` must not branch on a tensor
        self.register_load_state_dict_post_hook(_read_weights)  # type: ignore[no-untyped-call]

    @property
    def width(self) -> int:
        """Return the width of mixed vectors."""
        if not self.is_fitted:
            return self.space
        return len(self.pairs) * self.map_width + self.space + self.columns

    def fit(self, columns: dict[int, ColumnVectors], ids: np.ndarray, group: np.ndarray) -> None:
        """Fit the maps between these columns on training rows. `ids` (N, K) are those of cells."""
        principal = {}
        for number, vectors in columns.items():
            if int(vectors.present_N.sum()) > 1:
                principal[number] = Principal.of(vectors)
        for place, (a, b) in enumerate(self.pairs):
            if a in principal and b in principal:
                both_N = columns[a].present_N & columns[b].present_N
                pair_map = self._map(place)
                fit_pair(pair_map, (principal[a], principal[b]), both_N, ids[:, [a, b]], group)
        self.set_shares([USUAL_SHARE] * len(self.pairs))

    def place(self, pair: tuple[int, int]) -> int | None:
        """Return the place of a pair's map, or None if there is no such pair, or its map is not fitted."""
        if pair not in self.pairs or not self._map(self.pairs.index(pair)).is_fitted:
            return None
        return self.pairs.index(pair)

    def _map(self, place: int) -> PairMap:
        pair_map = self.maps[place]
        assert isinstance(pair_map, PairMap)
        return pair_map

    def set_shares(self, shares: Sequence[float], spreads: Sequence[float] = ()) -> None:
        """Weigh each pair's linear map by its share of the pair's cosine, 0 to 1.

        `spreads` has how many times as far the network's cosines are spread as the map's, of each pair.
        """
        ratios = []
        for place, share in enumerate(shares):
            if not self._map(place).is_fitted:
                ratios.append(0.0)
                continue
            self.shares[place] = share
            ratio = (spreads[place] if spreads else 1.0) * share / max(1 - share, LEAST)
            ratios.append(min(max(ratio, LEAST), 1 / LEAST))
        ratio_P = torch.tensor(ratios)

        # No column may be longer than 1.
        total = torch.ones(())
        for column in range(self.columns):
            of_column = [place for place, pair in enumerate(self.pairs) if column in pair]
            total = torch.maximum(total, 1 + ratio_P[of_column].sum())
        self.pair_weights.copy_(ratio_P / total)
        self.learned_weight.copy_(1 / total)
        self.is_fitted = bool((self.pair_weights > 0).any())

    def join(self, summaries: Sequence[Tensor], learned: Sequence[Tensor]) -> list[Tensor]:
        """Return a mixed vector for each column, (B, width), from its summary and the network's vector."""
        vectors = []
        for column, (summary, learned_BD) in enumerate(zip(summaries, learned, strict=True)):
            mapped = {}
            for place, pair in enumerate(self.pairs):
                if column in pair:
                    mapped[place] = self._map(place)(summary, pair.index(column))
            vectors.append(self._joined(column, mapped, learned_BD))
        return vectors

    def mixed(self, halves: Halves) -> Tensor:
        """Return mixed vectors, (B, K, width), of the present weights."""
        vectors = []
        for column in range(self.columns):
            mapped = {}
            for place, pair in enumerate(self.pairs):
                if column in pair:
                    mapped[place] = halves.linear[place][pair.index(column)]
            learned_BD = halves.learned_BKD[:, column]
            vector = self._joined(column, mapped, learned_BD)
            vectors.append(vector * (learned_BD != 0).any(1, keepdim=True))
        return torch.stack(vectors, 1)

    def _joined(self, column: int, mapped: Mapping[int, Tensor], learned_BD: Tensor) -> Tensor:
        """Put a column's vectors side by side, times the roots of their weights, (B, width)."""
        # Validation rows stay on the CPU, wherever the model is.
        pair_weights = self.pair_weights.to(learned_BD.device)
        learned_weight = self.learned_weight.to(learned_BD.device)

        rows = len(learned_BD)
        parts = []
        weight = learned_weight
        for place in range(len(self.pairs)):
            if place in mapped:
                parts.append(pair_weights[place].sqrt() * mapped[place])
                weight = weight + pair_weights[place]
            else:
                parts.append(learned_BD.new_zeros(rows, self.map_width))
        parts.append(learned_weight.sqrt() * learned_BD)

        is_own_K = torch.arange(self.columns, device=learned_BD.device) == column
        rest_K = is_own_K * (1 - weight).clamp(min=0).sqrt()
        parts.append(rest_K.to(learned_BD.dtype).expand(rows, -1))
        return torch.cat(parts, 1)

    def halves(self, output_BKE: Tensor) -> Halves:
        """Return what mixed vectors are made of."""
        linear = []
        for place, (a, b) in enumerate(self.pairs):
            start = place * self.map_width
            of_pair = output_BKE[:, :, start : start + self.map_width]
            linear.append((_unit(of_pair[:, a]), _unit(of_pair[:, b])))
        start = len(self.pairs) * self.map_width
        return Halves(linear, _unit(output_BKE[:, :, start : start + self.space]))

    def calibrate(self, output_BKE: Tensor, score: Callable[[Tensor, Tensor, int, int], np.ndarray]) -> None:
        """Choose each pair's share by the scores of validation rows.

        `score` returns those of rows with both columns of a pair, from their vectors (B, E), whose numbers
        come with them.
        """
        halves = self.halves(output_BKE)
        shares, spreads = [], []
        for (a, b), (first, second) in zip(self.pairs, halves.linear, strict=True):
            learned_first, learned_second = halves.learned_BKD[:, a], halves.learned_BKD[:, b]
            spread = _spread(learned_first, learned_second) / max(_spread(first, second), LEAST)
            spreads.append(spread)
            scores = []
            for share in SHARES:
                weight = spread * share / (spread * share + 1 - share)
                x = torch.cat([weight**0.5 * first, max(1 - weight, 0) ** 0.5 * learned_first], 1)
                z = torch.cat([weight**0.5 * second, max(1 - weight, 0) ** 0.5 * learned_second], 1)
                scores.append(score(x, z, a, b))
            shares.append(_best_share(np.stack(scores)))
        self.set_shares(shares, spreads)


def _best_share(score_SB: np.ndarray) -> float:
    """Return the mean of the shares that are best on bootstrap samples of the rows.

    The best share of all rows would follow a few of them. `score_SB` has a score for each share and row; the
    last share is the linear map alone. The network has an advantage on these rows, which chose its epoch. So
    a share of the network must gain half a standard error.
    """
    rows = score_SB.shape[1]
    if not rows:
        return USUAL_SHARE
    gain_SB = score_SB - score_SB[-1]
    error_S = gain_SB.std(1) / np.sqrt(rows)

    generator = np.random.default_rng(0)
    weight_RB = generator.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES) / rows
    best_R = (weight_RB @ gain_SB.T - LEAST_GAIN * error_S).argmax(1)
    return float(np.array(SHARES)[best_R].mean())


def _read_weights(mixture: Mixture, _: object) -> None:
    """Take over whether the weights that were loaded are those of fitted maps."""
    mixture.is_fitted = bool((mixture.pair_weights > 0).any())


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)


def _spread(first: Tensor, second: Tensor) -> float:
    """Return the standard deviation of the cosines of all pairs of rows that have both cells."""
    both = (first != 0).any(1) & (second != 0).any(1)
    rows = both.nonzero()[:, 0]
    if len(rows) > MEASURED:
        rows = rows[torch.linspace(0, len(rows) - 1, MEASURED).long()]
    if len(rows) < 2:
        return 1.0
    return float((first[rows] @ second[rows].T).std())
