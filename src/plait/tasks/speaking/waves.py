"""Align letters with spectra, and turn spectra into a wave.

B rows, L letters, T spectra, M mel bands, F frequencies, D width of a letter's vector.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
import torch
from torch import Tensor

from plait.modalities.audio import Config as AudioConfig
from plait.nn.mel import mel_triangles

ROUNDS = 60  # of Griffin and Lim's algorithm
MOMENTUM = 0.99  # of these rounds: alpha of Perraudin et al. 2013
BAND_ROUNDS = 30  # of the multiplicative updates from mel bands to frequencies


def alignment(log_p_BTL: Tensor, steps_B: Tensor, letters_B: Tensor) -> Tensor:
    """Return the number of spectra of each letter, (B, L), by the likeliest monotonic alignment.

    Every spectrum goes to a letter, in order, and every letter gets one at least (Kim et al. 2020,
    "Glow-TTS", eq. 6 and 7, monotonic alignment search). `log_p_BTL` is the log-probability that a letter
    makes a spectrum. In a row with fewer spectra than letters, the first letters get one each.
    """
    rows, steps, letters = log_p_BTL.shape
    impossible = torch.finfo(torch.float32).min / 4
    log_p_BTL = log_p_BTL.float()
    device = log_p_BTL.device

    # Forward: the best path to each letter, and whether it came from the letter before.
    best_BL = log_p_BTL.new_full((rows, letters), impossible)
    moved_BTL = torch.zeros(rows, steps, letters, dtype=torch.bool, device=device)
    for t in range(steps):
        # Only the first spectrum may come to the first letter from before the text.
        start = 0.0 if t == 0 else impossible
        start_B1 = best_BL.new_full((rows, 1), start)
        before_BL = torch.cat([start_B1, best_BL[:, :-1]], 1)
        moved_BTL[:, t] = before_BL > best_BL
        best_BL = torch.maximum(before_BL, best_BL) + log_p_BTL[:, t]

    # Backward: follow the best path from the last letter.
    count_BL = torch.zeros(rows, letters, dtype=torch.long, device=device)
    letter_B1 = torch.minimum(letters_B, steps_B).clamp(min=1)[:, None] - 1
    for t in range(steps - 1, -1, -1):
        is_valid_B1 = (t < steps_B)[:, None]
        count_BL.scatter_add_(1, letter_B1, is_valid_B1.long())
        moved_B1 = moved_BTL[:, t].gather(1, letter_B1)
        goes_back_B1 = moved_B1 & is_valid_B1 & (letter_B1 > 0)
        letter_B1 = letter_B1 - goes_back_B1.long()
    return count_BL


def unevenness(steps_B: Tensor, letters_B: Tensor, steps: int, letters: int) -> Tensor:
    """Return the squared difference of a spectrum's and a letter's relative position, (B, T, L).

    Positions go from 0 to 1 in the recording and in the text. As the prior of Badlani et al. 2022 ("One TTS
    alignment to rule them all", sec. 2.4), this favours the diagonal. Without it, a letter that is assigned
    the silence early in training keeps it.
    """
    step_T = torch.arange(steps, device=steps_B.device)
    letter_L = torch.arange(letters, device=steps_B.device)
    position_BT = (step_T + 0.5) / steps_B[:, None].clamp(min=1)
    position_BL = (letter_L + 0.5) / letters_B[:, None].clamp(min=1)
    difference_BTL = position_BT[:, :, None] - position_BL[:, None]
    return difference_BTL.square()


def spread(x_BLD: Tensor, count_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat each letter's vector as often as it counts.

    Return the vectors (B, T, D), and how far each of them is in its letter, from 0 to 1, (B, T).
    """
    rows, letters, width = x_BLD.shape
    end_BL = count_BL.cumsum(1)
    steps = max(int(end_BL[:, -1].max()), 1)
    step_T = torch.arange(steps, device=x_BLD.device)

    # The letter of a step is the first one that ends behind it. Steps behind the text get the last letter.
    step_BT = step_T.expand(rows, -1).contiguous()
    letter_BT = torch.searchsorted(end_BL, step_BT, right=True).clamp(max=letters - 1)

    count_BT = count_BL.gather(1, letter_BT)
    start_BT = end_BL.gather(1, letter_BT) - count_BT
    position_BT = (step_T - start_BT + 0.5) / count_BT.clamp(min=1)
    letter_BTD = letter_BT[..., None].expand(-1, -1, width)
    return x_BLD.gather(1, letter_BTD), position_BT


def griffin_lim(log_mel_TM: Tensor, config: AudioConfig) -> np.ndarray:
    """Return a wave whose mel spectra have these powers, as logarithms to base 10.

    Mel bands become frequencies by least squares without negative powers, in a few multiplicative updates
    (Lee & Seung 2001). Phases are estimated by going back and forth (Griffin & Lim 1984), with momentum
    (Perraudin et al. 2013).
    """
    width = round(config.window * config.rate)
    hop = max(round(config.hop * config.rate), 1)
    highest = min(config.highest, config.rate / 2)
    window = torch.hann_window(width)
    weights_FM = mel_triangles(config.rate, width, config.bands, config.lowest, highest, config.scale)
    power_TM = 10.0 ** log_mel_TM.float()
    size_FT = _frequencies(power_TM, weights_FM).sqrt().T

    # Phases start at random, the same ones each time.
    generator = torch.Generator().manual_seed(0)
    turn_FT = torch.rand(size_FT.shape, generator=generator)
    phase_FT = torch.exp(2j * torch.pi * turn_FT)
    previous_FT = torch.zeros_like(phase_FT)
    length = (len(log_mel_TM) - 1) * hop or None
    for _ in range(ROUNDS):
        # Keep the phases of the wave's spectra, and drop their magnitudes.
        wave = torch.istft(size_FT * phase_FT, width, hop, window=window, length=length)
        spectrum_FT = torch.stft(wave, width, hop, window=window, return_complex=True)
        accelerated_FT = spectrum_FT + MOMENTUM * (spectrum_FT - previous_FT)
        phase_FT = accelerated_FT / accelerated_FT.abs().clamp(min=1e-9)
        previous_FT = spectrum_FT
    wave = torch.istft(size_FT * phase_FT, width, hop, window=window, length=length)
    return np.asarray(wave)


def _frequencies(power_TM: Tensor, weights_FM: Tensor) -> Tensor:
    """Return powers (T, F) of frequencies from those of mel bands, by non-negative least squares."""
    # Each update keeps powers positive, and lowers the squared error.
    target_TF = power_TM @ weights_FM.T
    power_TF = target_TF / weights_FM.sum(0).square().mean()
    for _ in range(BAND_ROUNDS):
        present_TF = power_TF @ weights_FM @ weights_FM.T
        power_TF = power_TF * target_TF / present_TF.clamp(min=1e-12)
    return power_TF


def wav(wave: np.ndarray, rate: int) -> bytes:
    """Return a WAV file of 16 bits a sample. A wave with amplitudes above 1 is scaled down."""
    loudest = float(np.abs(wave).max(initial=0.0))
    scaled = wave / max(loudest, 1.0)
    buffer = io.BytesIO()
    soundfile.write(buffer, scaled, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
