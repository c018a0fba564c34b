"""Accuracy on the stamps beside glue code of scikit-learn on the same pretrained vectors, over seeds: benchmarks/accuracy.py

Needs transformers, and the weights of `minilm` and `efficientnet_lite0` (README, "Pretrained encoders"). The split is the sample's
own (families of stamps stay together); the glue code's strength of regularisation is chosen on its validation rows. Nothing was
chosen by looking at test rows. `--all` adds the models that hear sounds and speech, which take minutes each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import plait
from measure import interval, machine, page, table
from plait.components import configure, find
from plait.modalities.base import Source
from plait.samples import stamps

CACHE = Path.home() / ".cache" / "plait" / "samples" / "stamps"
COLUMNS = ("stamp", "picture", "sentence", "sound", "speech", "style", "languages")
INPUTS = {"picture": ("picture",), "sentence": ("sentence",), "picture + sentence": ("picture", "sentence")}
PRETRAINED = ("encoders.image=pretrained", "encoders.text=pretrained")
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def plaited(path: Path, inputs: tuple[str, ...], overrides: tuple[str, ...], seed: int) -> tuple[float, float]:
    """Test accuracy, and the seconds of the training."""
    ignored = {c: "ignored" for c in COLUMNS if c not in inputs}
    with tempfile.TemporaryDirectory() as folder:
        model = plait.fit(path, "category", columns=ignored, overrides=overrides, seed=seed, out=folder, quiet=True)
    return model.record["evaluation"]["test"]["targets"]["category"]["metrics"]["accuracy"]["value"], model.record["seconds"]


@torch.inference_mode()
def vectors(column: str, modality: str, cells: list[str | None], root: Path) -> np.ndarray:
    """The same frozen vectors as plait's; zeros where a cell is missing."""
    encoder = find("encoders", "pretrained")
    config = encoder.settled(configure("encoders", "pretrained", {}), modality)
    given = pa.chunked_array([pa.array(cells)])
    fitted = find("modalities", modality).fit(configure("modalities", modality, encoder.asks(config, modality)), given)
    loaded, network = fitted.load(given, Source(column, root)), encoder.build(config, fitted.layout)
    parts = [network.embed(fitted.transform(loaded.values.take(rows), None)).x[:, 0].float() for rows in torch.arange(len(cells)).split(32)]
    return (torch.cat(parts) * loaded.present[:, None]).numpy()


def glue(path: Path, seeds: int) -> list[tuple[str, str, list[float]]]:
    """What is written today without plait: vectors and n-grams side by side under one classifier."""
    rows = pa.csv.read_csv(path).to_pydict()
    sides, y = np.array(rows["split"]), np.array(rows["category"])
    train, valid, test = (np.flatnonzero(sides == side) for side in ("train", "valid", "test"))
    if not len(valid):
        valid = np.random.default_rng(0).permutation(train)[: len(train) // 5]
    fitting = np.setdiff1d(train, valid)
    texts = [cell or "" for cell in rows["sentence"]]
    dense = {c: vectors(c, m, [cell or None for cell in rows[c]], path.parent) for c, m in (("picture", "image"), ("sentence", "text"))}
    ngrams = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([texts[i] for i in train]).transform(texts)

    def logistic(x: Any, strength: float, on: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=1000).fit(x[on], y[on])

    def tuned(x: Any) -> float:
        best = max(STRENGTHS, key=lambda s: logistic(x, s, fitting).score(x[valid], y[valid]))
        return float(logistic(x, best, train).score(x[test], y[test]))

    scaled = {c: StandardScaler().fit(x[train]).transform(x) for c, x in dense.items()}
    both = np.concatenate([scaled["picture"], scaled["sentence"]], 1)
    trees = [HistGradientBoostingClassifier(random_state=seed, max_iter=100).fit(both[train], y[train]) for seed in range(seeds)]
    boosted = [float(tree.score(both[test], y[test])) for tree in trees]
    return [
        ("scikit-learn: TF-IDF, logistic regression", "sentence", [tuned(ngrams)]),
        ("scikit-learn: vectors, logistic regression", "picture", [tuned(scaled["picture"])]),
        ("scikit-learn: vectors, logistic regression", "sentence", [tuned(scaled["sentence"])]),
        ("scikit-learn: vectors, logistic regression", "picture + sentence", [tuned(both)]),
        ("scikit-learn: vectors and TF-IDF, logistic regression", "picture + sentence", [tuned(sparse.hstack([both, ngrams]).tocsr())]),
        ("scikit-learn: vectors, gradient boosting", "picture + sentence", boosted),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--cache", type=Path, default=CACHE)
    arguments = parser.parse_args()
    path = stamps.fetch(arguments.cache)
    labels = pa.csv.read_csv(path).filter(pa.compute.field("split") == "test")["category"].to_pylist()
    rows = [["majority class", "", f"{max(map(labels.count, labels)) / len(labels):.3f}", "", ""]]
    for name, inputs, found in glue(path, arguments.seeds):
        rows.append([name, inputs, interval(found), ", ".join(f"{v:.3f}" for v in found), ""])
        print(*rows[-1], flush=True)
    every = INPUTS | ({"all": COLUMNS[1:]} if arguments.all else {})
    for name, overrides in (("plait, default", ()), ("plait, pretrained", PRETRAINED)):
        for inputs, columns in every.items():
            scores = [plaited(path, columns, overrides, seed) for seed in range(arguments.seeds)]
            found = [score for score, _ in scores]
            each, seconds = ", ".join(f"{v:.3f}" for v in found), f"{np.median([s for _, s in scores]):.0f}"
            rows.append([name, inputs, interval(found), each, seconds])
            print(*rows[-1], flush=True)
    page("accuracy.md", f"""# Accuracy on the stamps

Made by `benchmarks/accuracy.py`; {machine()}. {len(labels)} test rows, nine classes, {arguments.seeds} seeds where seeds matter,
with the 95 % interval of the mean over them; the binomial standard error of one score is about 0.04. The vectors are those of `minilm` and
`efficientnet_lite0` everywhere.

{table(["model", "inputs", "accuracy", "each seed", "seconds of a training"], rows)}""")  # fmt: skip


if __name__ == "__main__":
    main()
