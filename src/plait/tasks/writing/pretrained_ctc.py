"""The letters and the last layer of a pretrained network that writes what is said (CTC, as
Wav2Vec2ForCTC), to be trained further.

V ids of `spelling`, `NOTHING` among them, D the network's width.
"""

from __future__ import annotations

from safetensors import safe_open
from torch import Tensor

from plait.errors import RecipeError
from plait.pretrained import files
from plait.tasks.writing.spelling import UNKNOWN, Form, Spelling, plain

MARKS = ("<s>", "</s>", "<pad>", "[PAD]", "[UNK]", "<unk>")  # entries of a vocabulary that are no letters


UNLIKELY = 10.0  # nats that an unknown letter is less likely than the blank, where a network has none


def letters(model: str, form: Form) -> tuple[Spelling, list[int]]:
    """How the network spells, and the place in its own vocabulary of each of our ids, the blank's
    first. Where the form knows no capital letters, and the network no small ones, its capitals stand
    for them. Without an entry for what is unknown it has the blank's place.

    Raises `RecipeError` where it does not write letter by letter, or its files do not say how.
    """
    folder = files.find(model)
    kind = (files.read_json(folder, "config.json").get("architectures") or ["?"])[0]
    vocabulary = files.read_json(folder, "vocab.json")
    if (
        not kind.endswith("ForCTC")
        or not vocabulary
        or not all(isinstance(place, int) for place in vocabulary.values())
    ):
        raise RecipeError(
            f"'{model}' is a {kind}; expected a network for CTC with its letters in vocab.json, as "
            f"Wav2Vec2ForCTC has them"
        )
    says = files.read_json(folder, "special_tokens_map.json") | files.read_json(
        folder, "tokenizer_config.json"
    )
    blank, unknown, space = (
        _text(says.get(f"{name}_token"), given)
        for name, given in (("pad", "<pad>"), ("unk", "<unk>"), ("word_delimiter", "|"))
    )
    if blank not in vocabulary:
        raise RecipeError(f"'{model}' has no '{blank}' among its letters, which CTC needs to write nothing")
    places: dict[str, int] = {}
    for entry, place in sorted(vocabulary.items(), key=lambda item: item[1]):
        letter = " " if entry == space else entry
        if entry in (blank, unknown) or entry in MARKS:
            continue
        if len(letter) > 1:
            raise RecipeError(
                f"'{model}' writes '{letter}' at once, not letter by letter: let it encode only, with a last "
                f"layer that is learned"
            )
        folded = letter if letter == " " else plain(letter, form)
        if folded and (folded == letter or folded not in places):
            places[folded] = place
    found = Spelling("characters", form, [*places, UNKNOWN])
    return found, [vocabulary[blank], *places.values(), vocabulary.get(unknown, vocabulary[blank])]


def last_layer(model: str, places: list[int]) -> tuple[Tensor, Tensor]:
    """Weights (V, D) and bias (V,) of the network's own last layer, in the order of our ids. Raises
    `RecipeError` where its files have none.
    """
    found: dict[str, Tensor] = {}
    for path in sorted(files.find(model).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            held = set(file.keys())
            found |= {
                part: file.get_tensor(f"lm_head.{part}").float()
                for part in ("weight", "bias")
                if f"lm_head.{part}" in held
            }
    if len(found) < 2:
        raise RecipeError(
            f"the files of '{model}' have no last layer (lm_head) to go on from: let it encode only, with "
            f"one that is learned"
        )
    weight_VD, bias_V = found["weight"][places], found["bias"][places]
    if (
        places[-1] == places[0]
    ):  # it has no entry for what is unknown, which must not share the blank's probability
        bias_V[-1] -= UNLIKELY
    return weight_VD, bias_V


def _text(token: object, default: str) -> str:
    """A token as files have it: as it is, or with what is said of it."""
    return str(token.get("content", default)) if isinstance(token, dict) else str(token or default)
