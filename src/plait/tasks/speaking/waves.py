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
from plait.modalities.audio import filters

ROUNDS = 60  # of Griffin and Lim's algorithm
BAND_ROUNDS = 30  # of the multiplicative updates from mel bands to frequencies
MOMENTUM = 0.99


def alignment(log_p_BTL: Tensor, steps_B: Tensor, letters_B: Tensor) -> Tensor:
    """Return the number of spectra of each letter, (B, L), by the likeliest monotonic alignment.

    Every spectrum goes to a letter, in order, and every letter gets one at least (Kim et al. 2020,
    "Glow-TTS", eq. 6 and 7, monotonic alignment search). `log_p_BTL` is the log-probability that a letter
    makes a spectrum. In a row with fewer spectra than letters, the first letters get one each.
    """
    count, steps, letters = log_p_BTL.shape
    impossible = torch.finfo(torch.float32).min / 4
    log_p_BTL = log_p_BTL.float()
    device = log_p_BTL.device

    # Forward: the best path to each letter, and whether it came from the letter before.
    best_BL = log_p_BTL.new_full((count, letters), impossible)
    moved_BTL = torch.zeros(count, steps, letters, dtype=torch.bool, device=device)
    for t in range(steps):
        start_B1 = best_BL.new_full((count, 1), 0.0 if t == 0 else impossible)
        before_BL = torch.cat([start_B1, best_BL[:, :-1]], 1)
        moved_BTL[:, t] = before_BL > best_BL
        best_BL = torch.maximum(before_BL, best_BL) + log_p_BTL[:, t]

    # Backward: follow the best path from the last letter.
    count_BL = torch.zeros(count, letters, dtype=torch.long, device=device)
    letter_B = torch.minimum(letters_B, steps_B).clamp(min=1) - 1
    for t in range(steps - 1, -1, -1):
        is_valid_B = t < steps_B
        count_BL.scatter_add_(1, letter_B[:, None], is_valid_B.long()[:, None])
        moved_B = moved_BTL[:, t].gather(1, letter_B[:, None])[:, 0]
        letter_B = letter_B - (moved_B & is_valid_B & (letter_B > 0)).long()
    return count_BL


def unevenness(steps_B: Tensor, letters_B: Tensor, steps: int, letters: int) -> Tensor:
    """Return the squared difference of a spectrum's and a letter's relative position, (B, T, L).

    Positions go from 0 to 1 in the recording and in the text. As the prior of Badlani et al. 2022 ("One TTS
    alignment to rule them all", sec. 2.4), this favours the diagonal. Without it, a letter that is assigned
    the silence early in training keeps it.
    """
    device = steps_B.device
    position_BT = (torch.arange(steps, device=device) + 0.5) / steps_B[:, None].clamp(min=1)
    position_BL = (torch.arange(letters, device=device) + 0.5) / letters_B[:, None].clamp(min=1)
    return (position_BT[:, :, None] - position_BL[:, None]).square()


def spread(x_BLD: Tensor, count_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat each letter's vector as often as it counts.

    Returns the vectors (B, T, D), and how far each of them is in its letter, from 0 to 1, (B, T).
    """
    end_BL = count_BL.cumsum(1)
    steps = max(int(end_BL[:, -1].max()), 1)
    step_T = torch.arange(steps, device=x_BLD.device)
    step_BT = step_T.expand(len(x_BLD), -1).contiguous()
    letter_BT = torch.searchsorted(end_BL, step_BT, right=True).clamp(max=x_BLD.shape[1] - 1)
    count_BT = count_BL.gather(1, letter_BT)
    start_BT = end_BL.gather(1, letter_BT) - count_BT
    place_BT = (step_T - start_BT + 0.5) / count_BT.clamp(min=1)
    return x_BLD.gather(1, letter_BT[..., None].expand(-1, -1, x_BLD.shape[2])), place_BT


def griffin_lim(log_mel_TM: Tensor, config: AudioConfig) -> np.ndarray:
    """Return a wave whose mel spectra have these powers, as logarithms to base 10.

    Mel bands become frequencies by least squares without negative powers, in a few multiplicative updates
    (Lee & Seung 2001). Phases are estimated by going back and forth (Griffin & Lim 1984), with momentum
    (Perraudin et al. 2013).
    """
    width, hop = round(config.window * config.rate), max(round(config.hop * config.rate), 1)
    highest = min(config.highest, config.rate / 2)
    window, weights_FM = filters(config.rate, width, config.bands, config.lowest, highest)
    size_FT = _frequencies(10.0 ** log_mel_TM.float(), weights_FM).sqrt().T

    generator = torch.Generator().manual_seed(0)
    phase_FT = torch.exp(2j * torch.pi * torch.rand(size_FT.shape, generator=generator))
    previous_FT = torch.zeros_like(phase_FT)
    length = (len(log_mel_TM) - 1) * hop or None
    for _ in range(ROUNDS):
        wave = torch.istft(size_FT * phase_FT, width, hop, window=window, length=length)
        spectrum_FT = torch.stft(wave, width, hop, window=window, return_complex=True)
        accelerated_FT = spectrum_FT + MOMENTUM * (spectrum_FT - previous_FT)
        phase_FT = accelerated_FT / accelerated_FT.abs().clamp(min=1e-9)
        previous_FT = spectrum_FT
    return np.asarray(torch.istft(size_FT * phase_FT, width, hop, window=window, length=length))


def _frequencies(power_TM: Tensor, weights_FM: Tensor) -> Tensor:
    """Return powers (T, F) of frequencies from those of mel bands, by non-negative least squares."""
    target_TF = power_TM @ weights_FM.T
    power_TF = target_TF / weights_FM.sum(0).square().mean()
    for _ in range(BAND_ROUNDS):
        present_TF = power_TF @ weights_FM @ weights_FM.T
        power_TF = power_TF * target_TF / present_TF.clamp(min=1e-12)
    return power_TF


def wav(wave: np.ndarray, rate: int) -> bytes:
    """Return a WAV file of 16 bits a sample. A wave with amplitudes above 1 is scaled down."""
    loudest = float(np.abs(wave).max(initial=0.0))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave / max(loudest, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
