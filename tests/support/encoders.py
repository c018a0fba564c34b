"""Encoders for values of each layout."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from plait.encoders.base import Encoder
from plait.nn.batch import Kind, Layout, Values
from support import tiny_models
from support.components import component, component_names, configured

# A layout of each kind, and a modality that gives it. Add one for a kind that is new.
LAYOUTS: dict[str, tuple[Layout, str]] = {
    "vector": (Layout("vector", (5,)), "vector"),
    "index": (Layout("index", (), 7), "category"),
    "tokens": (Layout("tokens", (12,), 300), "text"),
    "bag": (Layout("bag", (12,), 300), "text"),
    "grid": (Layout("grid", (3, 40, 40)), "image"),
    "frames": (Layout("frames", (6, 3, 40, 40)), "video"),
    "spectrogram": (Layout("spectrogram", (50, 20)), "audio"),
    "wave": (Layout("wave", (900,)), "audio"),
}
TINY = {"tokens": tiny_models.bert, "wave": tiny_models.wav2vec2}


def encoders_and_kinds() -> list[tuple[str, Kind]]:
    """Return every encoder with every kind of layout that it takes."""
    pairs = []
    for name in component_names("encoders"):
        for kind in sorted(component("encoders", name).takes):
            assert kind in LAYOUTS, f"give LAYOUTS in tests/support/encoders.py a layout of kind '{kind}'"
            pairs.append((name, kind))
    return pairs


def build_encoder(name: str, kind: str, options: dict[str, Any] | None = None) -> Encoder:
    """Build an encoder for a layout of this kind. If it needs a pretrained network, it gets a tiny one."""
    config = encoder_config(name, kind, options)
    layout, _ = LAYOUTS[kind]
    torch.manual_seed(0)
    encoder: Encoder = component("encoders", name).build(config, layout)
    return encoder.eval()


def encoder_config(name: str, kind: str, options: dict[str, Any] | None = None) -> Any:
    """The options of an encoder of a layout of this kind, with nothing left open."""
    options = options or {}
    if "model" in component("encoders", name).options.model_fields:
        options = {"model": tiny_network(kind), **options}
    _, modality = LAYOUTS[kind]
    return component("encoders", name).settled(configured("encoders", name, options), modality)


def trainable(name: str) -> dict[str, Any]:
    """Return options that make an encoder learn which would be frozen by default."""
    may_be_frozen = "mode" in component("encoders", name).options.model_fields
    return {"mode": "full", "layers": 1} if may_be_frozen else {}


@cache
def tiny_network(kind: str, seed: int = 0) -> str:
    """Return the folder of a tiny pretrained network that reads this kind of layout."""
    folder = Path(tempfile.mkdtemp(prefix="plait-test-"))
    if kind == "spectrogram":
        return str(tiny_models.whisper(folder, seed, seconds=1, bands=LAYOUTS[kind][0].size[1]))
    return str(TINY.get(kind, tiny_models.vit)(folder, seed))


def random_values(kind: str, rows: int, seed: int = 0) -> Values:
    """Return random values of this kind. Entries beyond a row's length are not zero, except in texts."""
    layout, _ = LAYOUTS[kind]
    generator = torch.Generator().manual_seed(seed)
    if layout.kind == "vector":
        return Values(torch.randn(rows, *layout.size, generator=generator))
    if layout.kind == "index":
        return Values(torch.randint(0, layout.vocabulary, (rows,), generator=generator))
    if layout.kind == "grid":
        pixels = torch.randn(rows, *layout.size, generator=generator)
        return Values(pixels.to(memory_format=torch.channels_last))
    length = torch.randint(1, layout.size[0] + 1, (rows,), generator=generator)
    if layout.kind in ("frames", "spectrogram", "wave"):
        return Values(torch.randn(rows, *layout.size, generator=generator), length)
    ids = torch.randint(2, layout.vocabulary, (rows, layout.size[0]), generator=generator)
    return Values(ids * (torch.arange(layout.size[0]) < length[:, None]), length)
