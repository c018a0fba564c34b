"""Which members are trained beside the network, and how often."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from plait.data.plan_members import Inputs, from_scratch, repeats_network, without_idle_options
from plait.encoders.base import encoders as encoder_registry
from plait.errors import RecipeError
from plait.recipe.recipe import Recipe, ensemble_of_quality
from plait.recipe.registry import Choice, Options
from plait.table.schema import Schema
from plait.tasks.base import tasks as task_registry

LEAST_ROWS = 20  # training rows from which on members are trained without being asked for
# Training rows below which members are trained on several sets of folds, to vary less, and from which on a
# stacked model helps.
FEW = 2000
FEW_REPEATS = 3


class EnsemblePlan(Options):
    """The members that can be trained here, none where the network answers alone.

    `left_out` says why others are not, and `added` why some are. The other options are those of
    `EnsembleRecipe`.
    """

    members: dict[str, Choice] = {}
    left_out: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    folds: int = Field(5, ge=2)
    repeats: int = Field(1, ge=1)
    stack: bool = False
    rounds: int = Field(20, ge=1)
    bags: int = Field(10, ge=1)


def plan_ensemble(
    recipe: Recipe,
    schema: Schema,
    rows: int,
    tasks: Mapping[str, Choice] | None = None,
    inputs: Inputs | None = None,
) -> EnsemblePlan:
    """Choose the members for so many training rows, and these tasks. They read `inputs`.

    There are none that would be idle, unless the recipe asks for them. The recipe's own options come before
    those of `quality`, and its members stand in place of them. What `quality` stands for is left out, with a
    message, where pretrained weights are not installed, or where a member would repeat the network. Raises
    `RecipeError` for missing weights if the recipe itself asks for them.
    """
    if not asks_for_members(recipe) and is_idle(recipe, schema, rows, tasks or {}):
        return EnsemblePlan()
    ensemble = ensemble_of_quality(recipe.quality)
    is_asked_for = False
    if recipe.ensemble is not None:
        stated = recipe.ensemble.model_fields_set
        is_asked_for = "members" in stated
        ensemble = ensemble.model_copy(update={name: getattr(recipe.ensemble, name) for name in stated})
    modalities = {schema[column].modality or "" for column in schema.of("input")}
    messages: set[str] = set()
    if recipe.ensemble is not None and not ensemble.members:
        messages.add("ensemble: it has no members, so its options do nothing; --quality good has some")
    inputs = inputs or Inputs(recipe, schema, tasks or {})
    members: dict[str, Choice] = {}
    added: list[str] = []
    for name, choice in ensemble.members.items():
        member = _trainable(without_idle_options(choice, inputs), modalities, is_asked_for, messages)
        if member is not None:
            member = _fitted_to(inputs, name, member, is_asked_for, messages, added)

        # without their pretrained encoders, two members may become the same one
        if member is not None and member not in members.values():
            members[name] = member

    repeats = ensemble.repeats
    if repeats == "auto":
        repeats = FEW_REPEATS if rows < FEW else 1
    return EnsemblePlan(
        members=members,
        left_out=tuple(sorted(messages)),
        added=tuple(added),
        folds=ensemble.folds,
        repeats=repeats,
        stack=rows >= FEW if ensemble.stack == "auto" else ensemble.stack,
        rounds=ensemble.rounds,
        bags=ensemble.bags,
    )


def _fitted_to(
    inputs: Inputs, name: str, member: Choice, is_asked_for: bool, messages: set[str], added: list[str]
) -> Choice | None:
    """Return a member with the encoders that it trains from scratch; None if it is of no use here.

    Why it is left out goes to `messages`, and why it is there to `added`, where plait has decided it.
    """
    if member.options.get("scratch"):
        from_nothing, reason = from_scratch(member, inputs)
        if from_nothing is not None:
            added.append(f"{name}: {reason}")
        elif is_asked_for:
            messages.add(f"{name}: left out, since {reason}")
        return from_nothing

    if not is_asked_for and repeats_network(member, inputs):
        messages.add(f"{name}: left out, since the network has the same encoders and fusion already")
        return None
    return member


def asks_for_members(recipe: Recipe) -> bool:
    """Return whether the user has asked for members, not only left the quality as it is."""
    return recipe.quality in ("good", "best") or bool(recipe.ensemble and recipe.ensemble.members)


def is_idle(recipe: Recipe, schema: Schema, rows: int, tasks: Mapping[str, Choice]) -> bool:
    """Return whether members could not learn these tasks, or whether there is nothing that they add.

    They learn all targets from the same columns, and cannot write or compare. A model of each target is
    compared with the network alone.
    """
    inputs = schema.of("input")
    for choice in tasks.values():
        named = choice.options.get("inputs") or inputs
        if not task_registry.find(choice.name).fuses or set(named) != set(inputs):
            return True
    return recipe.singles or rows < LEAST_ROWS


def _trainable(choice: Choice, modalities: set[str], strict: bool, messages: set[str]) -> Choice | None:
    """Return the member with the encoders that the table has cells for and whose weights are here.

    None if no encoder is left of those that it asks for. With `strict` missing weights are an error. Why an
    encoder is left out is added to `messages`.
    """
    by_modality: Mapping[str, object] = choice.options.get("encoders") or {}
    if not by_modality:
        return choice

    encoders = {}
    for modality, encoder in by_modality.items():
        if modality not in modalities:
            continue
        reason = _unavailable(Choice.model_validate(encoder), modality, strict)
        if reason:
            messages.add(f"without pretrained vectors of {modality}s: {reason}")
        else:
            encoders[modality] = encoder
    if not encoders:
        return None
    return Choice(name=choice.name, **{**choice.options, "encoders": encoders})


def _unavailable(encoder: Choice, modality: str, strict: bool) -> str:
    """Return why an encoder cannot be built here; nothing if it can. With `strict`, raise the error."""
    try:
        component, config = encoder_registry.choose(encoder)
        component.settled(config, modality)
    except (RecipeError, ModuleNotFoundError) as error:
        if strict:
            raise
        return str(error)
    return ""
