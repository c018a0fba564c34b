"""Score how well aligned columns retrieve each other, beside chance and beside linear maps.

Each pair of columns is scored in both directions.
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

VIEW = "table"
WIDEST = 256  # numbers of a column that linear maps see
WIDTHS = (8, 16, 32, 64, 128)  # of the spaces of canonical correlation that are tried
QUERIES = 10_000  # rows that are queries, at most
ROWS = 10_000  # training rows that linear maps are fitted on, at most
RESAMPLES = 1000


@dataclass
class Direction:
    """Retrieval of the cells of one column by those of another. `size` rows are searched.

    Metrics are `(value, low, high)`, with 95 % bootstrap intervals over queries. `chance` has the metrics
    of a random ranking, `baselines` those of linear maps between the same vectors.
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
    """All directions of an alignment, and the geometry of each pair of columns (`ranking.geometry`)."""

    directions: list[Direction]
    geometry: dict[str, dict[str, float]]


def evaluate(task: Comparison, output: np.ndarray, target: np.ndarray) -> Alignments:
    """Score unit vectors `output` (rows, columns, width); zeros where a cell is missing.

    `target` (rows, columns) numbers equal cells alike: rows with the same cell as the query's row, on either
    side, are right answers too.
    """
    present = (output != 0).any(-1)
    geometry = {}
    for a, b in task.pairs():
        both = present[:, a] & present[:, b]
        pair = f"{task.columns[a]} ~ {task.columns[b]}"
        geometry[pair] = ranking.geometry(output[both, a], output[both, b])

    directions = []
    for query, gallery in task.directions():
        queries = _queries(present[:, query] & present[:, gallery])
        searched = present[:, gallery]
        ids = target[:, [query, gallery]]
        ranks = ranking.ranks(output[queries, query], output[searched, gallery], ids[queries], ids[searched])
        metrics = {}
        for name, score in bootstrap(_rank_rows(ranks), task.metrics, RESAMPLES).items():
            metrics[name] = (score.value, score.low, score.high)
        size = int(searched.sum())
        chance = ranking.chance(ranking.count_positives(ids[queries], ids[searched]), size)
        columns = task.columns[query], task.columns[gallery]
        directions.append(Direction(*columns, int(queries.sum()), size, metrics, chance))
    return Alignments(directions, geometry)


def _rank_rows(rank_Q: np.ndarray) -> RankRows:
    """Return the ranks of queries as rows to score, without the queries that have no answer."""
    return RankRows(rank_Q[np.isfinite(rank_Q)][:, None])


def _queries(both: np.ndarray) -> np.ndarray:
    """Return the mask of rows that are queries: at most `QUERIES` of those in `both`, spread evenly."""
    rows = np.flatnonzero(both)
    if len(rows) <= QUERIES:
        return both
    mask = np.zeros_like(both)
    mask[rows[np.linspace(0, len(rows) - 1, QUERIES).astype(int)]] = True
    return mask


def compare(alignments: Alignments, task: Comparison, train: Dataset, data: Dataset, target: Tensor) -> None:
    """Add the metrics of ridge regression and of canonical correlation to each direction.

    Both are fitted on the training rows, between the vectors that the model had: those of frozen encoders if
    there are any, else what linear models see of a cell (see `features`).
    """
    features = Features.fit({VIEW: train}, {VIEW: task.columns}, train.rows.numpy())
    train_blocks = {block.column: block for block in features({VIEW: train})}
    blocks = {block.column: block for block in features({VIEW: data})}
    reduced = {}
    for column in task.columns:
        train_block = train_blocks[column]
        reduced[column] = _reduced(train_block.x, train_block.present, blocks[column].x)

    for direction in alignments.directions:
        query, gallery = direction.query, direction.gallery
        learnable = train_blocks[query].present & train_blocks[gallery].present
        queries = _queries(blocks[query].present & blocks[gallery].present)
        searched = blocks[gallery].present
        if learnable.sum() < 2 * max(WIDTHS[0], 2) or not queries.any():
            continue
        rows = np.flatnonzero(learnable)[:ROWS]
        (x_train, x_data), (y_train, y_data) = reduced[query], reduced[gallery]
        ids = target.numpy()[:, [task.columns.index(query), task.columns.index(gallery)]]
        for name, fit in (("ridge", _ridge), ("CCA", _cca)):
            x, y = fit(x_train[rows], y_train[rows], x_data, y_data)
            ranks = ranking.ranks(_unit(x[queries]), _unit(y[searched]), ids[queries], ids[searched])
            rows_with_rank = _rank_rows(ranks)
            direction.baselines[name] = {m: metric(rows_with_rank) for m, metric in task.metrics.items()}


