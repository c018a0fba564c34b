"""The letters and the last layer of a pretrained network that writes what is said (CTC, as Wav2Vec2ForCTC), to be trained further.

V ids of `spelling`, `NOTHING` among them, D the network's width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plait import networks, weights
from plait.errors import RecipeError
from plait.spelling import UNKNOWN, Form, Spelling, plain

MARKS = ("<s>", "</s>", "<pad>", "[PAD]", "[UNK]", "<unk>")  # entries of a vocabulary that are no letters


def letters(model: str, form: Form) -> tuple[Spelling, list[int]]:
    """How the network spells, and the place in its own vocabulary of each of our ids, the blank's first. Where the form knows no capital
    letters, and the network no small ones, its capitals stand for them.

    Raises `RecipeError` where it does not write letter by letter, or its files do not say how.
    """
    folder = weights.find(model)
    kind = (weights.read_json(folder, "config.json").get("architectures") or ["?"])[0]
    vocabulary: dict[str, Any] = weights.read_json(folder, "vocab.json")
    if not kind.endswith("ForCTC") or not vocabulary:
        raise RecipeError(f"'{model}' is a {kind}; expected a network for CTC with its letters in vocab.json, as Wav2Vec2ForCTC has them")
    says = weights.read_json(folder, "tokenizer_config.json")
    blank, unknown, space = (_text(says.get(f"{name}_token"), given) for name, given in (("pad", "<pad>"), ("unk", "<unk>"), ("word_delimiter", "|")))
    if blank not in vocabulary:
        raise RecipeError(f"'{model}' has no '{blank}' among its letters, which CTC needs to write nothing")
    places: dict[str, int] = {}
    for entry, place in sorted(vocabulary.items(), key=lambda item: item[1]):
        letter = " " if entry == space else entry
        if entry in (blank, unknown) or entry in MARKS:
            continue
        if len(letter) > 1:
            raise RecipeError(f"'{model}' writes '{letter}' at once, not letter by letter: let it encode only, with a last layer that is learned")
        folded = letter if letter == " " else plain(letter, form)
        if folded and (folded == letter or folded not in places):
            places[folded] = place
    found = Spelling("characters", form, [*places, UNKNOWN])
    return found, [vocabulary[blank], *places.values(), vocabulary.get(unknown, vocabulary[blank])]


def last_layer(model: str, places: list[int]) -> tuple[Tensor, Tensor]:
    """Weights (V, D) and bias (V,) of the network's own last layer, in the order of our ids. Raises `RecipeError`."""
    from transformers import AutoModelForCTC

    networks.quiet()
    network = AutoModelForCTC.from_pretrained(
        weights.find(model), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    layer = network.lm_head
    if not isinstance(layer, torch.nn.Linear):
        raise RecipeError(f"'{model}' has a last layer of another form than a linear one: let it encode only, with a last layer that is learned")
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
    return layer.weight.detach()[places], bias[places]


def _text(token: Any, default: str) -> str:
    """A token as files have it: as it is, or with what is said of it."""
    return str(token.get("content", default)) if isinstance(token, dict) else str(token or default)
