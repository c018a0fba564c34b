"""Build networks that a stranger describes, within the memory that their files account for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SPARE = 64 << 20  # bytes that a network may take beyond its weights: tables of positions, or of windows
BYTES = 4  # of a number: networks are made in float32
TIMES = 4  # its weights may be made several times over before they are read

# What makes a tensor from its size alone.
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye, torch.arange)


class AllocationLimit(TorchFunctionMode):
    """Refuse to make tensors that have more than `size` bytes together, inside a `with` block.

    Only calls of `MAKERS` are counted: layers make their weights by these. Raises `ValueError` before memory
    is taken.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.remaining = size

    @classmethod
    def of_weights(cls, tensors: Iterable[Tensor]) -> AllocationLimit:
        """Allow as much as a network takes that has these weights."""
        return cls.of_bytes(sum(tensor.nbytes for tensor in tensors))

    @classmethod
    def of_bytes(cls, size: int) -> AllocationLimit:
        """Allow as much as a network takes whose weights have so many bytes."""
        return cls(TIMES * size + SPARE)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Count what a call would take, then make it."""
        options = dict(kwargs or {})
        if func in MAKERS:
            self.remaining -= BYTES * _numbers(func, args, options)
            if self.remaining < 0:
                raise ValueError(
                    f"its network would take more than the {self.size:,} bytes that its files allow"
                )
        return func(*args, **options)


class Undrawn(TorchDispatchMode):
    """Make weights without drawing them, for a network whose weights are read from a file.

    So the caller's random numbers stay as they are, and so do those of a training in another thread.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Leave out a draw, and make every other call."""
        options = dict(kwargs or {})
        if func in (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default):
            return args[0]
        if func in (torch.ops.aten.rand.default, torch.ops.aten.randn.default):
            return torch.ops.aten.zeros.default(*args, **options)
        return func(*args, **options)


def _numbers(maker: Callable[..., object], args: tuple[object, ...], options: Mapping[str, object]) -> int:
    """Return how many numbers a maker is asked for, as `torch.empty(2, 3)` is for six."""
    # A size comes as one argument or as several, and is called `size` where it has a name.
    size = options.get("size", args)
    if isinstance(size, (tuple, list)) and size and isinstance(size[0], (tuple, list)):
        size = size[0]
    if not isinstance(size, (tuple, list)):
        size = (size,)
    sides = [abs(int(side)) for side in size if isinstance(side, (int, float))]
    if maker is torch.arange:
        return max(sides, default=0)
    if maker is torch.eye and len(sides) == 1:
        return sides[0] ** 2
    return math.prod(sides)
