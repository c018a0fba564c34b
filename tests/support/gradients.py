"""Compare gradients with small steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

STEP = 1e-8
SHIFT = 0.01  # away from zeros, where there may be a kink


def assert_gradient(module: torch.nn.Module, output: Callable[[], torch.Tensor]) -> None:
    """Compare autograd with a small step of all parameters in a random direction, in double precision.

    Take the derivative of a weighted sum of the outputs, with the same dropout. Libraries have been wrong
    without an error.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def move(step: float) -> None:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data.add_(direction, alpha=step)

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return weighted_sum(output())

    move(SHIFT)
    expected = 0.0
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    for gradient, direction in zip(gradients, directions, strict=True):
        if gradient is not None:
            expected += float((gradient * direction).sum())

    move(STEP)
    above = float(loss().detach())
    move(-2 * STEP)
    below = float(loss().detach())
    assert (above - below) / (2 * STEP) == pytest.approx(expected, rel=1e-3)


def weighted_sum(output: torch.Tensor) -> torch.Tensor:
    """Return the sum of the outputs, each times another random weight."""
    generator = torch.Generator().manual_seed(1)
    return (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum()


def silent_parameters(module: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> set[str]:
    """Return the names of parameters that get no gradient in either of two steps.

    A network may begin with a scale or a layer of zeros. What lies before it learns in the second step.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    silent = set(parameters)
    for _ in range(2):
        module.zero_grad()
        loss().backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None and parameter.grad.any():
                assert torch.isfinite(parameter.grad).all(), name
                silent.discard(name)
            parameter.data += SHIFT * torch.ones_like(parameter)
    return silent
