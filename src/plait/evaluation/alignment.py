"""Score how well aligned columns retrieve each other, beside chance and beside linear maps.

Each pair of columns is scored in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

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

VIEW = "table"  # the only view: the vectors that the model had
WIDEST = 256  # numbers of a column that linear maps see
WIDTHS = (8, 16, 32, 64, 128)  # of the spaces of canonical correlation that are tried
QUERIES = 10_000  # rows that are queries, at most
ROWS = 10_000  # training rows that linear maps are fitted on, at most
RESAMPLES = 1000  # bootstrap samples of the queries

Baselines: TypeAlias = dict[str, dict[str, float]]  # the metrics of each kind of linear map


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
    baselines: Baselines = field(default_factory=dict)


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
        has_both = present[:, a] & present[:, b]
        pair = f"{task.columns[a]} ~ {task.columns[b]}"
        geometry[pair] = ranking.geometry(output[has_both, a], output[has_both, b])

    directions = []
    for query, gallery in task.directions():
        directions.append(_evaluate_direction(task, output, target, query, gallery))
    return Alignments(directions, geometry)


def _evaluate_direction(
    task: Comparison, output: np.ndarray, target: np.ndarray, query: int, gallery: int
) -> Direction:
    """Search the cells of the column numbered `gallery` by those of `query`; see `evaluate`."""
    # Rows without the query's cell are searched too: they make it harder, as in use.
    present = (output != 0).any(-1)
    is_searched = present[:, gallery]
    is_query = _queries(present[:, query] & present[:, gallery])
    query_vectors = output[is_query, query]
    gallery_vectors = output[is_searched, gallery]
    ids = target[:, [query, gallery]]
    query_ids = ids[is_query]
    gallery_ids = ids[is_searched]

    ranks = ranking.ranks(query_vectors, gallery_vectors, query_ids, gallery_ids)
    metrics = {}
    for name, score in bootstrap(_rank_rows(ranks), task.metrics, RESAMPLES).items():
        metrics[name] = (score.value, score.low, score.high)

    size = len(gallery_vectors)
    positives = ranking.count_positives(query_ids, gallery_ids)
    return Direction(
        query=task.columns[query],
        gallery=task.columns[gallery],
        queries=len(query_vectors),
        size=size,
        metrics=metrics,
        chance=ranking.chance(positives, size),
    )


def _rank_rows(rank_Q: np.ndarray) -> RankRows:
    """Return the ranks of queries as rows to score, without the queries that have no answer."""
    finite_Q = rank_Q[np.isfinite(rank_Q)]
    return RankRows(finite_Q[:, None])


def _queries(has_both: np.ndarray) -> np.ndarray:
    """Return the mask of rows that are queries: at most `QUERIES` of those in `has_both`, spread evenly."""
    rows = np.flatnonzero(has_both)
    if len(rows) <= QUERIES:
        return has_both
    places = np.linspace(0, len(rows) - 1, QUERIES).astype(int)
    is_query = np.zeros_like(has_both)
    is_query[rows[places]] = True
    return is_query


def compare(alignments: Alignments, task: Comparison, train: Dataset, data: Dataset, target: Tensor) -> None:
    """Add the metrics of ridge regression and of canonical correlation to each direction.

    Both are fitted on the training rows, between the vectors that the model had: those of frozen encoders if
    there are any, else what linear models see of a cell (see `features`).
    """
    features = Features.fit({VIEW: train}, {VIEW: task.columns}, train.rows.numpy())
    train_blocks = {block.column: block for block in features({VIEW: train})}
    blocks = {block.column: block for block in features({VIEW: data})}
    vectors = {}
    for column in task.columns:
        train_block = train_blocks[column]
        block = blocks[column]
        train_x, x = _reduced(train_block.x, train_block.present, block.x)
        vectors[column] = ColumnVectors(train_x, train_block.present, x, block.present)

    for direction in alignments.directions:
        query_number = task.columns.index(direction.query)
        gallery_number = task.columns.index(direction.gallery)
        ids = target.numpy()[:, [query_number, gallery_number]]
        query = vectors[direction.query]
        gallery = vectors[direction.gallery]
        direction.baselines |= _baselines(task, query, gallery, ids)


@dataclass
class ColumnVectors:
    """The vectors of one column in training rows and in the rows to score, and which rows have its cell."""

    train_x: np.ndarray
    train_present: np.ndarray
    x: np.ndarray
    present: np.ndarray


def _baselines(task: Comparison, query: ColumnVectors, gallery: ColumnVectors, ids: np.ndarray) -> Baselines:
    """Score the linear maps from one column to another; none where there are too few rows.

    `ids` (rows, 2) numbers equal cells of both columns alike.
    """
    is_learned = query.train_present & gallery.train_present
    is_query = _queries(query.present & gallery.present)
    is_searched = gallery.present
    least_rows = 2 * max(WIDTHS[0], 2)
    if is_learned.sum() < least_rows or not is_query.any():
        return {}

    # The time to fit grows with the rows; more of them hardly change a linear map.
    rows = np.flatnonzero(is_learned)[:ROWS]
    baselines = {}
    for name, fit in (("ridge", _ridge), ("CCA", _cca)):
        x, y = fit(query.train_x[rows], gallery.train_x[rows], query.x, gallery.x)
        query_vectors = _unit(x[is_query])
        gallery_vectors = _unit(y[is_searched])
        ranks = ranking.ranks(query_vectors, gallery_vectors, ids[is_query], ids[is_searched])
        rank_rows = _rank_rows(ranks)
        baselines[name] = {metric_name: metric(rank_rows) for metric_name, metric in task.metrics.items()}
    return baselines


def _reduced(train_x: Matrix, train_present: np.ndarray, x: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Project both on the principal directions of `train_x` over its present rows, and centre them."""
    from scipy import sparse
    from sklearn.decomposition import PCA, TruncatedSVD

    rows = int(train_present.sum())
    width = min(WIDEST, train_x.shape[1] - 1, rows - 1)
    if width < 1:
        return np.zeros((train_x.shape[0], 1)), np.zeros((x.shape[0], 1))

    # PCA would make a dense copy of a sparse matrix.
    decomposition = TruncatedSVD if sparse.issparse(train_x) else PCA
    present_x = train_x[train_present]
    projection = decomposition(width, random_state=0).fit(present_x)
    mean = projection.transform(present_x).mean(0)
    return projection.transform(train_x) - mean, projection.transform(x) - mean


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
    fifth = len(x) // 5
    held_out = order[:fifth]
    train = order[fifth:]
    max_width = min(x.shape[1], y.shape[1], len(train) // 2)
    widths = [width for width in WIDTHS if width <= max_width] or [1]

    # The right answer to each held-out row is that row.
    ids = np.arange(len(held_out))[:, None]
    scores = {}
    for width in widths:
        x_held, y_held = canonical(x[train], y[train], x[held_out], y[held_out], width)
        ranks = ranking.ranks(_unit(x_held), _unit(y_held), ids, ids)
        scores[width] = ranking.mrr(_rank_rows(ranks))
    best_width = max(scores, key=lambda width: scores[width])
    return canonical(x, y, x_data, y_data, best_width)


def canonical(
    x: np.ndarray, y: np.ndarray, x_data: np.ndarray, y_data: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Map both to the directions of canonical correlation of their first `width` numbers.

    These are the singular vectors of the covariance of the whitened vectors (Hotelling 1936, "Relations
    between two sets of variates"). Scikit-learn's iteration takes minutes for what this does in a second.
    """
    from sklearn.decomposition import PCA

    width = min(width, x.shape[1], y.shape[1], len(x) - 1)
    x = x[:, :width]
    y = y[:, :width]
    x_whitening = PCA(width, whiten=True).fit(x)
    y_whitening = PCA(width, whiten=True).fit(y)

    covariance = x_whitening.transform(x).T @ y_whitening.transform(y)
    x_directions, _, y_directions = np.linalg.svd(covariance)
    x_white = x_whitening.transform(x_data[:, :width])
    y_white = y_whitening.transform(y_data[:, :width])
    return x_white @ x_directions, y_white @ y_directions.T


def _unit(x: np.ndarray) -> np.ndarray:
    """Scale each vector to length 1, in float32."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.maximum(length, 1e-12)
    return unit.astype(np.float32)


def verdict(name: str, alignments: Record) -> str | None:
    """Return a warning if a linear map retrieves as well as the model; `Alignments` comes as a dict."""
    for kind in ("ridge", "CCA"):
        scores = []
        for direction in alignments["directions"]:
            if kind in direction["baselines"]:
                model_mrr, _, _ = direction["metrics"]["mrr"]
                linear_mrr = direction["baselines"][kind]["mrr"]
                scores.append((model_mrr, linear_mrr))
        if not scores:
            continue

        model_mean, linear_mean = np.nanmean(scores, axis=0)
        if model_mean <= linear_mean:
            return (
                f"{name}: a linear map ({kind}) between the same vectors finds as much: "
                f"mean reciprocal rank {linear_mean:.3f}, the model's {model_mean:.3f}"
            )
    return None


def show(alignments: Alignments, title: str, screen: Screen) -> None:
    """Print the metrics of each direction, and the geometry of each pair."""
    kinds: set[str] = set()
    for direction in alignments.directions:
        kinds.update(direction.baselines)
    sorted_kinds = sorted(kinds)

    headers = ["query -> gallery (queries of rows searched)", "metric", "value ", "interval", "chance "]
    headers += [f"{kind} " for kind in sorted_kinds]
    rows = []
    for direction in alignments.directions:
        rows += _rows(direction, sorted_kinds)
    screen.table(title, headers, rows)

    geometry_rows = []
    for pair, geometry in alignments.geometry.items():
        row = [pair]
        for name in ("gap", "alignment", "uniformity"):
            row.append(f"{geometry[name]:.3f}")
        geometry_rows.append(row)
    screen.table(
        "\nthe space: distance of means, mean squared distance of pairs, uniformity",
        ["pair", "gap ", "alignment ", "uniformity "],
        geometry_rows,
    )


def _rows(direction: Direction, kinds: list[str]) -> list[list[str]]:
    """Return a printed row for each metric of one direction, with the linear maps of these kinds."""
    counts = f"{direction.queries:,} of {direction.size:,}"
    title = f"{direction.query} -> {direction.gallery} ({counts})"
    compared = [direction.chance]
    for kind in kinds:
        compared.append(direction.baselines.get(kind, {}))

    rows = []
    for name, (score, low, high) in direction.metrics.items():
        form = ".1f" if name == "median_rank" else ".3f"
        row = [title, name, f"{score:{form}}", f"{low:{form}} to {high:{form}}"]
        for metrics in compared:
            row.append(f"{metrics[name]:{form}}" if name in metrics else "-")
        rows.append(row)
        title = ""  # only the first row has it
    return rows
