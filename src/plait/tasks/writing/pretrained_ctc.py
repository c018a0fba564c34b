"""Read the letters and the last layer of a pretrained network for CTC, to train it further.

Such a network is Wav2Vec2ForCTC.

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

# Entries of a vocabulary that are not letters.
MARKS = ("<s>", "</s>", "<pad>", "[PAD]", "[UNK]", "<unk>")

# Nats that an unknown letter is less likely than the blank, if the network has no id for it.
UNKNOWN_PENALTY = 10.0


def letters(model: str, form: Form) -> tuple[Spelling, list[int]]:
    """Return the network's spelling, and the index in its own vocabulary of each of our ids, the blank first.

    If the form has no capital letters and the network no small ones, its capitals stand for them. The
    unknown letter has the blank's index if the network has no entry for it.

    Raises `RecipeError` if the network does not write letter by letter, or if its files do not say how.
    """
    folder = files.find(model)
    vocabulary = _vocabulary(model, folder)

    # Where both files name a token, the second one counts.
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
            letter = " " if entry == space else entry
            entries.append((index, letter))
    index_of_letter = _index_of_letters(model, entries, form)
    spelling = Spelling("characters", form, [*index_of_letter, UNKNOWN])

    blank_index = vocabulary[blank]
    unknown_index = vocabulary.get(unknown, blank_index)
    return spelling, [blank_index, *index_of_letter.values(), unknown_index]


def _index_of_letters(model: str, entries: list[tuple[int, str]], form: Form) -> dict[str, int]:
    """Return the index of each letter of a form. A letter that needs no folding goes first.

    Raises `RecipeError` if an entry has more than one letter.
    """
    index_of_letter: dict[str, int] = {}
    for index, letter in sorted(entries, key=itemgetter(0)):
        if len(letter) > 1:
            raise RecipeError(
                f"'{model}' writes '{letter}' at once, not letter by letter: let it encode only, with a last "
                f"layer that is learned"
            )
        folded = letter if letter == " " else plain(letter, form)
        if not folded:
            continue
        if folded == letter or folded not in index_of_letter:
            index_of_letter[folded] = index
    return index_of_letter


def _vocabulary(model: str, folder: Path) -> dict[str, int]:
    """Read the vocabulary of a network for CTC. Raises `RecipeError` if it is another kind of network."""
    config = files.read_json(folder, "config.json")
    vocabulary = files.read_json(folder, "vocab.json")
    architectures = config.get("architectures") or ["?"]
    kind = architectures[0]
    is_spelling = kind.endswith("ForCTC") and vocabulary
    if not is_spelling or not all(isinstance(index, int) for index in vocabulary.values()):
        raise RecipeError(
            f"'{model}' is a {kind}; expected a network for CTC with its letters in vocab.json, "
            f"as Wav2Vec2ForCTC has them"
        )
    return vocabulary


def last_layer(model: str, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Return weights (V, D) and bias (V,) of the network's own last layer, in the order of our ids.

    `indices` has the index of each id in the network's vocabulary. Raises `RecipeError` if its files have
    no last layer.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted(files.find(model).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            for name in ("weight", "bias"):
                key = f"lm_head.{name}"
                if key in names:
                    tensors[name] = file.get_tensor(key).float()
    if len(tensors) < 2:
        raise RecipeError(
            f"the files of '{model}' have no last layer (lm_head) to go on from: let it encode only, with "
            f"one that is learned"
        )
    weight_VD, bias_V = tensors["weight"][indices], tensors["bias"][indices]

    # Without an entry of its own, the unknown letter must not share the blank's probability.
    if indices[-1] == indices[0]:
        bias_V[-1] -= UNKNOWN_PENALTY
    return weight_VD, bias_V


def _text(token: object, default: str) -> str:
    """Return the text of a token, which files store as a string or as a dictionary with its `content`."""
    if isinstance(token, dict):
        return str(token.get("content", default))
    return str(token or default)
