"""How near spectra are to those of a recording. T spectra of M bands and a last one that is 1 as far as
they go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plait.tasks.base_metrics import ScoredRows

SILENCE = -1.5  # what an answer of no length is compared as
DECIBELS = 40.0  # in a unit of what spectra are scaled to


@dataclass(frozen=True)
class SpectrumRows(ScoredRows):
    """The distance of each row's spectra, in decibels, and how many there are."""

    distance_B: np.ndarray
    steps_B: np.ndarray
    answered_steps_B: np.ndarray

    @classmethod
    def of(cls, output_BTM: np.ndarray, target_BTM: np.ndarray) -> SpectrumRows:
        """Compare each answer with its recording, once it is stretched to the recording's length."""
        distance_B = np.zeros(len(target_BTM))
        steps_B, answered_steps_B = np.zeros(len(target_BTM)), np.zeros(len(target_BTM))
        for row, (output_TM, target_TM) in enumerate(zip(output_BTM, target_BTM, strict=True)):
            answer_TM, recording_TM = _spectra(output_TM), _spectra(target_TM)
            answered_steps_B[row], steps_B[row] = len(answer_TM), len(recording_TM)
            if not len(recording_TM):
                continue
            stretched_TM = np.full_like(recording_TM, SILENCE)
            if len(answer_TM):
                steps = np.linspace(0, len(answer_TM) - 1, len(recording_TM)).round().astype(int)
                stretched_TM = answer_TM[steps]
            distance_B[row] = DECIBELS * np.abs(stretched_TM - recording_TM).mean()
        return cls(distance_B, steps_B, answered_steps_B)


def mel_distance(rows: SpectrumRows) -> float:
    """Return the mean absolute difference of powers, in decibels."""
    return float(rows.distance_B.mean())


def length_ratio(rows: SpectrumRows) -> float:
    """Return how long all answers are, by how long all recordings are."""
    return float(rows.answered_steps_B.sum() / max(rows.steps_B.sum(), 1))


def _spectra(padded_TM: np.ndarray) -> np.ndarray:
    """Return spectra as far as they go, without the last band."""
    valid_T = padded_TM[:, -1] > 0.5
    return padded_TM[valid_T, :-1].astype(np.float32)
