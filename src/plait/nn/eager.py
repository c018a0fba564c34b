"""Optimizers that do not import torch's compiler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)

# Methods that torch wraps so that its compiler leaves them alone.
WRAPPED = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")


def eager(kind: type[Kind]) -> type[Kind]:
    """Return a kind of optimizer, with the methods as they are without torch's wrappers.

    A wrapper imports the compiler when it is first called. This takes longer than to train a small table. It
    makes a difference to compiled optimizers only, and plait compiles none. The class itself stays as it is.
    """
    methods: dict[str, object] = {}
    for name in WRAPPED:
        methods[name] = inspect.unwrap(getattr(kind, name))
    methods["step"] = _without_gradients(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


def _without_gradients(step: Callable[..., object]) -> Callable[..., object]:
    """Return a step that records no gradients, as one of torch's wrappers sees to."""

    def unrecorded(*arguments: object) -> object:
        with torch.no_grad():
            return step(*arguments)

    return unrecorded
