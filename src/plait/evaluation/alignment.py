"""How well aligned columns find each other: retrieval in both directions of every pair, beside chance
and beside linear maps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.features import Features
from plait.evaluation.bootstrap import bootstrap
from plait.nn.summaries import Matrix
from plait.runs.folder import Record
from plait.tasks.aligning import ranking
from plait.tasks.aligning.linear_start import ridge
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.base_comparison import Comparison

VIEW = "own"


WIDEST = 256  # numbers of a column that linear maps see


WIDTHS = (8, 16, 32, 64, 128)  # of the spaces of canonical correlation that are tried


QUERIES = 10_000  # rows that ask, at most


ROWS = 10_000  # that linear maps learn from


RESAMPLES = 1000


@dataclass
class Direction:
    """One column finding another. `size` rows are searched. Metrics are `(value, low, high)`, with 95 %
    bootstrap intervals over queries, while the gallery stays as it is; `chance` is what a ranking by
    lot has, where there is a formula; `baselines` what linear maps between the same vectors have.
    """

    query: str
    gallery: str
    queries: int
    size: int
    metrics: dict[str, tuple[float, float, float]]
    chance: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Alignments:
    """All directions of an alignment, and for each pair of columns what the space looks like (see
    `ranking.geometry`).
    """

    directions: list[Direction]
    geometry: dict[str, dict[str, float]]


def evaluate(task: Comparison, output: np.ndarray, target: np.ndarray) -> Alignments:
    """Scores unit vectors (rows, columns, width). Rows with the same cell as a query's row on either
    side are right answers too.
    """
    have = (output != 0).any(-1)
    directions, geometry = [], {}
    for a, b in task.pairs():
        both = have[:, a] & have[:, b]
        geometry[f"{task.columns[a]} ~ {task.columns[b]}"] = ranking.geometry(
            output[both, a], output[both, b]
        )
    for one, to in task.directions():
        both, there, ids = _queries(have[:, one] & have[:, to]), have[:, to], target[:, [one, to]]
        found = ranking.ranks(output[both, one], output[there, to], ids[both], ids[there])
        size = int(there.sum())
        queries = RankRows(found[np.isfinite(found)][:, None])
        scores = {}
        for name, score in bootstrap(queries, task.metrics, RESAMPLES).items():
            scores[name] = (score.value, score.low, score.high)
        chance = ranking.chance(ranking.count_positives(ids[both], ids[there]), size)
        directions.append(
            Direction(task.columns[one], task.columns[to], int(both.sum()), size, scores, chance)
        )
    return Alignments(directions, geometry)


def _queries(both: np.ndarray) -> np.ndarray:
    """The rows that ask: of very many, some spread evenly. All are searched."""
    rows = np.flatnonzero(both)
    if len(rows) <= QUERIES:
        return both
    some = np.zeros_like(both)
    some[rows[np.linspace(0, len(rows) - 1, QUERIES).astype(int)]] = True
    return some


def compare(found: Alignments, task: Comparison, train: Dataset, data: Dataset, target: Tensor) -> None:
    """Adds to each direction what ridge regression and canonical correlation reach, learned from the
    same training rows between the same vectors: those of frozen encoders where there are any, else what
    linear models see of a cell (see `features`).
    """
    features = Features.fit({VIEW: train}, {VIEW: task.columns}, train.rows.numpy())
    known = {b.column: b for b in features({VIEW: train})}
    asked = {b.column: b for b in features({VIEW: data})}
    reduced = {c: _reduced(known[c].x, known[c].present, asked[c].x) for c in task.columns}
    ids = target.numpy()
    for direction in found.directions:
        one, to = task.columns.index(direction.query), task.columns.index(direction.gallery)
        learn = known[direction.query].present & known[direction.gallery].present
        both, there = (
            _queries(asked[direction.query].present & asked[direction.gallery].present),
            asked[direction.gallery].present,
        )
        (x_known, x_asked), (y_known, y_asked) = reduced[direction.query], reduced[direction.gallery]
        if learn.sum() < 2 * max(WIDTHS[0], 2) or not both.any():
            continue
        rows = np.flatnonzero(learn)[:ROWS]
        for name, fit in (("ridge", _ridge), ("CCA", _cca)):
            x, y = fit(x_known[rows], y_known[rows], x_asked, y_asked)
            pair = ids[:, [one, to]]
            rank_Q = ranking.ranks(_unit(x[both]), _unit(y[there]), pair[both], pair[there])
            queries = RankRows(rank_Q[:, None])
            direction.baselines[name] = {m: metric(queries) for m, metric in task.metrics.items()}


def _reduced(x: Matrix, present: np.ndarray, other: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """The main directions of the first over its rows that are there, of both, centred."""
    from scipy import sparse
    from sklearn.decomposition import PCA, TruncatedSVD

    width = min(WIDEST, x.shape[1] - 1, int(present.sum()) - 1)
    if width < 1:
        return np.zeros((x.shape[0], 1)), np.zeros((other.shape[0], 1))
    kind = (TruncatedSVD if sparse.issparse(x) else PCA)(width, random_state=0).fit(x[present])
    mean = kind.transform(x[present]).mean(0)
    return kind.transform(x) - mean, kind.transform(other) - mean


def _ridge(
    x: np.ndarray, y: np.ndarray, x_asked: np.ndarray, y_asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The query mapped to the gallery's vectors."""
    weight, bias = ridge(x, y)
    return x_asked @ weight.T + bias, y_asked


