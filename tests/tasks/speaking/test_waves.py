"""Alignment of letters with spectra, and waves from spectra."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import soundfile
import torch

from plait.modalities.audio import Config, log_mel
from plait.tasks.speaking.waves import alignment, griffin_lim, spread, wav
from support.media import wave


@pytest.mark.parametrize("seed", range(10))
def test_the_alignment_is_the_likeliest_of_all(seed: int) -> None:
    log_p = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(seed))
    counts = alignment(log_p, torch.tensor([7]), torch.tensor([4]))[0].tolist()
    all_counts = [counts for counts in itertools.product(range(1, 8), repeat=4) if sum(counts) == 7]

    def log_probability(counts: tuple[int, ...]) -> float:
        letter_of_step = torch.from_numpy(np.repeat(np.arange(4), counts))
        return float(log_p[0, torch.arange(7), letter_of_step].sum())

    assert tuple(counts) == max(all_counts, key=log_probability)


def test_rows_of_a_batch_are_aligned_independently() -> None:
    log_p = torch.randn(2, 9, 5)
    counts = alignment(log_p, torch.tensor([9, 6]), torch.tensor([5, 3]))
    first_row = alignment(log_p[:1], torch.tensor([9]), torch.tensor([5]))
    second_row = alignment(log_p[1:, :6, :3], torch.tensor([6]), torch.tensor([3]))
    assert torch.equal(counts[0], first_row[0])
    assert torch.equal(counts[1, :3], second_row[0])
    assert counts[1].tolist()[3:] == [0, 0]
    assert counts.sum(1).tolist() == [9, 6]
    assert alignment(log_p[:1], torch.tensor([2]), torch.tensor([5])).sum() == 2, "fewer spectra than letters"


def test_letters_are_repeated_as_often_as_they_count() -> None:
    x, position = spread(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[2, 0, 4]]))
    assert x[0, :, 0].tolist() == [1, 1, 3, 3, 3, 3]
    assert position[0].tolist() == pytest.approx([0.25, 0.75, 0.125, 0.375, 0.625, 0.875])


def test_a_wave_has_the_spectra_that_it_was_made_from() -> None:
    config = Config(rate=16_000, window=0.05, hop=0.0125, highest=8000)
    audio = torch.from_numpy(np.concatenate([wave(0.4, 500), wave(0.4, 1800)]))
    mel = log_mel(audio, config)
    mel_of_wave = log_mel(torch.from_numpy(griffin_lim(mel, config)), config)
    assert abs(len(mel_of_wave) - len(mel)) <= 1

    # Tenths of a power of ten, where it is not silent.
    is_loud = mel > mel.max() - 3
    difference = (mel_of_wave[: len(mel)] - mel)[is_loud[: len(mel_of_wave)]]
    assert float(difference.abs().mean()) < 0.25


def test_waves_are_files_that_can_be_read() -> None:
    for loud in (0.5, 3.0):
        samples, rate = soundfile.read(io.BytesIO(wav(wave(0.1) * loud, 16_000)))
        assert rate == 16_000
        assert np.abs(samples).max() <= 1
        assert len(samples) == 1600
