"""Estimate the memory that the training of a network takes, before any of it is taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from plait.data.plan import Plan
from plait.encoders.base import encoders
from plait.errors import RecipeError
from plait.fusion.base import fusions
from plait.modalities.base import modalities
from plait.recipe.registry import Options
from plait.tasks.base import tasks

COPIES = 4  # of what is trained: weights, gradients, and both moments of Adam
LIMIT = Path("/sys/fs/cgroup/memory.max")  # what a container may take of the machine's memory
GB = 1e9

LARGE = 16  # times the default of an option, from which on the memory is estimated
LARGE_IF_OFF = 1024  # the same, of an option whose default is 0


def check_memory(
    plan: Plan, build: Callable[[], Mapping[str, nn.Module]], available: int | None = None
) -> None:
    """Raise `RecipeError` if training a network would take more memory than there is.

    `build` returns the parts of the network, by what users call them. `available`, in bytes, is the
    machine's memory if left out.
    """
    available = machine_memory() if available is None else available
    if available is None or not has_large_options(plan):
        return
    try:
        # tensors of this device have shapes, and no numbers that take memory
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            parts = build()
    except (RuntimeError, TypeError):
        # Torch and NumPy raise these where a component from outside asks such a tensor for its numbers.
        return

    needs = {name: _bytes(part) for name, part in parts.items()}
    total = sum(needs.values())
    if total <= available:
        return
    largest = max(needs, key=needs.__getitem__)
    raise RecipeError(
        f"training this network takes {total / GB:,.1f} GB of memory, and this machine has "
        f"{available / GB:,.1f}: {largest} takes {needs[largest] / GB:,.1f}; make it smaller"
    )


def machine_memory() -> int | None:
    """Return the bytes of memory that this process may take; None where nothing tells."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    try:
        return min(memory, int(LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # there is no limit
        return memory


def has_large_options(plan: Plan) -> bool:
    """Return whether a plan has numbers far above their defaults.

    Other networks fit any machine, and to estimate what they take would cost more than to build them.
    """
    return any(_is_large(config) for config in _configs(plan))


def _configs(plan: Plan) -> Iterator[Options]:
    """Yield the options of all components of a network."""
    for column in plan.columns.values():
        yield modalities.choose(column.modality)[1]
        yield encoders.choose(column.encoder)[1]
    yield fusions.choose(plan.fusion)[1]
    for choice in plan.tasks.values():
        yield tasks.choose(choice)[1]


def _is_large(config: Options) -> bool:
    for name, field in type(config).model_fields.items():
        largest, usual = _largest(getattr(config, name)), _largest(field.default)
        if largest > (usual * LARGE or LARGE_IF_OFF):
            return True
    return False


def _largest(value: object) -> int:
    """Return the largest whole number of an option, 0 if it has none."""
    numbers = value if isinstance(value, tuple) else (value,)
    return max((number for number in numbers if isinstance(number, int)), default=0)


def _bytes(part: nn.Module) -> int:
    """Return the bytes that the tensors of a part take in training."""
    size = sum(buffer.nbytes for buffer in part.buffers())
    for parameter in part.parameters():
        size += parameter.nbytes * (COPIES if parameter.requires_grad else 1)
    return size
