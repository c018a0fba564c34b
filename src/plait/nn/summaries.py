"""What can be said of a cell in numbers that nothing trains: mean spectra, thumbnails, counts of
n-grams. Linear models read them, and alignments begin at them. B rows, N media, L steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.batch import Layout, Values
from plait.nn.layers import masked_mean

Matrix: TypeAlias = Any  # floats (rows, width): a numpy array, or a csr_array of scipy, which has no types


THUMBNAIL = 8  # pixels on a side


WIDTH = 256  # numbers of a text


LEAST_SPREAD = 1e-6


WORDS = ("bag", "tokens")  # kinds of cells whose n-grams or tokens are counted


class Statistics(nn.Module):
    """Numbers of a cell, (B, width), of mean 0; those of cells that are no texts of deviation 1 each,
    those of texts the main directions of their TF-IDF (Deerwester et al. 1990, "latent semantic
    analysis"), of mean square 1 together. Zeros before `fit`.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.kind, self.height = layout.kind, layout.vocabulary
        self.width = WIDTH if self.kind in WORDS else KINDS[self.kind](_nothing(layout)).shape[1]
        self.mean: Tensor
        self.scale: Tensor
        self.weight: Tensor
        self.directions: Tensor
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("scale", torch.zeros(self.width))
        if self.kind in WORDS:
            self.register_buffer("weight", torch.zeros(self.height))
            self.register_buffer("directions", torch.zeros(self.height, self.width))

    @classmethod
    def known_for(cls, layout: Layout) -> bool:
        """Whether cells of this layout have such numbers."""
        return layout.kind in WORDS or layout.kind in KINDS

    @torch.no_grad()
    def fit(self, cells: Iterable[Values]) -> None:
        """Sets means and scales, and of texts weights and directions, from batches of cells as encoders
        take them; nothing without cells.
        """
        words = self.kind in WORDS
        parts = [
            word_counts(some.x, some.mask_BL(), self.height) if words else KINDS[self.kind](some)
            for some in cells
            if len(some.x)
        ]
        if not parts:
            return
        x = self._fit_words(parts) if words else torch.cat(parts)
        spread = (x - x.mean(0)).square().mean(None if words else 0).sqrt().expand(self.width)
        self.mean.copy_(x.mean(0))
        self.scale.copy_(torch.where(spread > LEAST_SPREAD, 1 / spread.clamp(min=LEAST_SPREAD), 0))

    def _fit_words(self, counted: list[sparse.csr_array]) -> Tensor:
        """Sets weights and directions; the training texts in these directions."""
        from sklearn.decomposition import TruncatedSVD

        counts = sparse.vstack(counted)
        weight = inverse_frequency(counts)
        tfidf = unit_rows(counts.multiply(weight[None]))
        self.weight.copy_(torch.from_numpy(weight))
        known = np.flatnonzero(weight)  # most buckets of n-grams are empty
        width = min(self.width, counts.shape[0] - 1, len(known) - 1)
        if width > 0:
            self.directions[known, :width] = torch.from_numpy(
                TruncatedSVD(width, random_state=0).fit(tfidf[:, known]).components_.T
            )
        return torch.from_numpy(tfidf @ self.directions.numpy())

    def forward(self, values: Values) -> Tensor:
        if not len(values.x):
            return self.mean.new_zeros(0, self.width)
        numbers_BD = self._words(values) if self.kind in WORDS else KINDS[self.kind](values)
        return (numbers_BD - self.mean) * self.scale

    def _words(self, values: Values) -> Tensor:
        """The unit vectors of TF-IDF in the main directions; the same as `word_counts` and the like
        make, on any device.
        """
        rows, at = values.mask_BL().nonzero(as_tuple=True)
        pairs, count = torch.unique(rows * self.height + values.x[rows, at], return_counts=True)
        row, word = pairs // self.height, pairs % self.height
        weight = (1 + count.log()) * self.weight[word]
        square_B = torch.zeros(len(values.x), device=weight.device).index_add(0, row, weight.square())
        weight = weight / square_B[row].sqrt().clamp(min=1e-12)
        first_B = torch.searchsorted(row, torch.arange(len(values.x), device=row.device))
        return F.embedding_bag(word, self.directions, first_B, mode="sum", per_sample_weights=weight)


def word_counts(ids_BL: Tensor, mask_BL: Tensor, height: int) -> sparse.csr_array:
    """One plus the logarithm of how often each token is in each row that has it."""
    rows, at = mask_BL.nonzero(as_tuple=True)
    ids = ids_BL[rows, at].numpy()
    counts = sparse.csr_array(
        (np.ones(len(ids), dtype=np.float32), (rows.numpy(), ids)), shape=(len(ids_BL), height)
    )
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return counts


def inverse_frequency(counts: sparse.csr_array) -> np.ndarray:
    """A weight for each token, as scikit-learn has it: log((1 + n) / (1 + df)) + 1; 0 for one that no
    row has.
    """
    rows = np.bincount(sparse.csr_array(counts).indices, minlength=counts.shape[1])
    return np.where(rows > 0, np.log((1 + counts.shape[0]) / (1 + rows)) + 1, 0).astype(np.float32)


def unit_rows(x: Matrix) -> sparse.csr_array:
    """Each row scaled to length 1."""
    x = sparse.csr_array(x)
    length = np.sqrt(x.multiply(x).sum(1))
    return sparse.csr_array(x.multiply(1 / np.maximum(length, 1e-12)[:, None]))


def _nothing(layout: Layout) -> Values:
    """One empty cell."""
    ragged = layout.kind in ("spectrogram", "wave", "frames")
    size = (1, *layout.size[1:]) if ragged else layout.size
    return Values(torch.zeros(1, *size), torch.ones(1, dtype=torch.long) if ragged else None)


def _vector(values: Values) -> Tensor:
    return values.x.flatten(1)


def _thumbnail(values: Values) -> Tensor:
    return F.adaptive_avg_pool2d(values.x.float(), THUMBNAIL).flatten(1)


def _spectrum(values: Values) -> Tensor:
    """Mean and deviation over time of each band."""
    x_BLD, mask_BL = values.x.float(), values.mask_BL()
    mean_BD = masked_mean(x_BLD, mask_BL)
    spread_BD = masked_mean((x_BLD - mean_BD[:, None]) ** 2, mask_BL).sqrt()
    return torch.cat([mean_BD, spread_BD], 1)


def _wave(values: Values) -> Tensor:
    """The same of the power in 32 equal bands, from spectra of 400 samples."""
    x = F.pad(values.x.float(), (0, max(400 - values.x.shape[1], 0))).unfold(1, 400, 200) * torch.hann_window(
        400, device=values.x.device
    )
    power = torch.fft.rfft(x).abs().square().clamp_min(1e-10).log10()
    assert values.length_B is not None
    return _spectrum(
        Values(F.adaptive_avg_pool1d(power, 32), ((values.length_B - 400) // 200 + 1).clamp(min=1))
    )


def _film(values: Values) -> Tensor:
    """The thumbnail of the mean frame, and of how much frames differ from the one before."""
    x, mask_BL = values.x.float(), values.mask_BL()
    small = F.adaptive_avg_pool2d(x.flatten(0, 1), THUMBNAIL).unflatten(0, x.shape[:2]).flatten(2)
    change = (small[:, 1:] - small[:, :-1]).abs()
    moved = masked_mean(change, mask_BL[:, 1:]) if change.shape[1] else torch.zeros_like(small[:, 0])
    return torch.cat([masked_mean(small, mask_BL), moved], 1)


KINDS: dict[str, Callable[[Values], Tensor]] = {
    "vector": _vector,
    "grid": _thumbnail,
    "spectrogram": _spectrum,
    "wave": _wave,
    "frames": _film,
}
