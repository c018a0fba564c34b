"""Score how well aligned columns retrieve each other, beside chance, the linear maps and the network.

Each pair of columns is scored in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch

from plait.console import Screen
from plait.evaluation.bootstrap import bootstrap
from plait.runs.folder import Record
from plait.tasks.aligning import ranking
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.base_comparison import Comparison

QUERIES = 10_000  # rows that are queries, at most
RESAMPLES = 1000  # bootstrap samples of the queries

Halves: TypeAlias = dict[str, dict[str, float]]  # the metrics of the linear map, and of the network


@dataclass
class Direction:
    """Retrieval of the cells of one column by those of another. `size` rows are searched.

    Metrics are `(value, low, high)`, with 95 % bootstrap intervals over queries. `chance` has the metrics
    of a random ranking. `baselines` has those of the linear map alone and of the network alone, where an
    embedding is made of both.
    """

    query: str
    gallery: str
    queries: int
    size: int
    metrics: dict[str, tuple[float, float, float]]
    chance: dict[str, float]
    baselines: Halves = field(default_factory=dict)


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

    metrics = {}
    ranks = ranking.ranks(query_vectors, gallery_vectors, query_ids, gallery_ids)
    for name, score in bootstrap(_rank_rows(ranks), task.metrics, RESAMPLES).items():
        metrics[name] = (score.value, score.low, score.high)

    baselines = {}
    for half, (queries, searched) in task.halves(torch.from_numpy(output), query, gallery).items():
        of_half = ranking.ranks(
            queries.numpy()[is_query], searched.numpy()[is_searched], query_ids, gallery_ids
        )
        baselines[half] = {name: metric(_rank_rows(of_half)) for name, metric in task.metrics.items()}

    size = len(gallery_vectors)
    positives = ranking.count_positives(query_ids, gallery_ids)
    return Direction(
        query=task.columns[query],
        gallery=task.columns[gallery],
        queries=len(query_vectors),
        size=size,
        metrics=metrics,
        chance=ranking.chance(positives, size),
        baselines=baselines,
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


def verdict(name: str, alignments: Record) -> str | None:
    """Return a warning if columns find each other no better than by chance; `Alignments` comes as a dict."""
    by_chance = []
    for direction in alignments["directions"]:
        mrr, low, _ = direction["metrics"]["mrr"]
        chance_mrr = direction["chance"]["mrr"]
        if low <= chance_mrr:
            scores = f"mean reciprocal rank {mrr:.3f}, chance {chance_mrr:.3f}"
            by_chance.append(f"{direction['query']} -> {direction['gallery']} ({scores})")
    if not by_chance:
        return None
    return f"{name}: no better than chance, within its interval: {', '.join(by_chance)}"


def show(alignments: Alignments, title: str, screen: Screen) -> None:
    """Print the metrics of each direction, and the geometry of each pair."""
    kinds: set[str] = set()
    for direction in alignments.directions:
        kinds.update(direction.baselines)
    sorted_kinds = sorted(kinds)  # the linear map, then the network

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
