"""Read the letters and the last layer of a pretrained network for CTC (as Wav2Vec2ForCTC), to train it
further.

V ids of `spelling`, `NOTHING` among them, D the network's width.
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from plait.errors import RecipeError
from plait.pretrained import files
from plait.tasks.writing.spelling import UNKNOWN, Form, Spelling, plain

MARKS = ("<s>", "</s>", "<pad>", "[PAD]", "[UNK]", "<unk>")  # entries of a vocabulary that are no letters
# Nats that an unknown letter is less likely than the blank, if the network has no id for it.
UNKNOWN_PENALTY = 10.0


def letters(model: str, form: Form) -> tuple[Spelling, list[int]]:
    """Return the network's spelling, and the place in its own vocabulary of each of our ids, the blank first.

    If the form has no capital letters and the network no small ones, its capitals stand for them. The
    unknown letter has the blank's place if the network has no entry for it.

    Raises `RecipeError` if the network does not write letter by letter, or if its files do not say how.
    """
    folder = files.find(model)
    vocabulary = _vocabulary(model, folder)
    special_tokens = files.read_json(folder, "special_tokens_map.json")
    tokens = special_tokens | files.read_json(folder, "tokenizer_config.json")
    blank = _text(tokens.get("pad_token"), "<pad>")
    unknown = _text(tokens.get("unk_token"), "<unk>")
    space = _text(tokens.get("word_delimiter_token"), "|")
    if blank not in vocabulary:
        raise RecipeError(f"'{model}' has no '{blank}' among its letters, which CTC needs to write nothing")

    entries = []
    for entry, index in vocabulary.items():
        if entry not in (blank, unknown, *MARKS):
            entries.append((index, " " if entry == space else entry))
    places = _places(model, entries, form)
    spelling = Spelling("characters", form, [*places, UNKNOWN])
    blank_place = vocabulary[blank]
    return spelling, [blank_place, *places.values(), vocabulary.get(unknown, blank_place)]


def _places(model: str, entries: list[tuple[int, str]], form: Form) -> dict[str, int]:
    """Return the place of each letter of a form. A letter that needs no folding goes first.

    Raises `RecipeError` if an entry has more than one letter.
    """
    places: dict[str, int] = {}
    for index, letter in sorted(entries, key=itemgetter(0)):
        if len(letter) > 1:
            raise RecipeError(
                f"'{model}' writes '{letter}' at once, not letter by letter: let it encode only, with a last "
                f"layer that is learned"
            )
        folded = letter if letter == " " else plain(letter, form)
        if folded and (folded == letter or folded not in places):
            places[folded] = index
    return places


def _vocabulary(model: str, folder: Path) -> dict[str, int]:
    """Read the vocabulary of a network for CTC. Raises `RecipeError` if it is another kind of network."""
    architectures = files.read_json(folder, "config.json").get("architectures") or ["?"]
    vocabulary = files.read_json(folder, "vocab.json")
    is_spelling = bool(architectures[0].endswith("ForCTC") and vocabulary)
    if not is_spelling or not all(isinstance(index, int) for index in vocabulary.values()):
        raise RecipeError(
            f"'{model}' is a {architectures[0]}; expected a network for CTC with its letters in vocab.json, "
            f"as Wav2Vec2ForCTC has them"
        )
    return vocabulary


def last_layer(model: str, places: list[int]) -> tuple[Tensor, Tensor]:
    """Return weights (V, D) and bias (V,) of the network's own last layer, in the order of our ids.

    Raises `RecipeError` if its files have none.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted(files.find(model).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            for name in ("weight", "bias"):
                if f"lm_head.{name}" in names:
                    tensors[name] = file.get_tensor(f"lm_head.{name}").float()
    if len(tensors) < 2:
        raise RecipeError(
            f"the files of '{model}' have no last layer (lm_head) to go on from: let it encode only, with "
            f"one that is learned"
        )
    weight_VD, bias_V = tensors["weight"][places], tensors["bias"][places]

    # Without an entry of its own, the unknown letter must not share the blank's probability.
    if places[-1] == places[0]:
        bias_V[-1] -= UNKNOWN_PENALTY
    return weight_VD, bias_V


def _text(token: object, default: str) -> str:
    """Return the text of a token, which files store as a string or as a dictionary with its `content`."""
    if isinstance(token, dict):
        return str(token.get("content", default))
    return str(token or default)
