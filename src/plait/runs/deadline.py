"""How long a command may take, and when its time is over."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from plait.errors import PlaitError, RecipeError, TrainingError

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*")

SHORTEST = 1.0  # seconds of a limit: less is most likely a mistake

# What is kept back of a limit, for scores, the report and the files of the model.
LAST_SHARE = 0.15
LAST_SECONDS = 1.0


def seconds_of(limit: str | float) -> float:
    """Return the seconds of a limit such as 90, "90s", "10m" or "2h". Raises `RecipeError`."""
    match = LIMIT.fullmatch(str(limit))
    seconds = float(match[1]) * UNITS[match[2]] if match else math.nan
    if not seconds >= SHORTEST or math.isinf(seconds):
        raise RecipeError(
            f"time limit '{limit}': expected a second or more, as a number of seconds or with a unit: 90s, "
            f"10m or 2h"
        )
    return seconds


# The least share of a processor that a busy machine is taken to give.
LEAST_SHARE = 0.05


class OutOfTime(PlaitError):
    """What has begun cannot end before its deadline."""


@dataclass(frozen=True)
class Deadline:
    """When something has to end, by the clock of `time.monotonic`. Without a limit it never has to.

    `began` is when the limit began, and `processor` the processor's time that had been taken by then.
    """

    ends: float = math.inf
    began: float = 0.0
    processor: float = 0.0

    @classmethod
    def after(cls, limit: str | float | None) -> Deadline:
        """Return when a limit that begins now will be over. Raises `RecipeError`."""
        if limit is None:
            return cls()
        now = time.monotonic()
        return cls(now + seconds_of(limit), now, time.process_time())

    @classmethod
    def of_training(cls, limit: str | float | None) -> Deadline:
        """Return when training has to end if all has to end with a limit that begins now.

        A part of the limit is kept back for what comes after training. Raises `RecipeError`.
        """
        deadline = cls.after(limit)
        if not deadline.is_set:
            return deadline
        return deadline.before(LAST_SECONDS + LAST_SHARE * deadline.left)

    @property
    def is_set(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.ends)

    @property
    def left(self) -> float:
        """The seconds that are left, none below 0; infinite without a limit."""
        return max(self.ends - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.ends

    def watched(self, progress: Callable[[int], None], doing: str) -> Callable[[int], None]:
        """Return a function like `progress` that raises `TrainingError` once no time is left."""

        def advance(steps: int) -> None:
            """Count steps as done."""
            progress(steps)
            self.check(doing)

        return advance if self.is_set else progress

    def interrupting(self, progress: Callable[[int], None]) -> Callable[[int], None]:
        """Return a function like `progress` that raises `OutOfTime` once no time is left."""

        def advance(steps: int) -> None:
            """Count steps as done."""
            progress(steps)
            if self.is_over:
                raise OutOfTime("no time is left")

        return advance if self.is_set else progress

    def check(self, doing: str) -> None:
        """Raise `TrainingError` if no time is left before anything is trained."""
        if self.is_over:
            raise TrainingError(
                f"the time limit was over while {doing}, before anything was trained. What has been read and "
                f"embedded is in the cache, so the same command gets further now; or give it more time"
            )

    def part(self, share: float) -> Deadline:
        """Return when this share of the time that is left will be over."""
        return replace(self, ends=time.monotonic() + share * self.left) if self.is_set else self

    def before(self, seconds: float) -> Deadline:
        """Return when only so many seconds will be left."""
        return replace(self, ends=self.ends - seconds)

    def fits(self, seconds: float) -> bool:
        """Return whether so many seconds of one processor end in time, at the share that there was so far.

        On a busy machine a second of a processor takes longer than a second.
        """
        if not self.is_set:
            return True
        passed = max(time.monotonic() - self.began, 1e-3)
        share = (time.process_time() - self.processor) / passed
        return seconds < self.left * min(max(share, LEAST_SHARE), 1.0)


NO_LIMIT = Deadline()
