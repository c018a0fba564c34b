"""How good a model is: metrics with intervals, beside the guess that sees nothing, for every subset of
the inputs.
"""

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
from plait.tasks.base_comparison import Comparison

SUBSET_RESAMPLES = 200


ALL_SUBSETS = 4  # up to so many inputs every subset is scored; beyond, each alone, and all but each


# inputs beyond which all numbers, categories and dates of a row count as one: the time grows with their
# number squared
MANY = 50


@dataclass
class TargetEvaluation:
    """One target: its metrics; the same for the best guess without inputs; and its main metric for
    subsets of inputs.
    """

    rows: int
    score: str
    metrics: dict[str, Score]
    baseline: dict[str, float]
    subsets: list[tuple[tuple[str, ...], Score]] = field(default_factory=list)


@dataclass
class Evaluation:
    """`resamples` bootstrap samples with seed 0 (for subsets of inputs at most 200); `name` says of
    what rows.
    """

    name: str
    targets: dict[str, TargetEvaluation]
    resamples: int
    alignments: dict[str, Alignments] = field(default_factory=dict)

    def to_dict(self) -> Record:
        """As JSON."""
        return asdict(self)

    def show(self) -> Evaluation:
        """Prints itself, and returns itself."""
        show(self, Screen(out=True))
        return self


def evaluate(
    answering: Answering,
    data: Rows,
    priors: Mapping[str, ArrayLike],
    name: str,
    subsets: bool = True,
    progress: Callable[[int], None] = lambda n: None,
    given: Sequence[str] | None = None,
    plain: Collection[str] = (),
) -> Evaluation:
    """Scores a model on the labelled rows of `data`. `priors` holds, for each target, the output of the
    guess that sees no input. All subsets together cost little more than one: only fusion and heads run
    again. `given` are the columns that the table has, if not all; `plain` those of numbers, categories
    and dates, which are given or not together where there are more than 50.
    """
    columns = answering.columns
    reads = (
        [set(task.read(columns)) for task in answering.tasks.values() if task.has_target] if subsets else []
    )
    units = blocks_of(columns, plain if len(columns) > MANY else ()).values()
    wanted = [tuple(columns), *(s for s in _subsets(list(units)) if any(set(s) < read for read in reads))]
    outputs = answering.outputs(
        data, [[c for c in s if given is None or c in given] for s in wanted], progress
    )
    resamples = int(np.clip(2e7 / max(len(data), 1), 100, 1000))
    targets, alignments = {}, {}
    for target, task in answering.tasks.items():
        if target not in data.prepared.batch.targets:
            continue
        if isinstance(task, Comparison):
            alignments[target] = alignment.evaluate(
                task, outputs[0][target].numpy(), data.prepared.batch.targets[target][data.rows].numpy()
            )
            continue
        keep = data.prepared.batch.labelled[target][data.rows].numpy()
        truth = data.prepared.batch.targets[target][data.rows].numpy()[keep]
        if not len(truth):
            continue
        guess = np.asarray(priors[target], dtype=np.float32)
        prior = np.broadcast_to(guess, (len(truth), *guess.shape)).copy()
        main_metric = {task.score: task.metrics[task.score]}
        of_subsets = []
        for subset, of_subset in zip(wanted[1:], outputs[1:], strict=True):
            if set(subset) < set(task.read(columns)):
                rows = task.score_rows(of_subset[target].numpy()[keep], truth)
                score = bootstrap(rows, main_metric, min(resamples, SUBSET_RESAMPLES))[task.score]
                of_subsets.append((subset, score))

        targets[target] = TargetEvaluation(
            rows=len(truth),
            score=task.score,
            metrics=bootstrap(
                task.score_rows(outputs[0][target].numpy()[keep], truth), task.metrics, resamples
            ),
            baseline=task.measure(prior, truth),
            subsets=of_subsets,
        )
    return Evaluation(name, targets, resamples, alignments)


def imbalance(target: str, found: Record | None, higher: bool) -> str | None:
    """What is to be said when an input by itself does better than all of them fused, by a
    `TargetEvaluation` as a dict.
    """
    alone = [
        (subset[0], score["value"]) for subset, score in (found or {}).get("subsets", ()) if len(subset) == 1
    ]
    if not found or not alone:
        return None
    best, value = (max if higher else min)(alone, key=lambda one: one[1])
    whole = found["metrics"][found["score"]]["value"]
    if not (value > whole if higher else value < whole):
        return None
    return (
        f"{target}: '{best}' alone has a better {found['score']} on validation rows ({value:.3f}) than all "
        f"inputs together ({whole:.3f}): one input "
        f"is learned at the cost of others"
    )


def _subsets(units: list[list[str]]) -> list[tuple[str, ...]]:
    """The columns of every smaller subset with something in it, or of each alone and all but each when
    there would be too many.
    """
    sizes = range(1, len(units)) if len(units) <= ALL_SUBSETS else (1, len(units) - 1)
    return [
        tuple(itertools.chain(*subset)) for size in sizes for subset in itertools.combinations(units, size)
    ]


def show(evaluation: Evaluation, screen: Screen) -> None:
    for target, found in evaluation.targets.items():
        title = (
            f"\n{target}: {found.rows:,} rows of {evaluation.name}, "
            f"95 % intervals by {evaluation.resamples} bootstrap samples"
        )
        rows = [
            [name, f"{s.value:.3f}", f"{s.low:.3f} to {s.high:.3f}", f"{found.baseline[name]:.3f}"]
            for name, s in found.metrics.items()
        ]
        screen.table(title, ["metric", "value ", "interval", "guess without inputs "], rows)
        if found.subsets:
            whole = found.metrics[found.score].value
            rows = [
                [
                    subset_name(s, found.subsets),
                    f"{score.value:.3f}",
                    f"{score.low:.3f} to {score.high:.3f}",
                    f"{score.value - whole:+.3f}",
                ]
                for s, score in found.subsets
            ]
            screen.table(
                f"\n{target}: {found.score} of the same model when it is given only",
                ["inputs", "value ", "interval", "against all "],
                rows,
            )

    for name, aligned in evaluation.alignments.items():
        alignment.show(
            aligned,
            f"\n{name}: what finds what among rows of {evaluation.name}, 95 % intervals by 1,000 bootstrap "
            f"samples",
            screen,
        )


def subset_name(subset: Sequence[str], subsets: Sequence[tuple[Sequence[str], object]]) -> str:
    """The columns of one of these subsets, or "all but x" where that is shorter."""
    columns = {c for s, _ in subsets for c in s}
    rest = sorted(columns - set(subset))
    if len(columns) > ALL_SUBSETS and len(rest) < len(subset):
        return f"all but {listed(rest)}"
    return listed(subset)


def listed(columns: Sequence[str], between: str = " + ") -> str:
    """All of a few columns, or the first and how many more."""
    return (
        between.join(columns) if len(columns) <= ALL_SUBSETS else f"{columns[0]} and {len(columns) - 1} more"
    )
