"""Write files whole: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from plait.table.json import JSONValue


def write_text(path: Path, text: str) -> None:
    """Write a text. A crash leaves the old file or the new one, never a part."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def write_json(path: Path, content: JSONValue) -> None:
    """Write JSON. A crash leaves the old file or the new one, never a part."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, and `metadata` in the same file. A crash leaves the old file or the new one."""
    unfinished = path.with_name(path.name + ".part")
    save_file(_unshared(tensors), unfinished, metadata)
    os.replace(unfinished, path)


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, each with memory of its own.

    safetensors refuses tensors that share memory, such as weights that a network uses in two places.
    """
    unshared: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().cpu().contiguous()

        # An empty tensor has no memory: many of them have the address 0.
        if on_cpu.numel() and on_cpu.data_ptr() in addresses:
            on_cpu = on_cpu.clone()
        addresses.add(on_cpu.data_ptr())
        unshared[name] = on_cpu
    return unshared
