"""The tokenizers of pretrained networks, and whether they know the words of a column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from plait.errors import RecipeError
from plait.pretrained import files

# Tokens for each letter above which a tokenizer spells words instead of knowing them, and the share of
# unknown tokens above which it cannot read them. English has 0.23 tokens a letter, French 0.36, Chinese 1.
SPELLS = 0.6
UNREADABLE = 0.1


def load_tokenizer(name: str) -> Tokenizer:
    """Load the tokenizer of a pretrained model. It neither pads nor cuts. Raises `RecipeError`."""
    file = files.find(name) / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"'{name}' has no tokenizer.json in {file.parent}; save one there with "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers, written in Rust, raise `Exception` itself
        raise RecipeError(f"'{file}' is no tokenizer: {error}; save or copy it again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def reads_words(name: str, texts: Sequence[str]) -> bool:
    """Return whether a model's tokenizer has tokens for the words of these texts.

    Where it spells them letter by letter, or has no token for many of them, n-grams of the texts say more
    than the network's vectors: of the Chinese names of emoji, MiniLM does not know 68 % of the letters.
    """
    tokenizer = _shared(name)
    unknown: str = getattr(tokenizer.model, "unk_token", None) or ""  # byte-level ones have none
    tokens, unknown_tokens, letters = 0, 0, 0
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        tokens += len(encoding.tokens)
        unknown_tokens += encoding.tokens.count(unknown)
    for text in texts:
        letters += sum(not letter.isspace() for letter in text)
    if not letters:
        return True
    return tokens <= SPELLS * letters and unknown_tokens <= UNREADABLE * tokens


@cache
def _shared(name: str) -> Tokenizer:
    """Load a tokenizer once for all columns. Its settings must stay as they are."""
    return load_tokenizer(name)
