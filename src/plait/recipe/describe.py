"""The options of all components in words, from the one place where they are stated: each component's
`Config`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from plait.errors import RecipeError, nearest
from plait.recipe import registry
from plait.recipe.sections import EnsembleRecipe, ModelRecipe, SplitRecipe, TrainingRecipe, TuningRecipe

RECIPE = {
    "split": SplitRecipe,
    "model": ModelRecipe,
    "training": TrainingRecipe,
    "ensemble": EnsembleRecipe,
    "tuning": TuningRecipe,
}


def options(kind: str | None = None, name: str | None = None) -> str:
    """The components of a kind (or of all, and the recipe's own sections), each with its options, types
    and defaults.

    Raises `RecipeError` with the nearest name for an unknown kind or component.
    """
    kinds = [*registry.KINDS, "recipe"]
    if kind is not None and kind not in kinds:
        raise RecipeError(f"no kind '{kind}': {nearest(kind, kinds)}")
    parts = []
    for one in [kind] if kind else kinds:
        found: dict[str, Any] = (
            RECIPE if one == "recipe" else {n: registry.find(one, n) for n in registry.names(one)}
        )
        if name is not None and name not in found:
            raise RecipeError(f"no component '{name}' in {one}: {nearest(name, found)}")
        for each in [name] if name else found:
            parts.append(_describe(one, each, found[each]))
    return "\n\n".join(parts)


def _describe(kind: str, name: str, found: Any) -> str:
    config: type[BaseModel] = found if kind == "recipe" else found.options
    lines = [f"{kind}/{name}"]
    own = (config.__doc__ or "").strip() if config.__doc__ != config.__base__.__doc__ else ""
    lines += [f"  {line.strip()}" for line in own.splitlines() if line.strip()]
    for field, info in config.model_fields.items():
        about = f"  {info.description}" if info.description else ""
        lines.append(f"    {field} = {_plain(info.default)}  ({_type(info.annotation)}){about}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        shown = {
            k: v.model_dump(exclude_defaults=True) if isinstance(v, BaseModel) else v
            for k, v in value.items()
        }
        return "{" + "".join(f"\n        {k}: {v}" for k, v in shown.items()) + "}"
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    return (
        text.removeprefix("Literal").strip("[]").replace("'", "").replace(", ", " | ")
        if text.startswith("Literal")
        else text
    )
