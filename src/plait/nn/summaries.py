"""Summarise cells in numbers that are not trained: mean spectra, thumbnails, counts of n-grams.

Linear models read them, and alignments begin at them. Shape letters: B rows, L steps, D width.
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


WIDTH = 256  # how many numbers describe a text


LEAST_SPREAD = 1e-6  # numbers that vary less are set to zero: dividing by the spread would blow them up


WORDS = ("bag", "tokens")  # kinds of cells whose n-grams or tokens are counted


class Statistics(nn.Module):
    """Standardised numbers of a cell, (B, width), of mean 0 over the training rows. Zeros before `fit`.

    Those of texts are the main directions of their TF-IDF (Deerwester et al. 1990, "latent semantic
    analysis"), of mean square 1 together. Those of other cells have standard deviation 1 each.
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
        """Return whether cells of this layout have such numbers."""
        return layout.kind in WORDS or layout.kind in KINDS

    @torch.no_grad()
    def fit(self, cells: Iterable[Values]) -> None:
        """Set means and scales, and for texts weights and directions, from batches of cells.

        Cells are those that encoders take. Without any, everything stays zero.
        """
        summaries = [self._summary(values) for values in cells if len(values.x)]
        if not summaries:
            return
        is_text = self.kind in WORDS
        x_BD = self._fit_words(summaries) if is_text else torch.cat(summaries)

        # the directions of texts keep their proportions: they share one scale
        variance = (x_BD - x_BD.mean(0)).square().mean(None if is_text else 0)
        spread_D = variance.sqrt().expand(self.width)
        self.mean.copy_(x_BD.mean(0))
        self.scale.copy_(torch.where(spread_D > LEAST_SPREAD, 1 / spread_D.clamp(min=LEAST_SPREAD), 0))

    def _fit_words(self, counted: list[sparse.csr_array]) -> Tensor:
        """Set weights and directions. Returns the training texts in these directions, (B, width)."""
        from sklearn.decomposition import TruncatedSVD

        counts = sparse.vstack(counted)
        weight = inverse_frequency(counts)
        tfidf = unit_rows(counts.multiply(weight[None]))
        self.weight.copy_(torch.from_numpy(weight))
        used = np.flatnonzero(weight)  # most buckets of n-grams are empty
        width = min(self.width, counts.shape[0] - 1, len(used) - 1)
        if width > 0:
            decomposition = TruncatedSVD(width, random_state=0).fit(tfidf[:, used])
            self.directions[used, :width] = torch.from_numpy(decomposition.components_.T)
        return torch.from_numpy(tfidf @ self.directions.numpy())

    def _summary(self, values: Values) -> Tensor | sparse.csr_array:
        """Return counts of words of texts as a sparse matrix, or the numbers of other cells as a tensor."""
        if self.kind in WORDS:
            return word_counts(values.x, values.mask_BL(), self.height)
        return KINDS[self.kind](values)

    def forward(self, values: Values) -> Tensor:
        """Return the numbers of cells, (B, width)."""
        if not len(values.x):
            return self.mean.new_zeros(0, self.width)
        numbers_BD = self._words(values) if self.kind in WORDS else KINDS[self.kind](values)
        return (numbers_BD - self.mean) * self.scale

    def _words(self, values: Values) -> Tensor:
        """Return the unit vectors of TF-IDF in the main directions, (B, width).

        They are what `word_counts`, `inverse_frequency` and `unit_rows` give, but on any device.
        """
        rows, steps = values.mask_BL().nonzero(as_tuple=True)
        pairs, count = torch.unique(rows * self.height + values.x[rows, steps], return_counts=True)
        row, word = pairs // self.height, pairs % self.height
        weight = (1 + count.log()) * self.weight[word]
        square_B = torch.zeros(len(values.x), device=weight.device).index_add(0, row, weight.square())
        weight = weight / square_B[row].sqrt().clamp(min=1e-12)
        first_B = torch.searchsorted(row, torch.arange(len(values.x), device=row.device))
        return F.embedding_bag(word, self.directions, first_B, mode="sum", per_sample_weights=weight)


def word_counts(ids_BL: Tensor, mask_BL: Tensor, height: int) -> sparse.csr_array:
    """Return 1 + log(count) of each token in each row that has it, (B, height)."""
    rows, steps = mask_BL.nonzero(as_tuple=True)
    ids = ids_BL[rows, steps].numpy()
    ones = np.ones(len(ids), dtype=np.float32)
    counts = sparse.csr_array((ones, (rows.numpy(), ids)), shape=(len(ids_BL), height))
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return counts


def inverse_frequency(counts: sparse.csr_array) -> np.ndarray:
    """Return the weight of each token, log((1 + n) / (1 + df)) + 1 as in scikit-learn; 0 if no row has it."""
    rows_with_token = np.bincount(sparse.csr_array(counts).indices, minlength=counts.shape[1])
    weight = np.log((1 + counts.shape[0]) / (1 + rows_with_token)) + 1
    return np.where(rows_with_token > 0, weight, 0).astype(np.float32)


def unit_rows(x: Matrix) -> sparse.csr_array:
    """Scale each row to length 1."""
    x = sparse.csr_array(x)
    length = np.sqrt(x.multiply(x).sum(1))
    return sparse.csr_array(x.multiply(1 / np.maximum(length, 1e-12)[:, None]))


def _nothing(layout: Layout) -> Values:
    """Return one empty cell of a layout."""
    ragged = layout.kind in ("spectrogram", "wave", "frames")
    size = (1, *layout.size[1:]) if ragged else layout.size
    return Values(torch.zeros(1, *size), torch.ones(1, dtype=torch.long) if ragged else None)


def _vector(values: Values) -> Tensor:
    return values.x.flatten(1)


def _thumbnail(values: Values) -> Tensor:
    """Return each image at 8 x 8 pixels, (B, channels * 64)."""
    return F.adaptive_avg_pool2d(values.x.float(), THUMBNAIL).flatten(1)


def _spectrum(values: Values) -> Tensor:
    """Return mean and standard deviation over time of each band, (B, 2 bands)."""
    x_BLD, mask_BL = values.x.float(), values.mask_BL()
    mean_BD = masked_mean(x_BLD, mask_BL)
    spread_BD = masked_mean((x_BLD - mean_BD[:, None]) ** 2, mask_BL).sqrt()
    return torch.cat([mean_BD, spread_BD], 1)


def _wave(values: Values) -> Tensor:
    """Return the same for the power in 32 equal bands, from spectra of 400 samples; (B, 64)."""
    assert values.length_B is not None
    missing = max(400 - values.x.shape[1], 0)
    stretches = F.pad(values.x.float(), (0, missing)).unfold(1, 400, 200)
    spectra = torch.fft.rfft(stretches * torch.hann_window(400, device=values.x.device))
    power = spectra.abs().square().clamp_min(1e-10).log10()
    length_B = ((values.length_B - 400) // 200 + 1).clamp(min=1)
    return _spectrum(Values(F.adaptive_avg_pool1d(power, 32), length_B))


def _film(values: Values) -> Tensor:
    """Return thumbnails of the mean frame, and of the mean change from one frame to the next."""
    x, mask_BL = values.x.float(), values.mask_BL()
    small_BLD = F.adaptive_avg_pool2d(x.flatten(0, 1), THUMBNAIL).unflatten(0, x.shape[:2]).flatten(2)
    change_BLD = (small_BLD[:, 1:] - small_BLD[:, :-1]).abs()
    moved_BD = torch.zeros_like(small_BLD[:, 0])
    if change_BLD.shape[1]:
        moved_BD = masked_mean(change_BLD, mask_BL[:, 1:])
    return torch.cat([masked_mean(small_BLD, mask_BL), moved_BD], 1)


KINDS: dict[str, Callable[[Values], Tensor]] = {
    "vector": _vector,
    "grid": _thumbnail,
    "spectrogram": _spectrum,
    "wave": _wave,
    "frames": _film,
}
