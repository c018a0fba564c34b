"""Stop a training in its middle."""

from __future__ import annotations

from typing import Any

import pytest

from plait.training import loop


def stop_at_step(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Lets trainings stop at this step, as Ctrl-C would; returns a list that grows with each step."""
    step, count = loop._step, []

    def stopping(run: loop.Training, *arguments: Any) -> Any:
        count.append(1)
        run.stop = len(count) == number
        return step(run, *arguments)

    monkeypatch.setattr(loop, "_step", stopping)
    return count
