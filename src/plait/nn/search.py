"""Search for the minimum of a function of one number."""

from __future__ import annotations

from collections.abc import Callable

GOLDEN = (5**0.5 - 1) / 2  # each step leaves so much of the interval
PRECISION = 1e-5  # of the interval that is left, as a share of the whole


def minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum between `low` and `high` has it, by golden section search.

    Source: Kiefer 1953, "Sequential minimax search for a maximum". SciPy's search takes longer to import than
    a small model to predict.
    """
    tolerance = PRECISION * (high - low)
    first, second = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_first, at_second = function(first), function(second)
    while high - low > tolerance:
        if at_first < at_second:
            high, second, at_second = second, first, at_first
            first = high - GOLDEN * (high - low)
            at_first = function(first)
        else:
            low, first, at_first = first, second, at_second
            second = low + GOLDEN * (high - low)
            at_second = function(second)
    return first if at_first < at_second else second
