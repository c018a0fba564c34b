"""plait learns from tables whose cells are images, texts, audio, video, numbers, categories and dates.

    import plait
    model = plait.fit("train.csv", target="label")
    model.evaluate("test.csv").show()
    model.predict({"photo": "cat.jpg", "title": None})

Importing plait imports nothing heavy; the first use of one of its names does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait.api.fit import fit as fit
    from plait.api.model import Model as Model
    from plait.api.model import load as load
    from plait.api.tune import tune as tune
    from plait.data.inspect import inspect as inspect
    from plait.prediction.speak import speak as speak
    from plait.prediction.transcribe import transcribe as transcribe
    from plait.recipe.recipe import Recipe as Recipe

__version__ = "0.1.0"
__all__ = [
    "Model",
    "PlaitError",
    "Recipe",
    "__version__",
    "fit",
    "inspect",
    "load",
    "speak",
    "transcribe",
    "tune",
]

from plait.errors import PlaitError as PlaitError

_HOMES = {
    "Model": "plait.api.model",
    "fit": "plait.api.fit",
    "inspect": "plait.data.inspect",
    "load": "plait.api.model",
    "Recipe": "plait.recipe.recipe",
    "tune": "plait.api.tune",
    "transcribe": "plait.prediction.transcribe",
    "speak": "plait.prediction.speak",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'plait' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
