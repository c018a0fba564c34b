"""Components are found by their file's name. One outside plait is imported only if its caller says so."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plait.data.arguments import recipe_from
from plait.encoders.base import encoders
from plait.encoders.tabular import Tabular
from plait.errors import RecipeError
from plait.recipe import registry
from plait.recipe.recipe import load
from plait.recipe.registry import Choice

OUTSIDE = """
from plait.encoders.tabular import Tabular


class Mine(Tabular):
    pass


not_a_component = 1
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module outside plait, another one for each test."""
    name = f"outside_{request.node.name}"
    (tmp_path / f"{name}.py").write_text(OUTSIDE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_component_is_found_by_the_name_of_its_file() -> None:
    assert encoders.find("tabular") is Tabular
    assert "tabular" in encoders.names()
    assert "base" not in encoders.names()


def test_an_unknown_name_or_option_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no component 'lstn' in encoders: did you mean 'lstm'\?"):
        encoders.find("lstn")
    with pytest.raises(RecipeError, match=r"encoders/lstm: no option 'widht': did you mean 'width'\?"):
        encoders.configure("lstm", {"widht": 3})


def test_a_choice_is_resolved_with_every_option() -> None:
    choice = encoders.resolve(Choice(name="tabular", width=8), {"width": 16, "periodic": 4})
    assert choice.options == {"width": 8, "periodic": 4, "sigma": 0.1}


def test_finding_one_component_imports_no_other() -> None:
    code = (
        "import sys; from plait.encoders.base import encoders; encoders.find('bag');"
        "print(sorted(name for name in sys.modules if name.startswith('plait.encoders.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['plait.encoders.bag', 'plait.encoders.base']"


def test_a_callers_recipe_may_name_a_component_outside(outside: str) -> None:
    recipe_from({"encoders": {"number": f"{outside}:Mine"}})
    assert issubclass(encoders.find(f"{outside}:Mine"), Tabular)


def test_a_recipe_that_is_only_loaded_may_not(outside: str) -> None:
    load({"encoders": {"number": f"{outside}:Mine"}})
    with pytest.raises(RecipeError, match="loading a model never imports foreign code"):
        encoders.find(f"{outside}:Mine")
    assert outside not in sys.modules


def test_an_object_that_is_no_component_is_refused(outside: str) -> None:
    recipe_from({"encoders": {"number": f"{outside}:not_a_component", "text": f"{outside}:Absent"}})
    with pytest.raises(RecipeError, match="is no component: expected a class with `options`"):
        encoders.find(f"{outside}:not_a_component")
    with pytest.raises(RecipeError, match="cannot import component"):
        encoders.find(f"{outside}:Absent")


def test_an_import_that_draws_leaves_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGBM draws some when it is imported."""
    import_module = registry.importlib.import_module

    def draw_and_import(name: str) -> Any:
        random.random()
        return import_module(name)

    monkeypatch.setattr(registry.importlib, "import_module", draw_and_import)
    before = random.getstate()
    assert encoders.find("tabular") is Tabular
    assert random.getstate() == before
