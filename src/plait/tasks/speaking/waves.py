"""Speech out of spectra: which letter sounds when, and a wave that has given spectra. B rows, L
letters, T spectra, M bands.
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


MOMENTUM = 0.99


def alignment(log_p_BTL: Tensor, steps_B: Tensor, letters_B: Tensor) -> Tensor:
    """For each letter the number of spectra that are its own, (B, L): of all ways to give every
    spectrum to a letter, in their order and at least one to each, the likeliest (Kim et al. 2020,
    "Glow-TTS", eq. 6 and 7, monotonic alignment search). `log_p` is how likely a letter makes a
    spectrum. A row that has fewer spectra than letters gets one for each letter as far as they go.
    """
    count, steps, letters = log_p_BTL.shape
    never = torch.finfo(torch.float32).min / 4
    log_p_BTL = log_p_BTL.float()
    best_BL = log_p_BTL.new_full((count, letters), never)
    came = torch.zeros(
        count, steps, letters, dtype=torch.bool, device=log_p_BTL.device
    )  # from the letter before
    for t in range(steps):
        before_BL = torch.cat([best_BL.new_full((count, 1), 0.0 if t == 0 else never), best_BL[:, :-1]], 1)
        came[:, t] = before_BL > best_BL
        best_BL = torch.maximum(before_BL, best_BL) + log_p_BTL[:, t]
    found = torch.zeros(count, letters, dtype=torch.long, device=log_p_BTL.device)
    at_B = torch.minimum(letters_B, steps_B).clamp(min=1) - 1
    for t in range(steps - 1, -1, -1):
        live_B = t < steps_B
        found.scatter_add_(1, at_B[:, None], live_B.long()[:, None])
        moves_B = came[:, t].gather(1, at_B[:, None])[:, 0] & live_B & (at_B > 0)
        at_B = at_B - moves_B.long()
    return found


def unevenness(steps_B: Tensor, letters_B: Tensor, steps: int, letters: int) -> Tensor:
    """The squared difference of how far each spectrum is in its recording and each letter in its text,
    (B, T, L): without a leaning to the diagonal, as the prior of Badlani et al. 2022 ("One TTS
    alignment to rule them all", sec. 2.4) has it, a letter that is given the silence at first keeps it.
    """
    device = steps_B.device
    along_BT = (torch.arange(steps, device=device) + 0.5) / steps_B[:, None].clamp(min=1)
    along_BL = (torch.arange(letters, device=device) + 0.5) / letters_B[:, None].clamp(min=1)
    return (along_BT[:, :, None] - along_BL[:, None]).square()


def spread(x_BLD: Tensor, count_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Each letter's vector as often as it counts, (B, T, D), and for each of them how far it is in its
    letter, from 0 to 1, (B, T).
    """
    end_BL = count_BL.cumsum(1)
    step_T = torch.arange(max(int(end_BL[:, -1].max()), 1), device=x_BLD.device)
    at_BT = torch.searchsorted(end_BL, step_T.expand(len(x_BLD), -1).contiguous(), right=True).clamp(
        max=x_BLD.shape[1] - 1
    )
    own_BT = count_BL.gather(1, at_BT)
    place_BT = (step_T - (end_BL.gather(1, at_BT) - own_BT) + 0.5) / own_BT.clamp(min=1)
    return x_BLD.gather(1, at_BT[..., None].expand(-1, -1, x_BLD.shape[2])), place_BT


def griffin_lim(log_mel_TM: Tensor, config: AudioConfig) -> np.ndarray:
    """A wave whose spectra have these powers in mel bands, as logarithms to base 10: bands become
    frequencies by the least squares that no power below zero solves (a few multiplicative steps, Lee &
    Seung 2001), phases are found by going back and forth (Griffin & Lim 1984), with momentum (Perraudin
    et al. 2013).
    """
    width, hop = round(config.window * config.rate), max(round(config.hop * config.rate), 1)
    window, weights_FM = filters(
        config.rate, width, config.bands, config.lowest, min(config.highest, config.rate / 2)
    )
    power_TM = 10.0 ** log_mel_TM.float()
    power_TF = power_TM @ weights_FM.T / weights_FM.sum(0).square().mean()
    for _ in range(30):
        power_TF = (
            power_TF * (power_TM @ weights_FM.T) / (power_TF @ weights_FM @ weights_FM.T).clamp(min=1e-12)
        )
    size_FT = power_TF.sqrt().T
    phase_FT = torch.exp(
        2j * torch.pi * torch.rand(size_FT.shape, generator=torch.Generator().manual_seed(0))
    )
    before = torch.zeros_like(phase_FT)
    length = (len(log_mel_TM) - 1) * hop
    for _ in range(ROUNDS):
        wave = torch.istft(size_FT * phase_FT, width, hop, window=window, length=length or None)
        again = torch.stft(wave, width, hop, window=window, return_complex=True)
        turned = again + MOMENTUM * (again - before)
        phase_FT, before = turned / turned.abs().clamp(min=1e-9), again
    return np.asarray(torch.istft(size_FT * phase_FT, width, hop, window=window, length=length or None))


def wav(wave: np.ndarray, rate: int) -> bytes:
    """As a file of 16 bits a sample; what is too loud is made as loud as can be."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, wave / max(float(np.abs(wave).max(initial=0.0)), 1.0), rate, format="WAV", subtype="PCM_16"
    )
    return buffer.getvalue()
