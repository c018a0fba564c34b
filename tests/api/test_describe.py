"""The options of components and of recipes in words, as `plait options` shows them."""

from __future__ import annotations

import re

import pytest

from plait.api.describe import RECIPE, REGISTRIES, options
from plait.errors import RecipeError

COMPONENTS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]
SECTIONS = [("recipe", section) for section in RECIPE]


@pytest.mark.parametrize("section", RECIPE)
def test_every_option_of_a_recipe_has_a_description(section: str) -> None:
    for option, field in RECIPE[section].model_fields.items():
        assert field.description, f"describe the option '{option}' by Field(..., description=...)"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS + SECTIONS)
def test_types_are_words(kind: str, name: str) -> None:
    text = options(kind, name)
    types = re.findall(r"^    \w+ = .*  \((.*)\)$", text, re.MULTILINE)
    assert len(types) == text.count(" = ")
    for words in types:
        assert re.fullmatch(r"[\w ,.-]+", words), words


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("encoders", "lstm", "width = 64  (whole number from 1 to 65536)"),
        ("encoders", "lstm", "dropout = 0.0  (number from 0 and below 1)"),
        ("encoders", "vgg", "channels = [16, 32, 64, 128, 256]  (list of whole numbers)"),
        ("modalities", "image", "mean = 0.5  (number or list of 3 numbers)"),
        ("modalities", "image", "background = 255  (whole number from 0 to 255)"),
        ("members", "network", "fusion = null  (name and options of a component or null)"),
        ("recipe", "training", "epochs = auto  (whole number or auto)"),
        ("recipe", "training", "channels_last = auto  (auto, on or off)"),
        ("recipe", "columns", "role = null  (input, target, id, group, split, ignored or null)"),
        ("tasks", "multilabel", "separator = '|'  (text)"),
    ],
)
def test_an_option_has_a_default_and_a_type(kind: str, name: str, line: str) -> None:
    assert f"    {line}\n" in options(kind, name)


def test_lines_fit_a_page() -> None:
    for line in options().splitlines():
        assert len(line) <= 110, line


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="did you mean 'encoders'"):
        options("encoder")
