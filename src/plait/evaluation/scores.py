"""Score a model: metrics with intervals, beside the baseline, for every subset of the inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from plait.console import Screen
from plait.errors import count
from plait.evaluation import alignment
from plait.evaluation.alignment import Alignments
from plait.evaluation.bootstrap import Score, bootstrap, draw, interval
from plait.model.fused import blocks_of
from plait.prediction.predictor import Answering, Rows
from plait.runs.folder import Record
from plait.tasks.base import Task
from plait.tasks.base_comparison import comparisons

SUBSET_RESAMPLES = 200  # bootstrap samples for a subset of the inputs, at most

# Up to so many blocks, every subset is scored. With more, each block by itself, and all blocks but each.
ALL_SUBSETS = 4

# In a model of more columns, all plain columns count as one block: the time grows with the blocks squared.
MANY = 50

Subset: TypeAlias = tuple[str, ...]  # the columns that are present; the others are hidden


@dataclass
class TargetEvaluation:
    """The scores of one target: its metrics, those of the baseline, and its main metric by subset of inputs.

    Of the `rows`, `unseen` have a label that no answer can be, such as a class that training lacks.
    `score` names the main metric. `differences` are those of each subset's score from that of all inputs.
    Their intervals are paired: both scores see the same `subset_resamples` bootstrap samples.
    """

    rows: int
    score: str
    metrics: dict[str, Score]
    baseline: dict[str, float]
    subsets: list[tuple[Subset, Score]] = field(default_factory=list)
    differences: list[Score] = field(default_factory=list)
    subset_resamples: int = 0
    unseen: int = 0


@dataclass
class Evaluation:
    """The scores of all targets on the rows that `name` describes.

    Intervals come from `resamples` bootstrap samples with seed 0, for subsets of inputs from at most 200.
    """

    name: str
    targets: dict[str, TargetEvaluation]
    resamples: int
    alignments: dict[str, Alignments] = field(default_factory=dict)

    def to_dict(self) -> Record:
        """Return all scores, as JSON."""
        return asdict(self)

    def show(self) -> Evaluation:
        """Print itself, and return itself."""
        show(self, Screen(out=True))
        return self


@dataclass(frozen=True)
class Inputs:
    """The inputs that a model is scored with.

    - `subsets`: whether to score subsets of the inputs too;
    - `in_table`: the columns that the table has; all if None;
    - `plain`: the plain columns, which count as one block in a model of more than `MANY` columns.
    """

    subsets: bool = True
    in_table: Collection[str] | None = None
    plain: Collection[str] = ()

    def present(self, columns: Sequence[str]) -> list[str]:
        """Return those of some columns that the table has."""
        if self.in_table is None:
            return list(columns)
        return [column for column in columns if column in self.in_table]


ALL_INPUTS = Inputs()


def evaluate(
    answering: Answering,
    data: Rows,
    priors: Mapping[str, ArrayLike],
    name: str,
    inputs: Inputs = ALL_INPUTS,
    progress: Callable[[int], None] = lambda n: None,
) -> Evaluation:
    """Score a model on the labelled rows of `data`.

    `priors` holds the baseline's output for each target. All subsets together cost little more than one:
    only fusion and heads run again.
    """
    subsets = _scored_subsets(answering, inputs)
    present_columns = [inputs.present(subset) for subset in subsets]
    outputs = answering.subset_outputs(data, present_columns, progress)
    resamples = _resamples(len(data))

    batch = data.prepared.batch
    targets: dict[str, TargetEvaluation] = {}
    alignments: dict[str, Alignments] = {}
    compared = comparisons(answering.tasks)
    for target, task in answering.tasks.items():
        if target not in batch.targets:
            continue
        truth = batch.targets[target][data.rows].numpy()

        if target in compared:
            embeddings = outputs[0][target].numpy()  # of all columns
            alignments[target] = alignment.evaluate(compared[target], embeddings, truth)
            continue

        # A row may have one target and lack another.
        labelled = batch.labelled[target][data.rows]
        scored = task.scorable(batch.targets[target][data.rows], labelled).numpy()
        if not scored.any():
            continue
        scored_outputs = {}
        for subset, subset_outputs in zip(subsets, outputs, strict=True):
            scored_outputs[subset] = subset_outputs[target].numpy()[scored]
        prior = np.asarray(priors[target], dtype=np.float32)
        evaluation = _evaluate_target(task, scored_outputs, truth[scored], prior, resamples)
        evaluation.unseen = int(scored.sum() - labelled.sum())
        targets[target] = evaluation
    return Evaluation(name, targets, resamples, alignments)


def _resamples(rows: int) -> int:
    """Return the number of bootstrap samples: 1,000, or fewer if so many rows would take long."""
    drawn_rows = 2e7
    return int(np.clip(drawn_rows / max(rows, 1), 100, 1000))


def _evaluate_target(
    task: Task, outputs: dict[Subset, np.ndarray], truth: np.ndarray, prior: np.ndarray, resamples: int
) -> TargetEvaluation:
    """Score one target by all metrics, and each subset of its columns by the main one.

    `outputs` has the outputs for all columns first, then those for each subset. `prior` is the baseline's
    output for any row.
    """
    columns, *_ = outputs
    rows = task.score_rows(outputs[columns], truth)
    baseline = np.broadcast_to(prior, (len(truth), *prior.shape)).copy()

    # A subset that has all columns that this task reads would have the scores of all columns.
    main_metric = {task.score: task.metrics[task.score]}
    subset_resamples = min(resamples, SUBSET_RESAMPLES)
    read_columns = set(task.read(columns))
    smaller = [subset for subset in outputs if set(subset) < read_columns]
    evaluation = TargetEvaluation(
        rows=len(truth),
        score=task.score,
        metrics=bootstrap(rows, task.metrics, resamples),
        baseline=task.measure(baseline, truth),
        subset_resamples=subset_resamples if smaller else 0,
    )
    if not smaller:
        return evaluation

    fused = evaluation.metrics[task.score].value
    fused_drawn = draw(rows, main_metric, subset_resamples)[task.score]
    for subset in smaller:
        subset_rows = task.score_rows(outputs[subset], truth)
        value = main_metric[task.score](subset_rows)
        drawn = draw(subset_rows, main_metric, subset_resamples)[task.score]
        evaluation.subsets.append((subset, interval(value, drawn)))
        evaluation.differences.append(interval(value - fused, drawn - fused_drawn))
    return evaluation


def imbalance(target: str, evaluation: Record | None, higher: bool) -> str | None:
    """Return a warning if one input by itself scores better than all inputs together.

    The paired interval of the difference must exclude 0: on few rows a score may be better by luck.
    `evaluation` is a `TargetEvaluation` as a dict; `higher` says whether a higher score is better.
    """
    if not evaluation:
        return None

    # A block of several plain columns is no single input.
    better: dict[str, Record] = {}
    scored = zip(evaluation.get("subsets", ()), evaluation.get("differences", ()), strict=True)
    for (subset, score), difference in scored:
        is_better = difference["low"] > 0 if higher else difference["high"] < 0
        if len(subset) == 1 and is_better:
            better[subset[0]] = score
    if not better:
        return None

    best_of = max if higher else min
    column = best_of(better, key=lambda column: better[column]["value"])
    metric = evaluation["score"]
    fused = evaluation["metrics"][metric]["value"]
    return (
        f"{target}: '{column}' by itself has a better {metric} on validation rows "
        f"({better[column]['value']:.3f}) than all inputs together ({fused:.3f})"
    )


def _scored_subsets(answering: Answering, inputs: Inputs) -> list[Subset]:
    """Return all columns first, and then the smaller subsets that at least one target is scored with."""
    columns = answering.columns
    subsets = [tuple(columns)]
    if not inputs.subsets:
        return subsets

    read_by_targets = []
    for task in answering.tasks.values():
        if task.has_target:
            read_by_targets.append(set(task.read(columns)))

    # A subset hides whole blocks. Plain columns are a block each, unless they are many.
    joined_columns = inputs.plain if len(columns) > MANY else ()
    blocks = blocks_of(columns, joined_columns)
    for subset in _proper_subsets(list(blocks.values())):
        if any(set(subset) < read_columns for read_columns in read_by_targets):
            subsets.append(subset)
    return subsets


def _proper_subsets(blocks: list[list[str]]) -> list[Subset]:
    """Return the columns of every subset of the blocks, but for the empty one and the full one.

    With more than `ALL_SUBSETS` blocks, return only each block by itself, and all blocks but each.
    """
    sizes: Iterable[int] = range(1, len(blocks))
    if len(blocks) > ALL_SUBSETS:
        sizes = (1, len(blocks) - 1)

    subsets = []
    for size in sizes:
        for chosen_blocks in itertools.combinations(blocks, size):
            columns = itertools.chain(*chosen_blocks)
            subsets.append(tuple(columns))
    return subsets


def show(evaluation: Evaluation, screen: Screen) -> None:
    """Print the scores of each target, of subsets of the inputs, and of each alignment."""
    for target, scores in evaluation.targets.items():
        title = (
            f"\n{target}: {count(scores.rows, 'row')} of {evaluation.name}, "
            f"95 % intervals by {evaluation.resamples:,} bootstrap samples{unseen_note(scores.unseen)}"
        )
        rows = []
        for metric, score in scores.metrics.items():
            baseline = f"{scores.baseline[metric]:.3f}"
            rows.append([metric, *_shown(score), baseline])
        screen.table(title, ["metric", "value ", "interval", "baseline "], rows)
        if scores.subsets:
            _show_subsets(target, scores, screen)

    for name, directions in evaluation.alignments.items():
        title = (
            f"\n{name}: retrieval among the rows of {evaluation.name}, "
            f"95 % intervals by {alignment.RESAMPLES:,} bootstrap samples"
        )
        alignment.show(directions, title, screen)


def unseen_note(rows: int) -> str:
    """Say how many rows are wrong whatever the answer, to add to a title; nothing if there are none."""
    if not rows:
        return ""
    return f"; among them {count(rows, 'row')} with a label that training lacks: no answer is right"


def _show_subsets(target: str, scores: TargetEvaluation, screen: Screen) -> None:
    """Print the main metric for each subset of the inputs, and its distance from that of all inputs."""
    fused = scores.metrics[scores.score].value
    rows = []
    for subset, score in scores.subsets:
        inputs = subset_name(subset, scores.subsets)
        difference = f"{score.value - fused:+.3f}"
        rows.append([inputs, *_shown(score), difference])
    title = (
        f"\n{target}: {scores.score} of the same model with fewer inputs, "
        f"95 % intervals by {scores.subset_resamples:,} bootstrap samples"
    )
    screen.table(title, ["inputs", "value ", "interval", "against all "], rows)


def _shown(score: Score) -> list[str]:
    """Return a score and its interval as they are printed."""
    interval = f"{score.low:.3f} to {score.high:.3f}"
    return [f"{score.value:.3f}", interval]


def subset_name(subset: Sequence[str], subsets: Sequence[tuple[Sequence[str], object]]) -> str:
    """Name one of these subsets by its columns, or by "all but x" where that is shorter."""
    columns: set[str] = set()
    for names, _ in subsets:
        columns.update(names)
    absent = sorted(columns - set(subset))
    if len(columns) > ALL_SUBSETS and len(absent) < len(subset):
        return f"all but {listed(absent)}"
    return listed(subset)


def listed(columns: Sequence[str], between: str = " + ") -> str:
    """Name all columns if they are few, else the first one and the number of the others."""
    if len(columns) <= ALL_SUBSETS:
        return between.join(columns)
    return f"{columns[0]} and {len(columns) - 1} more"
