"""Find out what this machine can do, and what the recipe's `auto` means on it."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from plait.recipe.sections import TrainingRecipe
from plait.table.json import JSON

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

MAX_FREE = 2**31 - 4097  # bytes: nearly the largest int that mallopt takes

NO_AUTOCAST = nullcontext()  # cheaper in every step than an autocast that is off


@dataclass(frozen=True)
class Settings:
    """What `auto` means on this machine.

    `frozen` is the precision of encoders that are not trained. `allocator` says whether the process keeps
    freed memory for the next step (see `keep_memory`).
    """

    device: str
    precision: str
    frozen: str
    channels_last: bool
    compile: bool
    allocator: bool

    def autocast(self, frozen: bool = False) -> AbstractContextManager[object]:
        """Return a context of mixed precision: products in bf16, what needs more range or digits in fp32.

        With `frozen`, use the precision of encoders that are not trained.
        """
        precision = self.frozen if frozen else self.precision
        if precision != "bf16":
            return NO_AUTOCAST
        return torch.autocast(self.device, torch.bfloat16)


def settings(recipe: TrainingRecipe, convolves: bool) -> Settings:
    """Decide a recipe's `auto` switches for this machine.

    `convolves` says whether the model has convolutions. These gain from bf16 and channels-last memory; the
    conversions slow down a small model of texts and numbers. `compile` is off by default: on a CPU, compiling
    a small convolutional network takes longer than it saves.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"

    precision: str = recipe.precision
    frozen: str = recipe.precision
    if recipe.precision == "auto":
        frozen = "bf16" if bf16_is_fast(device) else "fp32"
        precision = frozen if convolves else "fp32"

    channels_last = recipe.channels_last == "on"
    if recipe.channels_last == "auto":
        channels_last = convolves

    # `keep_memory` changes the process: it runs only where it is wanted.
    wants_memory = recipe.allocator != "off" and device == "cpu"
    return Settings(
        device=device,
        precision=precision,
        frozen=frozen,
        channels_last=channels_last,
        compile=recipe.compile == "on",
        allocator=wants_memory and keep_memory(),
    )


def in_precisions(settings: Settings, trained: Mapping[str, str]) -> Settings:
    """Return settings in the precisions that a model was `trained` in, as `describe` writes them.

    A model trained in bf16 runs in fp32 where bf16 is slow.
    """
    precision = trained.get("precision", settings.precision)
    frozen = trained.get("frozen", settings.frozen)
    if not bf16_is_fast(settings.device):
        precision = "fp32" if precision == "bf16" else precision
        frozen = "fp32" if frozen == "bf16" else frozen
    return replace(settings, precision=precision, frozen=frozen)


def bf16_is_fast(device: str) -> bool:
    """Return whether a device multiplies bf16 matrices in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))


def keep_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back to the system after every step.

    A training step of a convolutional network frees and allocates gigabytes, and each page would fault again.
    The setting holds until the process ends. Return whether it took effect. Without glibc it does nothing.
    """
    libc, _ = platform.libc_ver()
    if not sys.platform.startswith("linux") or libc != "glibc":
        return False

    mallopt = ctypes.CDLL("libc.so.6").mallopt
    maps_less = mallopt(M_MMAP_THRESHOLD, MAX_FREE)
    trims_less = mallopt(M_TRIM_THRESHOLD, MAX_FREE)
    has_few_arenas = mallopt(M_ARENA_MAX, 2)
    return bool(maps_less and trims_less and has_few_arenas)


@contextmanager
def one_thread(is_wanted: bool) -> Iterator[None]:
    """Let torch use one thread, if it is wanted.

    The products of a small network are done before other threads have woken. Beside other programs each
    product waits for its last thread, and a training takes several times as long.
    """
    before = torch.get_num_threads()
    if is_wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions as oneDNN and cuDNN need them. Leave the other parameters."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.to(memory_format=formats[parameter.ndim])


def describe(settings: Settings) -> JSON:
    """Describe the machine for a run's record: settings, threads, versions and processor."""
    return {
        **asdict(settings),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }
