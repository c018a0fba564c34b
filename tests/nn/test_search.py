"""The minimum of a function of one number, inside an interval or at its end."""

from __future__ import annotations

import pytest

from plait.nn.search import minimum


@pytest.mark.parametrize(("at", "expected"), [(0.3, 0.3), (-5.0, -1.0), (9.0, 2.0)])
def test_the_minimum_is_found(at: float, expected: float) -> None:
    assert minimum(lambda x: (x - at) ** 2, -1.0, 2.0) == pytest.approx(expected, abs=1e-4)
    assert minimum(lambda x: abs(x - at), -1.0, 2.0) == pytest.approx(expected, abs=1e-4)