def _reduced(x: Matrix, present: np.ndarray, other: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Project both on the principal directions of `x` over its present rows, and centre them."""
    from scipy import sparse
    from sklearn.decomposition import PCA, TruncatedSVD

    width = min(WIDEST, x.shape[1] - 1, int(present.sum()) - 1)
    if width < 1:
        return np.zeros((x.shape[0], 1)), np.zeros((other.shape[0], 1))
    kind = TruncatedSVD if sparse.issparse(x) else PCA
    projection = kind(width, random_state=0).fit(x[present])
    mean = projection.transform(x[present]).mean(0)
    return projection.transform(x) - mean, projection.transform(other) - mean


def _ridge(
    x: np.ndarray, y: np.ndarray, x_data: np.ndarray, y_data: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Map the vectors of queries to those of the gallery by a linear map, fitted on `x` and `y`."""
    weight, bias = ridge(x, y)
    return x_data @ weight.T + bias, y_data


def _cca(
    x: np.ndarray, y: np.ndarray, x_data: np.ndarray, y_data: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Map both into their space of canonical correlation.

    Its width is the one with the best mean reciprocal rank on a fifth of the rows, held out.
    """
    order = np.random.default_rng(0).permutation(len(x))
    held_out, train = order[: len(x) // 5], order[len(x) // 5 :]
    max_width = min(x.shape[1], y.shape[1], len(train) // 2)
    widths = [width for width in WIDTHS if width <= max_width] or [1]

    ids = np.arange(len(held_out))[:, None]
    scores = {}
    for width in widths:
        x_held, y_held = canonical(x[train], y[train], x[held_out], y[held_out], width)
        ranks = ranking.ranks(_unit(x_held), _unit(y_held), ids, ids)
        scores[width] = ranking.mrr(_rank_rows(ranks))
    best = max(scores, key=lambda width: scores[width])
    return canonical(x, y, x_data, y_data, best)


def canonical(
    x: np.ndarray, y: np.ndarray, x_data: np.ndarray, y_data: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Map both to the directions of canonical correlation of their first `width` numbers.

    These are the singular vectors of the covariance of the whitened vectors (Hotelling 1936, "Relations
    between two sets of variates"). Scikit-learn's iteration takes minutes for what this does in a second.
    """
    from sklearn.decomposition import PCA

    width = min(width, x.shape[1], y.shape[1], len(x) - 1)
    x, y = x[:, :width], y[:, :width]
    x_whitening, y_whitening = PCA(width, whiten=True).fit(x), PCA(width, whiten=True).fit(y)
    u, _, vh = np.linalg.svd(x_whitening.transform(x).T @ y_whitening.transform(y))
    return x_whitening.transform(x_data[:, :width]) @ u, y_whitening.transform(y_data[:, :width]) @ vh.T


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def verdict(name: str, alignments: Record) -> str | None:
    """Return a warning if a linear map retrieves as well as the model; `Alignments` comes as a dict."""
    for kind in ("ridge", "CCA"):
        scored = []
        for direction in alignments["directions"]:
            if kind in direction["baselines"]:
                scored.append((direction["metrics"]["mrr"][0], direction["baselines"][kind]["mrr"]))
        if not scored:
            continue
        model, linear = np.nanmean(scored, axis=0)
        if model <= linear:
            return (
                f"{name}: a linear map ({kind}) between the same vectors finds as much: "
                f"mean reciprocal rank {linear:.3f}, the model's {model:.3f}"
            )
    return None


def show(alignments: Alignments, title: str, screen: Screen) -> None:
    """Print the metrics of each direction, and the geometry of each pair."""
    kinds = sorted(set().union(*[direction.baselines for direction in alignments.directions]))
    headers = ["query -> gallery (queries of rows searched)", "metric", "value ", "interval", "chance "]
    headers += [f"{kind} " for kind in kinds]
    rows = []
    for direction in alignments.directions:
        rows += _rows(direction, kinds)
    screen.table(title, headers, rows)

    names = ("gap", "alignment", "uniformity")
    geometry_rows = []
    for pair, geometry in alignments.geometry.items():
        geometry_rows.append([pair, *[f"{geometry[name]:.3f}" for name in names]])
    screen.table(
        "\nthe space: distance of means, mean squared distance of pairs, uniformity",
        ["pair", "gap ", "alignment ", "uniformity "],
        geometry_rows,
    )


def _rows(direction: Direction, kinds: list[str]) -> list[list[str]]:
    """Return a printed row for each metric of one direction, with the linear maps of these kinds."""
    title = f"{direction.query} -> {direction.gallery} ({direction.queries:,} of {direction.size:,})"
    rows = []
    for name, (value, low, high) in direction.metrics.items():
        form = ".1f" if name == "median_rank" else ".3f"
        row = [title, name, f"{value:{form}}", f"{low:{form}} to {high:{form}}"]
        for other in (direction.chance, *[direction.baselines.get(kind, {}) for kind in kinds]):
            row.append(f"{other[name]:{form}}" if name in other else "-")
        rows.append(row)
        title = ""  # only the first row has it
    return rows
