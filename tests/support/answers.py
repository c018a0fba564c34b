"""Compare answers that were computed twice, perhaps by other kernels or on other threads."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile


def assert_same_answers(answers: pa.Table, expected: pa.Table) -> None:
    """Probabilities and numbers may differ by rounding; everything else is the same."""
    assert answers.schema == expected.schema
    for name in expected.column_names:
        cells, expected_cells = answers[name].to_pylist(), expected[name].to_pylist()
        if pa.types.is_floating(expected.schema.field(name).type):
            assert cells == pytest.approx(expected_cells, rel=1e-4, abs=1e-5), name
        else:
            assert cells == expected_cells, name


def assert_same_embeddings(embeddings: np.ndarray, expected: np.ndarray) -> None:
    """Unit vectors may differ by rounding."""
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)


def assert_same_recording(content: bytes, expected: bytes) -> None:
    """Samples, which lie between -1 and 1, may differ by what cannot be heard."""
    wave, rate = soundfile.read(io.BytesIO(content))
    expected_wave, expected_rate = soundfile.read(io.BytesIO(expected))
    assert rate == expected_rate
    np.testing.assert_allclose(wave, expected_wave, atol=0.01)