def _cca(
    x: np.ndarray, y: np.ndarray, x_asked: np.ndarray, y_asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both in the space of canonical correlation of their main directions, as many as find the most on
    a fifth of the rows.
    """
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]
    ids = np.arange(len(held))[:, None]
    scores = {}
    for width in [w for w in WIDTHS if w <= min(x.shape[1], y.shape[1], len(kept) // 2)] or [1]:
        one, other = canonical(x[kept], y[kept], x[held], y[held], width)
        scores[width] = ranking.mrr(RankRows(ranking.ranks(_unit(one), _unit(other), ids, ids)[:, None]))
    return canonical(x, y, x_asked, y_asked, max(scores, key=lambda w: scores[w]))


def canonical(
    x: np.ndarray, y: np.ndarray, x_asked: np.ndarray, y_asked: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both in the directions of canonical correlation of the first `width` numbers: whitened, then
    turned by the singular vectors of what the two have in common (Hotelling 1936). Scikit-learn's own
    takes minutes for what this does in a second.
    """
    from sklearn.decomposition import PCA

    width = min(width, x.shape[1], y.shape[1], len(x) - 1)
    one, other = PCA(width, whiten=True).fit(x[:, :width]), PCA(width, whiten=True).fit(y[:, :width])
    left, _, right = np.linalg.svd(one.transform(x[:, :width]).T @ other.transform(y[:, :width]))
    return one.transform(x_asked[:, :width]) @ left, other.transform(y_asked[:, :width]) @ right.T


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def verdict(name: str, found: Record) -> str | None:
    """What is to be said when a linear map finds as much as the model does, by `Alignments` as a dict."""
    for kind in ("ridge", "CCA"):
        scored = [
            (d["metrics"]["mrr"][0], d["baselines"][kind]["mrr"])
            for d in found["directions"]
            if kind in d["baselines"]
        ]
        if not scored:
            continue
        own, linear = np.nanmean(scored, axis=0)
        if own <= linear:
            return (
                f"{name}: a linear map ({kind}) between the same vectors finds as much: "
                f"mean reciprocal rank {linear:.3f}, the model's {own:.3f}"
            )
    return None


def show(found: Alignments, title: str, screen: Screen) -> None:
    baselines = sorted({kind for d in found.directions for kind in d.baselines})
    rows = []
    for d in found.directions:
        for number, (name, (value, low, high)) in enumerate(d.metrics.items()):
            form = ".1f" if name == "median_rank" else ".3f"
            beside = [
                f"{d.baselines[kind][name]:{form}}" if kind in d.baselines else "-" for kind in baselines
            ]
            where = f"{d.query} -> {d.gallery} ({d.queries:,} of {d.size:,})" if number == 0 else ""
            rows.append(
                [
                    where,
                    name,
                    f"{value:{form}}",
                    f"{low:{form}} to {high:{form}}",
                    f"{d.chance[name]:{form}}" if name in d.chance else "-",
                    *beside,
                ]
            )
    headers = [
        "query -> gallery (queries of rows searched)",
        "metric",
        "value ",
        "interval",
        "chance ",
        *(f"{kind} " for kind in baselines),
    ]
    screen.table(title, headers, rows)
    shapes = [
        [pair, *(f"{g[name]:.3f}" for name in ("gap", "alignment", "uniformity"))]
        for pair, g in found.geometry.items()
    ]
    screen.table(
        "\nthe space: distance of means, mean squared distance of pairs, uniformity",
        ["pair", "gap ", "alignment ", "uniformity "],
        shapes,
    )
