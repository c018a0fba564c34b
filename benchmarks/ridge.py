"""Ridge regression between two columns, by scikit-learn: what an alignment must not fall behind.

It reads the same statistics of cells as alignments do, computed apart from plait: durations, syllables and
spectra of sounds, lengths and n-grams of texts, thumbnails and their changes of videos, and the vectors of
frozen encoders. Which column is mapped to which, into what targets and by which similarity, validation rows
choose for each direction; the penalty of each target is chosen by leave-one-out errors on training rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from accuracy import vectors
from plait.modalities.base import modalities
from plait.table.table import Source
from plait.tasks.aligning import ranking

PENALTIES = 10.0 ** np.arange(-3, 6)
DIRECTIONS = 256  # principal directions of a column, at most
VOWELS = "aeiouyàáâäèéêëìíîïòóôöùúûüæœаеёиоуыэюя"


@dataclass
class Column:
    """One column's cells, its modality, and whether its frozen encoder's vectors are read."""

    name: str
    modality: str
    cells: list[str | None]
    root: Path
    frozen: bool

    @property
    def present(self) -> np.ndarray:
        return np.array([bool(cell) for cell in self.cells])

    def numbers(self, train: np.ndarray) -> np.ndarray:
        """Return the blocks of numbers side by side; each has a total variance of one in `train`."""
        train = train[self.present[train]]
        blocks = []
        for block in self._blocks(train):
            scaled = block - block[train].mean(0)
            blocks.append(scaled / max(np.sqrt(scaled[train].var(0).sum()), 1e-9))
        x = np.concatenate(blocks, 1)
        width = min(DIRECTIONS, len(train) - 1, x.shape[1])
        return PCA(width, random_state=0).fit(x[train]).transform(x)

    def _blocks(self, train: np.ndarray) -> Iterator[np.ndarray]:
        if self.frozen:
            yield vectors(self.name, self.modality, tuple(cell or None for cell in self.cells), self.root)
        if self.modality == "text":
            yield standard(lengths(self.cells), train)
            yield ngrams(self.cells, train)
        if self.modality == "audio":
            measured = sounds(self.name, self.cells, self.root)
            yield standard(measured[:, :6], train)
            yield standard(measured[:, 6:], train)
        if self.modality == "video" and not self.frozen:
            yield standard(movements(self.name, self.cells, self.root), train)
        if self.modality == "category":
            names = np.array([cell or "" for cell in self.cells])[:, None]
            yield (
                OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(names[train]).transform(names)
            )


def standard(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    return StandardScaler().fit(x[train]).transform(x)


def lengths(cells: Sequence[str | None]) -> np.ndarray:
    """Count characters, words, letters and runs of vowels (of Chinese: characters), as logarithms."""
    counts = []
    for cell in cells:
        text = (cell or "").lower()
        syllables = len(re.findall(f"[{VOWELS}]+|[\u4e00-\u9fff0-9]", text))
        counts.append([len(text), len(text.split()), sum(map(str.isalpha, text)), syllables])
    return np.log1p(counts)


def ngrams(cells: Sequence[str | None], train: np.ndarray) -> np.ndarray:
    """Reduce the TF-IDF of n-grams of characters to its main directions."""
    texts = [cell or "" for cell in cells]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True)
    x_train = vectorizer.fit_transform([texts[row] for row in train])
    width = min(DIRECTIONS, len(train) - 1, x_train.shape[1] - 1)
    directions = TruncatedSVD(width, random_state=0).fit(x_train)
    return directions.transform(vectorizer.transform(texts))


def loaded(modality: str, name: str, cells: Sequence[str | None], root: Path) -> list[np.ndarray]:
    """Decode the files of a column; a cell without one is an empty array."""
    array = pa.chunked_array([pa.array([cell or None for cell in cells])])
    fitted = modalities.find(modality).fit(modalities.configure(modality, {}), array)
    values = fitted.load(array, Source(name, root)).values
    assert values.length_B is not None
    arrays = []
    for row, length in enumerate(values.length_B.tolist()):
        arrays.append(values.x[row, :length].float().numpy())
    return arrays


def sounds(name: str, cells: Sequence[str | None], root: Path) -> np.ndarray:
    """Measure durations, peaks of loudness, and mean, deviation and change of each mel band."""
    measured = []
    for level in loaded("audio", name, cells, root):
        level = level if len(level) > 2 else np.full((3, 64), -10.0, np.float32)
        loudness = level.mean(1)
        quiet, loud = np.quantile(loudness, [0.05, 0.95])
        is_loud = loudness > (quiet + loud) / 2
        places = np.flatnonzero(is_loud)
        span = places[-1] - places[0] + 1 if len(places) else 1
        height = max(0.3, 0.1 * (loud - quiet))
        peaks = len(find_peaks(uniform_filter1d(loudness, 7), prominence=height)[0])
        steps, loud_steps = len(level), max(int(is_loud.sum()), 1)
        durations = [np.log(steps), np.log(loud_steps), np.log(span), np.log1p(peaks)]
        rates = [peaks / steps, peaks / loud_steps]
        bands = [level.mean(0), level.std(0), np.abs(np.diff(level, axis=0)).mean(0)]
        measured.append(np.concatenate([durations, rates, *bands]))
    return np.array(measured)


def movements(name: str, cells: Sequence[str | None], root: Path) -> np.ndarray:
    """Measure the mean frame of a video and its mean change, at 8 x 8 pixels."""
    measured = []
    for frames in loaded("video", name, cells, root):
        frames = frames if len(frames) > 1 else np.zeros((2, 64, 64, 3), np.float32)
        edge = frames.shape[1] // 8 * 8
        blocks = frames[:, :edge, :edge].reshape(len(frames), 8, edge // 8, 8, edge // 8, 3)
        small = blocks.mean((2, 4)).reshape(len(frames), -1)
        measured.append(np.concatenate([small.mean(0), np.abs(np.diff(small, axis=0)).mean(0)]))
    return np.array(measured)


@dataclass
class Sides:
    """The numbers of the training, validation and test rows."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def direction(query: Column, gallery: Column, ids: np.ndarray, sides: Sides) -> dict[str, float]:
    """Return the metrics on test rows of the candidate that is best on validation rows.

    `ids` (rows, 2) are those of the cells of both columns.
    """
    x, z = query.numbers(sides.train), gallery.numbers(sides.train)
    both = query.present & gallery.present
    train = sides.train[both[sides.train]]
    scores = {}
    candidates = dict(mapped(x, z, train))
    for name, (queries, searched, similarity) in candidates.items():
        ranks = ranked(queries, searched, similarity, ids, both, gallery.present, sides.valid)
        scores[name] = float((1 / ranks).mean())
    best = max(scores, key=scores.__getitem__)
    queries, searched, similarity = candidates[best]
    ranks = ranked(queries, searched, similarity, ids, both, gallery.present, sides.test)
    rows = ranking.RankRows(ranks[:, None])
    return {name: metric(rows) for name, metric in ranking.METRICS.items()}


