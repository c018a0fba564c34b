"""Why a request is refused, as the caller reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from plait.serving.limits import Limits
from plait.table.json import JSON
from plait.table.problems import Problem


@dataclass
class Refusal(Exception):
    """A request that is not answered. `status` is that of HTTP, and `cells` are those that are wrong."""

    status: int
    message: str
    cells: list[JSON] = field(default_factory=list)
    headers: Mapping[str, str] | None = None

    def body(self) -> JSON:
        """Return the answer as JSON."""
        answer: JSON = {"error": self.message}
        if self.cells:
            answer["cells"] = self.cells
        return answer


def wrong_cell(row: int, column: str, problem: str) -> Refusal:
    """Refuse a request for one cell."""
    cell: JSON = {"row": row, "column": column, "problem": problem}
    return Refusal(422, f"column '{column}': {problem}", [cell])


def unreadable(problems: Iterable[Problem]) -> Refusal:
    """Refuse a request for all cells that cannot be read, of which there is at least one."""
    cells: list[JSON] = []
    for problem in problems:
        cells.append({"row": problem.row, "column": problem.column, "problem": problem.reason})
    first = cells[0]
    return Refusal(422, f"column '{first['column']}': {first['problem']}", cells)


def too_large(limits: Limits) -> Refusal:
    """Refuse a request for its size, and what is left of it."""
    return Refusal(413, f"expected at most {limits.body:,} bytes", headers={"Connection": "close"})


def too_slow(limits: Limits) -> Refusal:
    """Refuse a request that takes too long by itself."""
    remedy = "send fewer rows or smaller files, or a stream to /predict/batch"
    return Refusal(422, f"the answer takes longer than {limits.latency:g} s; {remedy}")


def too_busy(seconds: float) -> Refusal:
    """Refuse a request that could not be answered in time. `seconds` is when to try again."""
    after = max(1, round(seconds))
    message = f"the service has more to do than it can; try again in {after} s"
    return Refusal(429, message, headers={"Retry-After": str(after)})
