"""Measure how near spectra are to those of a recording.

T spectra of M bands. A last band is 1 as far as they go, and 0 behind their end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plait.tasks.base_metrics import ScoredRows

SILENCE = -1.5  # the spectrum that stands for an answer of no length
DECIBELS = 40.0  # of one unit of the scaled spectra: 4 powers of ten


@dataclass(frozen=True)
class SpectrumRows(ScoredRows):
    """The distance of each row's spectra, in decibels, and the numbers of spectra."""

    distance_B: np.ndarray
    steps_B: np.ndarray
    answered_steps_B: np.ndarray

    @classmethod
    def of(cls, output_BTM: np.ndarray, target_BTM: np.ndarray) -> SpectrumRows:
        """Compare each answer with its recording, once it is stretched to the recording's length."""
        rows = len(target_BTM)
        distance_B = np.zeros(rows)
        steps_B = np.zeros(rows)
        answered_steps_B = np.zeros(rows)
        for row in range(rows):
            answer_TM = _spectra(output_BTM[row])
            recording_TM = _spectra(target_BTM[row])
            answered_steps_B[row] = len(answer_TM)
            steps_B[row] = len(recording_TM)
            if len(recording_TM):
                difference_TM = _stretched(answer_TM, recording_TM) - recording_TM
                distance_B[row] = DECIBELS * np.abs(difference_TM).mean()
        return cls(distance_B, steps_B, answered_steps_B)


def mel_distance(rows: SpectrumRows) -> float:
    """Return the mean absolute difference of powers, in decibels."""
    return float(rows.distance_B.mean())


def length_ratio(rows: SpectrumRows) -> float:
    """Return the length of all answers over the length of all recordings."""
    steps = max(rows.steps_B.sum(), 1)
    return float(rows.answered_steps_B.sum() / steps)


def _stretched(answer_TM: np.ndarray, recording_TM: np.ndarray) -> np.ndarray:
    """Stretch an answer to a recording's length. Silence takes the place of an answer of no length."""
    if not len(answer_TM):
        return np.full_like(recording_TM, SILENCE)
    steps = np.linspace(0, len(answer_TM) - 1, len(recording_TM))
    nearest = steps.round().astype(int)
    return answer_TM[nearest]


def _spectra(padded_TM: np.ndarray) -> np.ndarray:
    """Return spectra as far as they go, without the last band."""
    valid_T = padded_TM[:, -1] > 0.5
    return padded_TM[valid_T, :-1].astype(np.float32)
