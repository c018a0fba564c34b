"""How well MiniLM, n-grams and both tell the group of an emoji by its name, in three languages.

    python docs/decisions/0034_languages.py

Validation rows of the split by emoji; logistic regression, the best of five strengths for each. Needs the
weights of `minilm`, and npm for the emoji.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from plait.pretrained import files
from plait.pretrained.tokenizer import reads_words
from plait.samples import emoji

STRENGTHS = (0.3, 1, 3, 10, 30)
COLUMNS = ("name", "name_fr", "name_zh")


def vectors(texts: list[str]) -> np.ndarray:
    """Return MiniLM's vectors of unit length."""
    folder = files.find("minilm")
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for first in range(0, len(texts), 64):
            batch = tokenizer(texts[first : first + 64], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            rows.append((network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()


def accuracy(train, labels, valid, truth) -> float:
    """Return the validation accuracy of the best strength."""
    scores = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(train, labels)
        scores.append(model.score(valid, truth))
    return max(scores)


def main() -> None:
    folder = Path.home() / ".cache" / "plait" / "samples" / "emoji"
    with emoji.fetch(folder).open(encoding="utf-8", newline="") as file:
        by_emoji = {row["emoji"]: row for row in reversed(list(csv.DictReader(file)))}
    train = [row for row in by_emoji.values() if row["split"] == "train"]
    valid = [row for row in by_emoji.values() if row["split"] == "valid"]
    labels, truth = [row["group"] for row in train], [row["group"] for row in valid]

    for column in COLUMNS:
        texts, valid_texts = [row[column] for row in train], [row[column] for row in valid]
        x, valid_x = vectors(texts) * 5, vectors(valid_texts) * 5
        analyzer = "char" if column == "name_zh" else "char_wb"
        counter = TfidfVectorizer(analyzer=analyzer, ngram_range=(1, 4), sublinear_tf=True)
        grams, valid_grams = counter.fit_transform(texts), counter.transform(valid_texts)
        both, valid_both = sparse.hstack([x, grams]).tocsr(), sparse.hstack([valid_x, valid_grams]).tocsr()
        print(
            f"{column}: known words {reads_words('minilm', texts)}, "
            f"vectors {accuracy(x, labels, valid_x, truth):.3f}, "
            f"n-grams {accuracy(grams, labels, valid_grams, truth):.3f}, "
            f"both {accuracy(both, labels, valid_both, truth):.3f}"
        )


if __name__ == "__main__":
    main()