Similarity = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def mapped(
    x: np.ndarray, z: np.ndarray, train: np.ndarray
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, Similarity]]]:
    """Yield the maps of either column to the other one, as it is and whitened, with both similarities."""
    for name, source, target in (("query to gallery", x, z), ("gallery to query", z, x)):
        for form in ("as it is", "whitened"):
            wanted = target
            if form == "whitened":
                wanted = PCA(min(100, len(train) - 1, target.shape[1]), whiten=True).fit(target[train])
                wanted = wanted.transform(target)
            ridge = RidgeCV(PENALTIES, alpha_per_target=True).fit(source[train], wanted[train])
            predicted = ridge.predict(source).reshape(len(source), -1)
            pair = (predicted, wanted) if name == "query to gallery" else (wanted, predicted)
            for similarity in (cosine, distance):
                yield f"{name}, {form}, {similarity.__name__}", (*pair, similarity)


def cosine(queries: np.ndarray, searched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors whose products are cosines."""
    return unit(queries), unit(searched)


def distance(queries: np.ndarray, searched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors whose products rank as distances do."""
    half_square = (searched**2).sum(1, keepdims=True) / 2
    return np.c_[queries, np.ones(len(queries))], np.c_[searched, -half_square]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def ranked(
    queries: np.ndarray,
    searched: np.ndarray,
    similarity: Similarity,
    ids: np.ndarray,
    both: np.ndarray,
    in_gallery: np.ndarray,
    side: np.ndarray,
) -> np.ndarray:
    """Return the ranks of the queries of one side in the gallery of that side."""
    asked, found = side[both[side]], side[in_gallery[side]]
    x, z = similarity(queries[asked], searched[found])
    return ranking.ranks(x, z, ids[asked], ids[found])
