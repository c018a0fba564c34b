"""Say what to do where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plait.data.plan import Plan
from plait.errors import TrainingError

# The options of modalities that decide how large a cell is.
SIZES = ("size", "frames", "seconds", "max_tokens")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out. A GPU has an error of its own for that; a CPU only says it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text
    )


@contextmanager
def explained(plan: Plan) -> Iterator[None]:
    """Raise `TrainingError` with advice in place of what torch or NumPy raise where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory: {advice(plan)}") from error


def advice(plan: Plan) -> str:
    """Name what takes memory, the largest option of each column first, and what to do."""
    facts = [f"batch size {plan.training.batch_size}"]
    smaller = []
    for name, column in plan.columns.items():
        for option in SIZES:
            value = column.modality.options.get(option)
            if isinstance(value, (int, float)) and value > 1:
                facts.append(f"column '{name}' {option} {value}")
                smaller.append(f"--set modalities.{column.modality.name}.{option}={value / 2:g}")

    steps = [*dict.fromkeys(smaller), "a smaller encoder", "a machine with more memory"]
    return f"{', '.join(facts)}; try {', or '.join(steps)}"
