"""The features of a lesson's rows with target statistics, which differ from target to target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from plait.data.features import FeatureBlock
from plait.data.target_statistics import TargetStatistics, blocks_to_describe
from plait.members.base import Examples, Lesson


@dataclass(frozen=True)
class Side:
    """The labelled rows of one side of a lesson, for one target: their blocks and labels."""

    blocks: list[FeatureBlock]
    y: Tensor


@dataclass(frozen=True)
class Described:
    """Both sides of a lesson for one target, with the statistics of the training rows."""

    statistics: TargetStatistics
    train: Side
    held_out: Side


def described(lessons: Sequence[Lesson], target: str, with_statistics: bool) -> list[Described]:
    """Return the labelled rows of each lesson, whose blocks have target statistics if a member wants them.

    Statistics are fitted on the training rows of each lesson, and added to the blocks of both sides.

    All lessons have statistics of the same blocks, so that rows are as wide in each. There are none where
    rows come in groups: a row would be described by others of its group, which new rows do not have.
    """
    chosen = None
    sides = []
    for lesson in lessons:
        train, held_out = _side(lesson, target, lesson.train), _side(lesson, target, lesson.held_out)
        labels = lesson.tasks[target].label_numbers(train.y).numpy()
        if chosen is None:
            may_describe = with_statistics and not lesson.plan.recipe.split.group
            chosen = blocks_to_describe(train.blocks, labels) if may_describe else []
        statistics, blocks = TargetStatistics.fit(train.blocks, chosen, labels, lesson.seed)
        held_out = Side(statistics(held_out.blocks), held_out.y)
        sides.append(Described(statistics, Side(blocks, train.y), held_out))
    return sides


def _side(lesson: Lesson, target: str, examples: Examples) -> Side:
    """Return the rows of one side that have a label."""
    rows, y = lesson.labelled(target, examples)
    blocks = examples.blocks()
    if len(rows) < len(examples):
        blocks = [block.take(rows) for block in blocks]
    return Side(blocks, y)
