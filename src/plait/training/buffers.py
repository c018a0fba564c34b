"""Undo what an attempt at a step has changed in a model, besides gradients: its buffers."""

from __future__ import annotations

from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Buffers:
    """The buffers that a step may change, to undo an attempt at it.

    Batch norms change theirs in place, so these are copied. Other modules put a new tensor in place of a
    buffer, as the bank of an alignment is. There it is enough to remember the tensor before: to copy all
    would cost milliseconds, since the statistics of texts have megabytes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._in_place: list[Tensor] = []
        self._replaceable: list[tuple[nn.Module, str]] = []
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if isinstance(module, BATCH_NORMS):
                    self._in_place.append(buffer)
                else:
                    self._replaceable.append((module, name))
        self._copies = [buffer.clone() for buffer in self._in_place]
        self._before: list[Tensor] = []

    def save(self) -> None:
        """Remember the present buffers."""
        for copied, buffer in zip(self._copies, self._in_place, strict=True):
            copied.copy_(buffer)
        self._before = [getattr(module, name) for module, name in self._replaceable]

    def restore(self) -> None:
        """Set the buffers to what they were when they were saved."""
        for copied, buffer in zip(self._copies, self._in_place, strict=True):
            buffer.copy_(copied)
        for buffer, (module, name) in zip(self._before, self._replaceable, strict=True):
            setattr(module, name, buffer)
