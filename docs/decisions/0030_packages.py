"""Frozen encoders out of packages, by logistic regression on folds of training rows: the figures of 0030.

Run it with `python docs/decisions/0030_packages.py [audio] [video] [images]`. It fetches the samples, and
takes some ten minutes on one core.
"""

from __future__ import annotations

import csv
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plait.encoders.base import encoders
from plait.encoders.pretrained import Pretrained
from plait.modalities.base import modalities
from plait.nn.layers import masked_mean
from plait.samples.base import find_sample
from plait.table.table import Source

SAMPLES = Path.home() / ".cache" / "plait" / "samples"
STAMPS = SAMPLES / "stamps" / "usr" / "share" / "tuxpaint" / "stamps"
TOGETHER = 32  # cells that are embedded at once
MOST = 500  # rows of a table
FEW = 5  # kinds of sounds with fewer recordings are left out
PARTS = {"network": slice(0, 192), "bands": slice(192, None), "both": slice(None)}


def embedded(modality: str, cells: Sequence[str], root: Path, **options: object) -> np.ndarray:
    """Return the normalised vectors of cells, (cells, D), and print how many a second were embedded."""
    config = Pretrained.settled(encoders.configure("pretrained", options), modality)
    asked = modalities.configure(modality, Pretrained.asks(config, modality))
    fitted = modalities.find(modality).fit(asked, pa.chunked_array([pa.array(cells)]))
    encoder = Pretrained.build(config, fitted.layout).eval()
    vectors, seconds = [], 0.0
    for first in range(0, len(cells), TOGETHER):
        column = pa.chunked_array([pa.array(cells[first : first + TOGETHER])])
        values = fitted.transform(fitted.load(column, Source("cell", root)).values, None)
        start = time.perf_counter()
        with torch.inference_mode():
            encoded = encoder.embed(values)
            vectors.append(masked_mean(encoder.norm(encoded.x), encoded.mask_BL()))
        seconds += time.perf_counter() - start
    print(f"  {options or modality}: {len(cells) / seconds:.0f} a second")
    return torch.cat(vectors).numpy()


def accuracy(x: np.ndarray, labels: Sequence[str], groups: Sequence[str]) -> float:
    """Return the mean accuracy on five folds; rows of a group are in one fold."""
    y, scores = np.array(labels), []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y, groups):
        model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=(1e-4, 1e-3, 1e-2, 0.1), cv=3))
        scores.append(model.fit(x[train], y[train]).score(x[test], y[test]))
    return float(np.mean(scores))


def recall(x: np.ndarray, texts: Sequence[str]) -> float:
    """Return how often a recording's transcript is among the first ten of a fold's, by ridge regression."""
    found = []
    y = np.array(texts)
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(x, groups=y):
        counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
        target, wanted = counts.fit_transform(y[train]).toarray(), counts.transform(y[test]).toarray()
        mean = target.mean(0)
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 8))).fit(x[train], target - mean)
        guess, wanted = model.predict(x[test]), wanted - mean
        similarity = guess @ (wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        found.append((rank < 10).mean())
    return float(np.mean(found))


def rows_of(sample: str) -> tuple[list[dict[str, str]], Path]:
    """Return the rows of a sample that are not its test rows, and the folder of its files."""
    file = find_sample(sample).fetch(SAMPLES / sample)
    with file.open(encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["split"] != "test"]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))], file.parent


def audio() -> None:
    rows_of("stamps")
    rng = np.random.default_rng(0)
    spoken = sorted(STAMPS.rglob("*_desc_*.ogg"))
    spoken = [spoken[i] for i in rng.permutation(len(spoken))[:MOST]]
    languages = [file.stem.rpartition("_")[2] for file in spoken]
    stamps = [file.stem.partition("_desc")[0] for file in spoken]

    sounds = sorted(
        file for file in STAMPS.rglob("*.ogg") if "_desc" not in file.name and "symbols" not in str(file)
    )
    kinds = ["/".join(file.relative_to(STAMPS).parts[:2]) for file in sounds]
    kept = [i for i, kind in enumerate(kinds) if kinds.count(kind) >= FEW]
    sounds, kinds = [sounds[i] for i in kept], [kinds[i] for i in kept]

    prompts, folder = rows_of("prompts")
    prompts = prompts[:MOST]
    tables = {
        "languages of descriptions": (embedded("audio", list(map(str, spoken)), STAMPS), languages, stamps),
        "kinds of sounds": (embedded("audio", list(map(str, sounds)), STAMPS), kinds, list(map(str, sounds))),
    }
    x = embedded("audio", [row["speech"] for row in prompts], folder)
    tables["readers of prompts"] = (x, [row["reader"] for row in prompts], [row["key"] for row in prompts])
    for name, (vectors, labels, groups) in tables.items():
        for part, numbers in PARTS.items():
            print(f"{name}, {part}: {accuracy(vectors[:, numbers], labels, groups):.3f}", flush=True)
    transcripts = [row["transcript"] for row in prompts]
    for part, numbers in PARTS.items():
        print(f"prompts and transcripts, {part}: {recall(x[:, numbers], transcripts):.3f}", flush=True)


def video() -> None:
    rows, folder = rows_of("clips")
    rows = [row for row in rows if row["clip"]][:MOST]
    for frames in ("each", "motion"):
        x = embedded("video", [row["clip"] for row in rows], folder, frames=frames)
        for target in ("motion", "category"):
            score = accuracy(x, [row[target] for row in rows], [row["clip"] for row in rows])
            print(f"moving stamps, {target}, frames: {frames}: {score:.3f}", flush=True)


def images() -> None:
    stamps, folder = rows_of("stamps")
    stamps = [row for row in stamps if row["picture"]][:MOST]
    emoji, emoji_folder = rows_of("emoji")
    emoji = emoji[:MOST]
    for model in ("efficientnet_lite0", "efficientnet_lite2"):
        x = embedded("image", [row["picture"] for row in stamps], folder, model=model)
        score = accuracy(x, [row["category"] for row in stamps], [row["family"] for row in stamps])
        print(f"stamps, {model}: {score:.3f}", flush=True)
        x = embedded("image", [row["picture"] for row in emoji], emoji_folder, model=model)
        score = accuracy(x, [row["group"] for row in emoji], [row["emoji"] for row in emoji])
        print(f"emoji, {model}: {score:.3f}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    for part in sys.argv[1:] or ("audio", "video", "images"):
        {"audio": audio, "video": video, "images": images}[part]()
