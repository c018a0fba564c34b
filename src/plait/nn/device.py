"""What this machine can do, and the settings that `auto` stands for on it."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import nn

from plait.recipe.sections import TrainingRecipe
from plait.table.json import JSON

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h


MOST = 2**31 - 4097


_PLAIN = nullcontext()  # cheaper in every step than an autocast that is off


@dataclass(frozen=True)
class Settings:
    """What `auto` came to. `frozen`: the precision of encoders that are not trained. `allocator`:
    whether freed memory is kept for the next step (see `keep_memory`).
    """

    device: str
    precision: str
    frozen: str
    channels_last: bool
    compile: bool
    allocator: bool

    def autocast(self, frozen: bool = False) -> AbstractContextManager[object]:
        """Mixed precision: products in bf16, everything that needs the range or the digits in fp32."""
        if (self.frozen if frozen else self.precision) != "bf16":
            return _PLAIN
        return torch.autocast(self.device, torch.bfloat16)


def settings(recipe: TrainingRecipe, convolves: bool) -> Settings:
    """Resolves a recipe's switches for this machine. `convolves`: the model does, which is where bf16 and
    channels-last pay; a small model of texts and numbers is slowed by the conversions.

    `compile` stays off by itself: on a CPU, compiling a small convolutional network takes longer than
    it saves.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = "bf16" if bf16_is_fast(device) else "fp32"
    auto = recipe.precision == "auto"
    return Settings(
        device=device,
        precision=(fast if convolves else "fp32") if auto else recipe.precision,
        frozen=fast if auto else recipe.precision,
        channels_last=recipe.channels_last == "on" or (recipe.channels_last == "auto" and convolves),
        compile=recipe.compile == "on",
        allocator=recipe.allocator != "off" and device == "cpu" and keep_memory(),
    )


def bf16_is_fast(device: str) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile"))


def keep_memory() -> bool:
    """Lets glibc keep freed memory instead of giving it back to the system after every step: a training
    step of a convolutional network frees and takes gigabytes, and each page of it would fault again.

    It holds for the whole process, until it ends. Returns whether it took effect; elsewhere than on
    glibc it does nothing.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    done = [mallopt(M_MMAP_THRESHOLD, MOST), mallopt(M_TRIM_THRESHOLD, MOST), mallopt(M_ARENA_MAX, 2)]
    return all(done)


def to_channels_last(model: nn.Module) -> None:
    """Lays the weights of convolutions out as oneDNN and cuDNN like them; other parameters stay."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.to(memory_format=formats[parameter.ndim])


def describe(chosen: Settings) -> JSON:
    """What a run's record says about where it ran."""
    return {
        **asdict(chosen),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }
