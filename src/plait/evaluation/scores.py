"""Score a model: metrics with intervals, beside the baseline, for every subset of the inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from plait.console import Screen
from plait.evaluation import alignment
from plait.evaluation.alignment import Alignments
from plait.evaluation.bootstrap import Score, bootstrap
from plait.model.fused import blocks_of
from plait.prediction.predictor import Answering, Rows
from plait.runs.folder import Record
from plait.tasks.base import Task
from plait.tasks.base_comparison import Comparison

SUBSET_RESAMPLES = 200
ALL_SUBSETS = 4  # up to so many inputs every subset is scored; beyond, each alone, and all but each

# inputs beyond which all numbers, categories and dates of a row count as one: the time grows with their
# number squared
MANY = 50


@dataclass
class TargetEvaluation:
    """The scores of one target: its metrics, those of the baseline, and its main metric by subset of inputs.

    `score` names the main metric.
    """

    rows: int
    score: str
    metrics: dict[str, Score]
    baseline: dict[str, float]
    subsets: list[tuple[tuple[str, ...], Score]] = field(default_factory=list)


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

    `subsets`: score subsets of the inputs too. `in_table`: the columns that the table has; all if None.
    `plain`: the columns of numbers, categories and dates, which count as one input in a model of more than
    `MANY` columns.
    """

    subsets: bool = True
    in_table: Collection[str] | None = None
    plain: Collection[str] = ()

    def present(self, columns: Sequence[str]) -> list[str]:
        """Return those of some columns that the table has."""
        return [column for column in columns if self.in_table is None or column in self.in_table]


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
    outputs = answering.outputs(data, [inputs.present(subset) for subset in subsets], progress)
    resamples = int(np.clip(2e7 / max(len(data), 1), 100, 1000))
    batch = data.prepared.batch
    targets, alignments = {}, {}
    for target, task in answering.tasks.items():
        if target not in batch.targets:
            continue
        truth = batch.targets[target][data.rows].numpy()
        if isinstance(task, Comparison):
            alignments[target] = alignment.evaluate(task, outputs[0][target].numpy(), truth)
            continue
        labelled = batch.labelled[target][data.rows].numpy()
        if not labelled.any():
            continue
        by_subset = {}
        for subset, subset_outputs in zip(subsets, outputs, strict=True):
            by_subset[subset] = subset_outputs[target].numpy()[labelled]
        columns = tuple(answering.columns)
        prior = np.asarray(priors[target], dtype=np.float32)
        targets[target] = _evaluate_target(task, columns, by_subset, truth[labelled], prior, resamples)
    return Evaluation(name, targets, resamples, alignments)


def _evaluate_target(
    task: Task,
    columns: tuple[str, ...],
    outputs: dict[tuple[str, ...], np.ndarray],
    truth: np.ndarray,
    prior: np.ndarray,
    resamples: int,
) -> TargetEvaluation:
    """Score one target by the outputs from each subset of the model's columns."""
    baseline = np.broadcast_to(prior, (len(truth), *prior.shape)).copy()
    main_metric = {task.score: task.metrics[task.score]}
    scores = []
    for subset, output in outputs.items():
        if set(subset) < set(task.read(columns)):
            samples = min(resamples, SUBSET_RESAMPLES)
            score = bootstrap(task.score_rows(output, truth), main_metric, samples)[task.score]
            scores.append((subset, score))
    return TargetEvaluation(
        rows=len(truth),
        score=task.score,
        metrics=bootstrap(task.score_rows(outputs[columns], truth), task.metrics, resamples),
        baseline=task.measure(baseline, truth),
        subsets=scores,
    )


