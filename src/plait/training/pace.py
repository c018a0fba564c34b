"""How many epochs a training has time for."""

from __future__ import annotations

import time

from plait.runs.deadline import Deadline

# Steps that are not timed, since memory is still allocated in them, and steps that are.
WARM_STEPS = 3
TIMED_STEPS = 8

SLACK = 0.95  # of the time that is left: epochs differ


class Pace:
    """Times the first steps and epochs, and lowers the number of epochs to what ends before a deadline.

    The learning rate falls over all epochs, so their number has to be known early: a training that is cut off
    in its middle is worse than a shorter one. Without a deadline nothing is timed.
    """

    def __init__(self, deadline: Deadline, steps: int) -> None:
        """Begin to time a training of so many steps an epoch, or the rest of one that was resumed."""
        self.deadline = deadline
        self.steps = max(steps, 1)
        self._began = time.monotonic()
        self._epochs_done = 0
        self._steps_done = 0
        self._warm = self._began

    def step(self, epochs: int, complete: int) -> int:
        """Count a step, and return how many epochs the training has. `complete` are over."""
        if not self.deadline.is_set:
            return epochs
        self._steps_done += 1
        if self._steps_done == WARM_STEPS:
            self._warm = time.monotonic()

        # Short epochs are timed as a whole, with their scores.
        is_timed = self._steps_done == WARM_STEPS + TIMED_STEPS and self._epochs_done == 0
        if not is_timed:
            return epochs
        seconds = (time.monotonic() - self._warm) / TIMED_STEPS
        possible = (SLACK * self.deadline.left / seconds + self._steps_done) / self.steps
        return min(epochs, max(complete + int(possible), complete + 1))

    def epochs(self, epochs: int, complete: int) -> int:
        """Count an epoch, and return how many the training has now that so many are complete."""
        if not self.deadline.is_set:
            return epochs
        self._epochs_done += 1
        seconds = (time.monotonic() - self._began) / self._epochs_done
        possible = int(SLACK * self.deadline.left / max(seconds, 1e-9))
        return min(epochs, complete + possible)
