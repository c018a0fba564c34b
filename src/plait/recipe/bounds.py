"""Bounds of options: beyond them a value can only be a mistake, and would fill memory or run for ever.

They are far above what anybody trains. What a network needs of the machine's memory is estimated apart
(`model/memory.py`), since that depends on all of its options.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

MAX_WIDTH = 65_536  # entries of a vector, channels of a convolution
MAX_HEADS = 1024
MAX_LAYERS = 256  # layers, or blocks of several layers
MAX_KERNEL = 255  # steps or pixels that a convolution sees, or that are padded
MAX_COUNT = 1_000_000  # epochs, or rows in memory at once: of a batch, of a bank of vectors
MAX_IDS = 10_000_000  # ids of a vocabulary
MAX_TOKENS = 1_000_000  # tokens of one text
MAX_BEAM = 1000
MAX_RATE = 100.0  # of learning, and of the decay of weights
MAX_WEIGHT = 1e6  # of a loss beside others
MAX_ROUNDS = 100_000  # trees, or steps of a selection
MAX_SECONDS = 86_400.0  # of a recording
MIN_WINDOW = 0.001  # seconds of one spectrum
MIN_HOP = 0.0005  # seconds from one spectrum to the next
MAX_INT32 = 2**31 - 1  # other libraries keep counts in 32 bits


def _are_widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    if not all(1 <= width <= MAX_WIDTH for width in widths):
        raise ValueError(f"expected numbers from 1 to {MAX_WIDTH:,}")
    return widths


Widths: TypeAlias = Annotated[tuple[int, ...], AfterValidator(_are_widths)]