def imbalance(target: str, evaluation: Record | None, higher: bool) -> str | None:
    """Return a warning if one input alone scores better than all inputs together.

    `evaluation` is a `TargetEvaluation` as a dict; `higher` says whether a higher score is better.
    """
    if not evaluation:
        return None
    unimodal = {}
    for subset, score in evaluation.get("subsets", ()):
        if len(subset) == 1:
            unimodal[subset[0]] = score["value"]
    if not unimodal:
        return None

    best = (max if higher else min)(unimodal, key=lambda column: unimodal[column])
    value = unimodal[best]
    fused = evaluation["metrics"][evaluation["score"]]["value"]
    is_better = value > fused if higher else value < fused
    if not is_better:
        return None
    return (
        f"{target}: '{best}' alone has a better {evaluation['score']} on validation rows ({value:.3f}) than "
        f"all inputs together ({fused:.3f}): one input is learned at the cost of others"
    )


def _scored_subsets(answering: Answering, inputs: Inputs) -> list[tuple[str, ...]]:
    """Return all columns, and after them the smaller subsets that a target is scored with."""
    columns = answering.columns
    subsets = [tuple(columns)]
    if not inputs.subsets:
        return subsets
    read_columns = [set(task.read(columns)) for task in answering.tasks.values() if task.has_target]
    blocks = blocks_of(columns, inputs.plain if len(columns) > MANY else ())
    for subset in _subsets(list(blocks.values())):
        if any(set(subset) < read for read in read_columns):
            subsets.append(subset)
    return subsets


def _subsets(blocks: list[list[str]]) -> list[tuple[str, ...]]:
    """Return the columns of every proper subset of the blocks, the empty one left out.

    Of more than `ALL_SUBSETS` blocks, return each block alone, and all blocks but each.
    """
    sizes = range(1, len(blocks)) if len(blocks) <= ALL_SUBSETS else (1, len(blocks) - 1)
    subsets = []
    for size in sizes:
        for combination in itertools.combinations(blocks, size):
            subsets.append(tuple(itertools.chain(*combination)))
    return subsets


def show(evaluation: Evaluation, screen: Screen) -> None:
    """Print the scores of each target, of subsets of the inputs, and of each alignment."""
    for target, scores in evaluation.targets.items():
        title = (
            f"\n{target}: {scores.rows:,} rows of {evaluation.name}, "
            f"95 % intervals by {evaluation.resamples} bootstrap samples"
        )
        rows = []
        for name, score in scores.metrics.items():
            rows.append([name, *_shown(score), f"{scores.baseline[name]:.3f}"])
        screen.table(title, ["metric", "value ", "interval", "baseline "], rows)
        if scores.subsets:
            _show_subsets(target, scores, screen)

    for name, aligned in evaluation.alignments.items():
        alignment.show(
            aligned,
            f"\n{name}: what finds what among rows of {evaluation.name}, 95 % intervals by 1,000 bootstrap "
            f"samples",
            screen,
        )


def _show_subsets(target: str, scores: TargetEvaluation, screen: Screen) -> None:
    """Print the main metric for each subset of the inputs, and its distance from that of all inputs."""
    fused = scores.metrics[scores.score].value
    rows = []
    for subset, score in scores.subsets:
        difference = f"{score.value - fused:+.3f}"
        rows.append([subset_name(subset, scores.subsets), *_shown(score), difference])
    title = f"\n{target}: {scores.score} of the same model when it is given only"
    screen.table(title, ["inputs", "value ", "interval", "against all "], rows)


def _shown(score: Score) -> list[str]:
    """Return a value and its interval as they are printed."""
    return [f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"]


def subset_name(subset: Sequence[str], subsets: Sequence[tuple[Sequence[str], object]]) -> str:
    """Return the columns of one of these subsets, or "all but x" where that is shorter."""
    columns: set[str] = set().union(*[names for names, _ in subsets])
    absent = sorted(columns - set(subset))
    if len(columns) > ALL_SUBSETS and len(absent) < len(subset):
        return f"all but {listed(absent)}"
    return listed(subset)


def listed(columns: Sequence[str], between: str = " + ") -> str:
    """Return all of a few columns, or the first and the number of the others."""
    if len(columns) <= ALL_SUBSETS:
        return between.join(columns)
    return f"{columns[0]} and {len(columns) - 1} more"
