"""Measure cells in a few numbers that no training changes: how long they last, and how much they say.

Two modalities that say the same agree in such numbers: a longer text takes longer to read. Shape letters: B
rows, T steps of time, M mel bands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from plait.nn.batch import Values
from plait.nn.layers import masked_mean, steps_mask
from plait.nn.summaries import spectrum

TEXT_NUMBERS = 4
SOUND_NUMBERS = 6

# Letters that stand for a vowel in alphabets, without their accents; runs of them are about the syllables.
VOWELS = "aeiouy" + "æœøı" + "аеиоуыэюяіє" + "αεηιουω"
VOWEL_RUN = re.compile(f"[{VOWELS}]+")

# Signs that stand for a syllable each: digits, kana, Chinese characters, Hangul.
SYLLABLE = re.compile("[0-9\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

SMOOTHED = 0.07  # seconds over which the loudness is averaged
SYLLABLE_SECONDS = 0.13  # within which only one peak of the loudness counts
LEAST_HEIGHT = 0.3  # of a peak, between the quietest (0) and the loudest (1) stretches


def measure_texts(texts: Sequence[str]) -> Tensor:
    """Return the logarithms of the numbers of characters, words, letters and syllables, (B, 4)."""
    counts = torch.zeros(len(texts), TEXT_NUMBERS)
    for row, text in enumerate(texts):
        composed = unicodedata.normalize("NFC", text.lower())
        letters = sum(map(str.isalpha, composed))

        # "é" becomes "e" and an accent; Hangul would fall apart, so its syllables are counted before.
        plain = unicodedata.normalize("NFD", composed)
        syllables = len(VOWEL_RUN.findall(plain)) + len(SYLLABLE.findall(composed))
        counts[row] = torch.tensor([len(composed), len(composed.split()), letters, syllables])
    return counts.log1p()


def measure_sounds(level_BTM: Tensor, length_B: Tensor, hop: float) -> Tensor:
    """Return six numbers of recordings from their log-mel spectrograms (powers of ten), (B, 6).

    They are the logarithms of the duration, of the loud time, of the time from the first to the last loud
    step, and of the number of peaks of the loudness; and the peaks for each step and for each loud step.
    `hop` is the time between two steps in seconds.
    """
    if not len(level_BTM):
        return torch.zeros(0, SOUND_NUMBERS)
    mask_BT = steps_mask(level_BTM.shape[1], length_B)
    loudness_BT = level_BTM.mean(2)
    quiet_B1, loud_B1 = _range(loudness_BT, mask_BT)
    is_loud_BT = mask_BT & (loudness_BT >= (quiet_B1 + loud_B1) / 2)

    steps_B = length_B.clamp(min=1).float()
    loud_steps_B = is_loud_BT.sum(1).clamp(min=1).float()
    span_B = _span(is_loud_BT)
    peaks_B = _count_peaks(loudness_BT, mask_BT, quiet_B1, loud_B1, hop)
    logarithms = [(steps_B * hop).log(), (loud_steps_B * hop).log(), (span_B * hop).log(), peaks_B.log1p()]
    return torch.stack([*logarithms, peaks_B / steps_B, peaks_B / loud_steps_B], 1)


def _range(loudness_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loudness that 5 % and 95 % of each recording's steps lie below, (B, 1) each."""
    known_BT = loudness_BT.masked_fill(~mask_BT, torch.nan)
    quantiles_2B = torch.nanquantile(known_BT, torch.tensor([0.05, 0.95]), dim=1)
    quiet_B1, loud_B1 = quantiles_2B.nan_to_num()[:, :, None]
    return quiet_B1, loud_B1


def _span(is_loud_BT: Tensor) -> Tensor:
    """Return the number of steps from the first loud one to the last, at least 1, (B,)."""
    first_B = is_loud_BT.int().argmax(1)
    last_B = is_loud_BT.shape[1] - 1 - is_loud_BT.flip(1).int().argmax(1)
    span_B = torch.where(is_loud_BT.any(1), last_B - first_B + 1, 1)
    return span_B.float()


def _count_peaks(
    loudness_BT: Tensor, mask_BT: Tensor, quiet_B1: Tensor, loud_B1: Tensor, hop: float
) -> Tensor:
    """Count the peaks of the smoothed loudness: about as many as a voice makes syllables, (B,)."""
    # Padding must neither hide a peak nor be one.
    filled_BT = torch.where(mask_BT, loudness_BT, quiet_B1)
    smooth_BT = _pool(filled_BT, SMOOTHED / hop, F.avg_pool1d)
    highest_BT = _pool(smooth_BT, SYLLABLE_SECONDS / hop, F.max_pool1d)
    is_high_BT = smooth_BT > quiet_B1 + LEAST_HEIGHT * (loud_B1 - quiet_B1)

    # Of a plateau, the first step counts.
    rises_BT = F.pad(smooth_BT[:, 1:] > smooth_BT[:, :-1], (1, 0), value=True)
    is_peak_BT = (smooth_BT == highest_BT) & is_high_BT & rises_BT & mask_BT
    return is_peak_BT.sum(1).float()


def _pool(x_BT: Tensor, width: float, pool: object) -> Tensor:
    """Pool over windows of the odd number of steps nearest to `width`, with the ends repeated."""
    half = round(width) // 2
    padded_B1T = F.pad(x_BT[:, None], (half, half), mode="replicate")
    pooled_B1T: Tensor = pool(padded_B1T, 2 * half + 1, stride=1)  # type: ignore[operator]
    return pooled_B1T[:, 0]


def measure_bands(level_BTM: Tensor, length_B: Tensor) -> Tensor:
    """Return mean, deviation over time, and mean change from step to step of each band, (B, 3 M)."""
    summary_BD = spectrum(Values(level_BTM, length_B))
    change_BM = torch.zeros(len(level_BTM), level_BTM.shape[2])
    if level_BTM.shape[1] > 1:
        change_BTM = (level_BTM[:, 1:] - level_BTM[:, :-1]).abs()
        mask_BT = steps_mask(level_BTM.shape[1], length_B)
        change_BM = masked_mean(change_BTM, mask_BT[:, 1:])
    return torch.cat([summary_BD, change_BM], 1)
