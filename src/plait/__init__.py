"""plait learns from tables whose cells are pictures, sentences, sounds, clips and numbers.

    import plait
    model = plait.fit("train.csv", target="label")
    model.evaluate("test.csv").show()
    model.predict({"photo": "cat.jpg", "title": None})

Importing plait imports nothing heavy; the first use of one of its names does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.api import Model as Model
    from plait.api import fit as fit
    from plait.api import inspect as inspect
    from plait.api import load as load
    from plait.recipe import Recipe as Recipe
    from plait.speaker import speak as speak
    from plait.transcriber import transcribe as transcribe
    from plait.tuning import tune as tune

__version__ = "0.1.0"
__all__ = ["Model", "PlaitError", "Recipe", "__version__", "fit", "inspect", "load", "speak", "transcribe", "tune"]

from plait.errors import PlaitError as PlaitError

_HOMES = {
    "Model": "plait.api",
    "fit": "plait.api",
    "inspect": "plait.api",
    "load": "plait.api",
    "Recipe": "plait.recipe",
    "tune": "plait.tuning",
    "transcribe": "plait.transcriber",
    "speak": "plait.speaker",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'plait' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
