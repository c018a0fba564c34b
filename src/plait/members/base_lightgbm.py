"""LightGBM's datasets and boosters, without its interfaces to other libraries.

`import lightgbm` imports scikit-learn and pandas for them, which takes longer than to grow the trees of a
small table. So its module `basic` is imported here, in a package of another name: the caller's own
`lightgbm` stays complete.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightgbm import Booster as Booster
    from lightgbm import Dataset as Dataset
else:
    NAME = "plait_lightgbm"
    INTERFACES = ("sklearn", "pandas", "dask", "matplotlib", "graphviz")

    def _basic() -> ModuleType:
        """Return LightGBM's own module, if that is imported, else one without interfaces.

        Raises `ModuleNotFoundError` if LightGBM is not installed.
        """
        if "lightgbm" in sys.modules:
            return importlib.import_module("lightgbm.basic")
        spec = importlib.util.find_spec("lightgbm")
        if spec is None:
            raise ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")

        package = ModuleType(NAME)
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[NAME] = package
        with _hidden(INTERFACES):
            return importlib.import_module(f"{NAME}.basic")

    @contextmanager
    def _hidden(names: tuple[str, ...]) -> Iterator[None]:
        """Make modules that are not imported yet look as if they were not installed."""
        hidden = [name for name in names if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))
        try:
            yield
        finally:
            for name in hidden:
                del sys.modules[name]

    Booster, Dataset = _basic().Booster, _basic().Dataset
