"""Summarise cells in numbers that are not trained: mean spectra, thumbnails, counts of n-grams.

Linear models read them, and alignments begin at them. Shape letters: B rows, L steps, D width, T spectra of a
wave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.batch import Layout, Values
from plait.nn.layers import masked_mean
from plait.nn.traits import Traits, TraitsLayout

Matrix: TypeAlias = Any  # floats (rows, width): a numpy array, or a csr_array of scipy, which has no types


THUMBNAIL = 8  # pixels on a side
WIDTH = 256  # how many numbers describe a text
LEAST_SPREAD = 1e-6  # numbers that vary less are set to zero: dividing by the spread would blow them up
SPECTRUM = 400  # samples of a wave in one spectrum; spectra overlap by half
WAVE_BANDS = 32  # bands that the power of a wave is averaged in


class Statistics(nn.Module):
    """Standardised numbers of a cell, (B, width), from its traits. Zeros before `fit`.

    First come the traits' numbers, each of mean 0 and standard deviation 1 over the training rows. Of a text,
    its TF-IDF in their main directions follow (Deerwester et al. 1990, "latent semantic analysis"). Together
    these have mean square 1.
    """

    def __init__(self, layout: TraitsLayout) -> None:
        super().__init__()
        self.layout = layout
        self.height = layout.ngrams
        self.words = WIDTH if layout.ngrams else 0
        self.width = layout.width + self.words

        self.mean: Tensor
        self.scale: Tensor
        self.weight: Tensor
        self.directions: Tensor
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("scale", torch.zeros(self.width))
        if self.height:
            self.register_buffer("weight", torch.zeros(self.height))
            self.register_buffer("directions", torch.zeros(self.height, self.words))

    @property
    def blocks(self) -> list[slice]:
        """Return the places of the blocks: numbers of one kind each, and the directions of texts."""
        widths = [*self.layout.numbers, self.words]
        blocks, start = [], 0
        for width in widths:
            if width:
                blocks.append(slice(start, start + width))
            start += width
        return blocks

    @torch.no_grad()
    def fit(self, traits: Traits) -> None:
        """Set means and scales, and for texts weights and directions. Without rows, everything stays zero."""
        if not len(traits.numbers_BM):
            return
        x_BD = traits.numbers_BM
        if self.height:
            x_BD = torch.cat([x_BD, self._fit_words(traits)], 1)
        mean_D = x_BD.mean(0)
        variance_D = (x_BD - mean_D).square().mean(0)

        # The directions of texts share one scale, so that they keep their proportions.
        if self.words:
            variance_D[self.layout.width :] = variance_D[self.layout.width :].mean()
        spread_D = variance_D.sqrt()
        inverse_spread_D = 1 / spread_D.clamp(min=LEAST_SPREAD)
        self.mean.copy_(mean_D)
        self.scale.copy_(torch.where(spread_D > LEAST_SPREAD, inverse_spread_D, 0))

    def _fit_words(self, traits: Traits) -> Tensor:
        """Set weights and directions. Return the training texts in these directions, (B, words)."""
        from sklearn.decomposition import TruncatedSVD

        assert traits.ids_T is not None
        counts = _counts(traits.row_of_ngram(), traits.ids_T, (len(traits.numbers_BM), self.height))
        weight = inverse_frequency(counts)
        self.weight.copy_(torch.from_numpy(weight))
        tfidf = unit_rows(counts.multiply(weight[None]))

        # Most buckets of n-grams are empty: the decomposition sees only those that some text uses.
        used = np.flatnonzero(weight)
        width = min(self.words, counts.shape[0] - 1, len(used) - 1)
        if width > 0:
            decomposition = TruncatedSVD(width, random_state=0).fit(tfidf[:, used])
            directions = decomposition.components_.T
            self.directions[used, :width] = torch.from_numpy(directions).float()
        return torch.from_numpy(tfidf @ self.directions.cpu().numpy()).float()

    def forward(self, traits: Traits) -> Tensor:
        """Return the numbers of cells, (B, width)."""
        x_BD = traits.numbers_BM
        if self.height:
            x_BD = torch.cat([x_BD, self._words(traits)], 1)
        return (x_BD - self.mean) * self.scale

    def _words(self, traits: Traits) -> Tensor:
        """Return the unit vectors of TF-IDF in the main directions, (B, words).

        They are what `inverse_frequency` and `unit_rows` give, but on any device.
        """
        assert traits.ids_T is not None
        rows = len(traits.numbers_BM)

        # Count each pair of a row and an n-gram. The pairs come sorted by row.
        pairs = traits.row_of_ngram() * self.height + traits.ids_T
        pairs, count = torch.unique(pairs, return_counts=True)
        row = pairs // self.height
        word = pairs % self.height

        weight = (1 + count.log()) * self.weight[word]
        zeros_B = torch.zeros(rows, device=weight.device)
        square_B = zeros_B.index_add(0, row, weight.square())
        weight = weight / square_B[row].sqrt().clamp(min=1e-12)

        row_B = torch.arange(rows, device=row.device)
        first_B = torch.searchsorted(row, row_B)  # where the words of each row begin
        return F.embedding_bag(word, self.directions, first_B, mode="sum", per_sample_weights=weight)


def word_counts(ids_BL: Tensor, mask_BL: Tensor, height: int) -> sparse.csr_array:
    """Return 1 + log(count) of each token in each row that has it, (B, height)."""
    rows, steps = mask_BL.nonzero(as_tuple=True)
    return _counts(rows, ids_BL[rows, steps], (len(ids_BL), height))


def _counts(row_T: Tensor, id_T: Tensor, shape: tuple[int, int]) -> sparse.csr_array:
    """Return 1 + log(count) of each token in each row that has it, from all pairs of row and token."""
    ones = np.ones(len(id_T), dtype=np.float32)
    counts = sparse.csr_array((ones, (row_T.numpy(), id_T.numpy())), shape=shape)
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return counts


def inverse_frequency(counts: sparse.csr_array) -> np.ndarray:
    """Return the weight of each token, log((1 + n) / (1 + df)) + 1 as in scikit-learn; 0 if no row has it."""
    rows, height = counts.shape
    token_of_entry = sparse.csr_array(counts).indices
    rows_with_token = np.bincount(token_of_entry, minlength=height)
    weight = np.log((1 + rows) / (1 + rows_with_token)) + 1
    return np.where(rows_with_token > 0, weight, 0).astype(np.float32)


def unit_rows(x: Matrix) -> sparse.csr_array:
    """Scale each row to length 1."""
    x = sparse.csr_array(x)
    length = np.sqrt(x.multiply(x).sum(1))
    scale = 1 / np.maximum(length, 1e-12)
    return sparse.csr_array(x.multiply(scale[:, None]))


def mean_of_several(x: Tensor, count_B: Tensor | None) -> Tensor:
    """Average the rows of `x` that belong to one cell, for cells that hold several media."""
    if count_B is None:
        return x
    owner = torch.arange(len(count_B)).repeat_interleave(count_B)
    zeros = torch.zeros(len(count_B), x.shape[1])
    sums = zeros.index_add(0, owner, x)
    return sums / count_B.clamp(min=1)[:, None]


def summary_width(layout: Layout) -> int:
    """Return how many numbers summarise a cell of a layout that `KINDS` has."""
    summary_of_empty = KINDS[layout.kind](_empty_cell(layout))
    return int(summary_of_empty.shape[1])


def _empty_cell(layout: Layout) -> Values:
    """Return one cell of zeros in a layout, of one step where cells have lengths."""
    if not layout.is_recording:
        return Values(torch.zeros(1, *layout.size))
    length_B = torch.ones(1, dtype=torch.long)
    return Values(torch.zeros(1, 1, *layout.size[1:]), length_B)


def _vector(values: Values) -> Tensor:
    """Return vectors as they are, (B, D)."""
    return values.x.flatten(1)


def _thumbnail(values: Values) -> Tensor:
    """Return each image at 8 x 8 pixels, (B, channels * 64)."""
    return F.adaptive_avg_pool2d(values.x.float(), THUMBNAIL).flatten(1)


def spectrum(values: Values) -> Tensor:
    """Return mean and standard deviation over time of each band, (B, 2 bands)."""
    x_BLD = values.x.float()
    mask_BL = values.mask_BL()
    mean_BD = masked_mean(x_BLD, mask_BL)
    square_BLD = (x_BLD - mean_BD[:, None]) ** 2
    spread_BD = masked_mean(square_BLD, mask_BL).sqrt()
    return torch.cat([mean_BD, spread_BD], 1)


def _wave(values: Values) -> Tensor:
    """Return mean and standard deviation over time of the logarithm of power in 32 equal bands, (B, 64)."""
    assert values.length_B is not None
    hop = SPECTRUM // 2
    padding = max(SPECTRUM - values.x.shape[1], 0)
    padded_BL = F.pad(values.x.float(), (0, padding))
    stretches = padded_BL.unfold(1, SPECTRUM, hop)

    window = torch.hann_window(SPECTRUM, device=values.x.device)
    spectra = torch.fft.rfft(stretches * window)
    power = spectra.abs().square().clamp_min(1e-10).log10()
    bands_BTD = F.adaptive_avg_pool1d(power, WAVE_BANDS)

    length_B = ((values.length_B - SPECTRUM) // hop + 1).clamp(min=1)
    return spectrum(Values(bands_BTD, length_B))


def _video(values: Values) -> Tensor:
    """Return thumbnails of the mean frame, and of the mean change from one frame to the next."""
    frames = values.x.float()
    mask_BL = values.mask_BL()
    thumbnails = F.adaptive_avg_pool2d(frames.flatten(0, 1), THUMBNAIL)
    thumbnail_BLD = thumbnails.unflatten(0, frames.shape[:2]).flatten(2)
    mean_BD = masked_mean(thumbnail_BLD, mask_BL)

    # A video of one frame does not change.
    mean_change_BD = torch.zeros_like(mean_BD)
    change_BLD = (thumbnail_BLD[:, 1:] - thumbnail_BLD[:, :-1]).abs()
    if change_BLD.shape[1]:
        mean_change_BD = masked_mean(change_BLD, mask_BL[:, 1:])
    return torch.cat([mean_BD, mean_change_BD], 1)


KINDS: dict[str, Callable[[Values], Tensor]] = {
    "vector": _vector,
    "grid": _thumbnail,
    "spectrogram": spectrum,
    "wave": _wave,
    "frames": _video,
}
