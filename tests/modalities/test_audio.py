"""Mel spectrograms equal their definition, and training augments them as the options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from plait.modalities.audio import Audio, Config, augment, log_mel, view, windows
from plait.nn.batch import Values
from plait.table.table import Source
from support.media import wav, wave


def slaney_mel(hertz: float) -> float:
    return hertz / (200 / 3) if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def slaney_hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def by_definition(samples: np.ndarray, config: Config) -> np.ndarray:
    """Compute one spectrum and one band at a time, by the sums of the definitions, in float64."""
    width, hop = int(config.window * config.rate), int(config.hop * config.rate)
    padded = np.pad(samples.astype(float), width // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(width // 2 + 1), np.arange(width)) / width)
    grid = np.linspace(slaney_mel(config.lowest), slaney_mel(config.highest), config.bands + 2)
    edges = [slaney_hertz(mel) for mel in grid]
    rows = []
    for start in range(0, len(padded) - width + 1, hop):
        power = np.abs(basis @ (padded[start : start + width] * window)) ** 2
        row = []
        for low, middle, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            total = 0.0
            for k, power_at_k in enumerate(power):
                frequency = k * config.rate / width
                weight = 0.0
                if low <= frequency <= middle:
                    weight = (frequency - low) / (middle - low)
                elif middle < frequency <= high:
                    weight = (high - frequency) / (high - middle)
                total += power_at_k * weight * 2 / (high - low)
            row.append(np.log10(max(total, 1e-10)))
        rows.append(row)
    return np.array(rows)


def test_log_mel_is_what_its_definition_says() -> None:
    samples = wave(0.3, 700) + wave(0.3, 3000, seed=1)
    for config in (
        Config(),
        Config(bands=40, lowest=50, highest=7000, window=0.032, hop=0.016),
        Config(rate=8000, highest=4000),
    ):
        spectrogram = log_mel(torch.from_numpy(samples), config).numpy()
        expected = by_definition(samples, config)
        assert spectrogram.shape == expected.shape
        assert np.abs(spectrogram - expected).max() < 2e-3


def test_a_very_short_recording_has_a_spectrum() -> None:
    for count in (1, 100, 201, 399):
        assert log_mel(torch.from_numpy(wave(1.0)[:count]), Config()).shape[0] >= 1


def loaded(*seconds: float, **options: Any) -> tuple[Audio, Any]:
    modality = Audio(Config(bands=16, **options))
    recordings = [wav(wave(length)) for length in seconds]
    column = modality.load(pa.chunked_array([pa.array(recordings)]), Source("sound", Path()))
    return modality, column


def test_spectrograms_are_zero_beyond_their_lengths() -> None:
    modality, column = loaded(0.5, 0.2)
    values = modality.transform(column.values, None)
    assert values.length_B is not None
    assert values.length_B.tolist() == [51, 21]
    assert not values.x[1, 21:].any()


def test_a_long_recording_is_cut_to_its_middle_with_a_note() -> None:
    _modality, column = loaded(0.5, 2.0, longest=1.0)
    assert column.notes == {"longer than 1 s, of which the middle is kept": [1]}
    assert column.values.x.shape[1] == 101


def test_a_view_is_the_middle_or_a_random_stretch() -> None:
    x = torch.arange(100).float()[None, :, None].repeat(2, 1, 3)
    length = torch.tensor([100, 8])
    middle, middle_length = view(x, length, 10, None)
    assert middle[0, :, 0].tolist() == list(range(45, 55))
    assert middle_length.tolist() == [10, 8]

    starts = set()
    for seed in range(60):
        stretch, _ = view(x, length, 10, torch.Generator().manual_seed(seed))
        starts.add(int(stretch[0, 0, 0]))
    assert len(starts) > 30
    assert min(starts) >= 0
    assert max(starts) <= 90


def test_windows_cover_each_row() -> None:
    x = torch.arange(100).float()[None, :, None].repeat(2, 1, 3)
    length = torch.tensor([100, 8])
    overlapping = windows(Values(x, length), 40, overlap=True)
    assert overlapping.count_B is not None
    assert overlapping.length_B is not None
    assert overlapping.count_B.tolist() == [3, 1]
    assert [int(window[0, 0]) for window in overlapping.x] == [0, 30, 60, 0]
    assert overlapping.length_B.tolist() == [40, 40, 40, 8]

    tiles = windows(Values(x, length), 40, overlap=False)
    assert tiles.length_B is not None
    assert tiles.length_B.tolist() == [40, 40, 20, 8]
    steps: list[float] = []
    for tile, tile_length in zip(tiles.x[:3], tiles.length_B[:3], strict=True):
        steps += tile[:tile_length, 0].tolist()
    assert steps == list(range(100)), "each step once"
    assert windows(Values(x, length), 100, overlap=False).count_B is None


def test_prediction_by_windows_gives_each_window_to_the_encoder() -> None:
    modality, column = loaded(1.0, 0.2, seconds=0.3, view="windows")
    values = modality.transform(column.values, None)
    assert values.count_B is not None
    assert values.count_B.tolist() == [4, 1]
    assert len(values.x) == 5
    assert modality.transform(column.values, torch.Generator()).count_B is None  # training takes any stretch


PLAIN: dict[str, Any] = {"gain": 0, "noise": 0, "shift": 0, "time_masks": 0, "band_masks": 0}


def changed(seed: int = 0, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return six spectrograms, and the same ones augmented only as the options say."""
    x = torch.rand(6, 40, 16, generator=torch.Generator().manual_seed(9)) * 4 - 4
    config = Config(bands=16, **{**PLAIN, **options})
    augmented = augment(x.clone(), torch.full((6,), 40), config, torch.Generator().manual_seed(seed))
    return x, augmented


def offset(x: torch.Tensor, moved: torch.Tensor) -> int | None:
    """Return by how many steps, at most five, a spectrogram was moved."""
    for steps in range(-5, 6):
        if torch.allclose(x.roll(steps, 0)[6:-6], moved[6:-6]):
            return steps
    return None


def test_each_augmentation_does_what_it_says() -> None:
    x, unchanged = changed()
    assert torch.equal(x, unchanged)

    x, louder = changed(gain=6)
    assert torch.allclose((louder - x).std((1, 2)), torch.zeros(6), atol=1e-5)
    assert 0.05 < (louder - x).abs().max() <= 0.6 + 1e-5

    x, moved = changed(shift=0.05)
    offsets = [offset(x[i], moved[i]) for i in range(6)]
    assert None not in offsets
    assert len(set(offsets)) > 1

    x, masked = changed(time_masks=1)
    steps_masked = (masked != x).all(2).sum(1)
    assert steps_masked.any()
    assert steps_masked.max() <= 5

    x, masked = changed(band_masks=1)
    assert ((masked != x).all(1).sum(1) <= 3).all()

    x, noisy = changed(noise=1.0)
    assert (noisy >= x - 1e-5).all()
    added = (10**noisy - 10**x).mean((1, 2)) / (10**x).mean((1, 2))
    assert ((added > 0.5e-4) & (added < 0.2)).all()


def test_augmentation_follows_its_seed() -> None:
    options = {"gain": 6, "noise": 0.5, "shift": 0.1, "time_masks": 2, "band_masks": 2}
    assert torch.equal(changed(1, **options)[1], changed(1, **options)[1])
    assert not torch.equal(changed(1, **options)[1], changed(2, **options)[1])
