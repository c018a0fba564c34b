"""Numbers of cells that no training changes."""

from __future__ import annotations

import math

import pytest
import torch

from plait.nn.measures import measure_bands, measure_sounds, measure_texts

HOP = 0.01


@pytest.mark.parametrize(
    ("text", "characters", "words", "letters", "syllables"),
    [
        ("", 0, 0, 0, 0),
        ("Two words", 9, 2, 8, 2),
        ("  été à l'école ", 16, 3, 10, 6),
        ("Нажмите 5", 9, 2, 7, 4),
        ("你好，世界", 5, 1, 4, 4),
        ("안녕", 2, 1, 2, 2),
        ("\U0001f600", 1, 1, 0, 0),
    ],
)
def test_texts_have_lengths(text: str, characters: int, words: int, letters: int, syllables: int) -> None:
    expected = torch.tensor([[characters, words, letters, syllables]]).float().log1p()
    torch.testing.assert_close(measure_texts([text]), expected)


def voice(syllables: int, seconds: float, silence: float = 0.0) -> torch.Tensor:
    """Return the spectrogram of a sound that swells once for each syllable, between two silences."""
    steps = round(seconds / HOP)
    phase = torch.arange(steps) / steps * syllables * 2 * math.pi
    loudness = -3 - 2 * phase.cos()
    quiet = torch.full((round(silence / HOP),), -8.0)
    return torch.cat([quiet, loudness, quiet])[:, None].expand(-1, 5)


@pytest.mark.parametrize(("syllables", "seconds"), [(1, 0.4), (4, 1.2), (15, 3.0)])
def test_sounds_have_durations_and_peaks(syllables: int, seconds: float) -> None:
    level = voice(syllables, seconds, silence=0.3)[None]
    numbers = measure_sounds(level, torch.tensor([level.shape[1]]), HOP)[0]
    total = level.shape[1] * HOP
    assert numbers[0].exp() == pytest.approx(total, rel=1e-4)
    assert numbers[1].exp() < numbers[2].exp() <= seconds + HOP or syllables == 1
    assert numbers[3].expm1() == pytest.approx(syllables, abs=0.01)
    assert numbers[4] == pytest.approx(syllables / level.shape[1], rel=1e-3)


def test_padding_changes_no_number() -> None:
    short, long = voice(3, 0.9), voice(9, 3.0)
    lengths = torch.tensor([len(short), len(long)])
    padded = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    for measure in (lambda x, n: measure_sounds(x, n, HOP), measure_bands):
        together = measure(padded, lengths)
        for row, level in enumerate((short, long)):
            torch.testing.assert_close(together[row], measure(level[None], lengths[row : row + 1])[0])


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_shortest_sounds_have_finite_numbers(steps: int) -> None:
    level = torch.full((2, max(steps, 1), 5), -4.0)
    lengths = torch.tensor([steps, 0])
    assert torch.isfinite(measure_sounds(level, lengths, HOP)).all()
    assert torch.isfinite(measure_bands(level, lengths)).all()


def test_bands_have_mean_deviation_and_change() -> None:
    level = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [0.0, 1.0], [9.0, 9.0]]])
    numbers = measure_bands(level, torch.tensor([3]))[0]
    torch.testing.assert_close(numbers, torch.tensor([2 / 3, 1, (8 / 9) ** 0.5, 0, 2, 0]))
