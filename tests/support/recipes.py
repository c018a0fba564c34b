"""Change what a recipe stands for where a test does not say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plait.recipe.recipe import Recipe


@contextmanager
def quality(name: str) -> Iterator[None]:
    """Make this the quality of recipes that name none."""
    field = Recipe.model_fields["quality"]
    before = field.default
    _set_default(name)
    try:
        yield
    finally:
        _set_default(before)


def _set_default(name: str) -> None:
    Recipe.model_fields["quality"].default = name
    Recipe.model_rebuild(force=True)
