"""Write files whole: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from plait.table.json import JSONValue


def write_text(path: Path, text: str) -> None:
    """Writes a file so that it is either the old one or the new one, never a part of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, data: JSONValue) -> None:
    """Write JSON. A crash leaves the old file or the new one, never a part."""
    write_text(path, json.dumps(data, ensure_ascii=False, indent=1))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Like `write_text`, for tensors; `metadata` travels in the same file."""
    part = path.with_name(path.name + ".part")
    plain, seen = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, set()
    for (
        name,
        t,
    ) in (
        plain.items()
    ):  # weights that two parts of a network share are written twice: safetensors knows no sharing
        if t.numel() and t.data_ptr() in seen:
            plain[name] = t.clone()
        seen.add(t.data_ptr())
    save_file(plain, part, metadata)
    os.replace(part, path)
