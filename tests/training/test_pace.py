"""A training under a time limit has as many epochs as end before it."""

from __future__ import annotations

import pytest

from plait.errors import RecipeError, TrainingError
from plait.runs import deadline
from plait.runs.deadline import NO_LIMIT, Deadline, seconds_of
from plait.training import pace
from plait.training.pace import TIMED_STEPS, WARM_STEPS, Pace


class Clock:
    """Stands in for the module `time`: it goes on only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = 0.0  # seconds that the processor worked for others

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now - self.busy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    monkeypatch.setattr(pace, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("limit", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("45", 45), (30, 30), (" 1.5 m ", 90)]
)
def test_limits_have_units(limit: str | float, seconds: float) -> None:
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize("limit", ["", "soon", "0", "-5s", "0.2s", "1d", "inf", "nan", "1e400", float("inf")])
def test_what_is_no_limit_is_refused(limit: str | float) -> None:
    with pytest.raises(RecipeError, match="expected a second or more"):
        seconds_of(limit)


def test_a_part_of_a_limit_is_kept_for_what_comes_after(clock: Clock) -> None:
    assert Deadline.of_training("100s").left == pytest.approx(84)
    assert Deadline.of_training(None) == NO_LIMIT
    assert Deadline.of_training("1s").is_over, "nothing is left to train in"


def test_on_a_busy_machine_less_fits_in(clock: Clock) -> None:
    whole = Deadline.after("100s")
    clock.now += 20
    assert whole.fits(79)
    assert not whole.fits(81)
    clock.busy = 15
    assert whole.fits(19), "a quarter of the 80 seconds"
    assert not whole.fits(21)
    assert whole.before(40).left == pytest.approx(40)
    assert NO_LIMIT.fits(1e9)
    assert NO_LIMIT.before(5) == NO_LIMIT


def test_parts_share_what_is_left(clock: Clock) -> None:
    whole = Deadline.after("100s")
    assert whole.part(0.25).left == pytest.approx(25)
    clock.now += 60
    assert whole.part(0.25).left == pytest.approx(10)
    assert NO_LIMIT.part(0.25) == NO_LIMIT


def test_a_deadline_stops_what_comes_before_training(clock: Clock) -> None:
    counted: list[int] = []
    advance = Deadline.after("10s").watched(counted.append, "cells were read")
    advance(3)
    clock.now += 11
    with pytest.raises(TrainingError, match="over while cells were read, before anything was trained"):
        advance(2)
    assert counted == [3, 2]


def test_long_epochs_are_timed_by_their_first_steps(clock: Clock) -> None:
    paced = Pace(Deadline.after("100s"), steps=50)
    epochs = 40
    for _ in range(WARM_STEPS + TIMED_STEPS):
        clock.now += 0.2
        epochs = paced.step(epochs, complete=0)
    assert epochs == 9, "500 steps in 100 s, but for a reserve"


def test_short_epochs_are_timed_as_a_whole(clock: Clock) -> None:
    paced = Pace(Deadline.after("100s"), steps=2)
    paced.step(paced.step(500, 0), 0)
    clock.now += 2.0
    epochs = paced.epochs(500, complete=1)
    assert epochs == 47
    clock.now += 1.0
    assert paced.epochs(epochs, complete=2) == 47, "never more than before"


def test_one_epoch_is_begun_however_short_the_time(clock: Clock) -> None:
    paced = Pace(Deadline.after("10s"), steps=1000)
    epochs = 40
    for _ in range(WARM_STEPS + TIMED_STEPS):
        clock.now += 0.5
        epochs = paced.step(epochs, complete=0)
    assert epochs == 1


def test_without_a_limit_nothing_changes(clock: Clock) -> None:
    paced = Pace(NO_LIMIT, steps=10)
    clock.now += 1e6
    assert paced.step(40, 0) == 40
    assert paced.epochs(40, 1) == 40
