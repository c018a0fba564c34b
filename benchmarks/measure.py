"""What the benchmarks share: sizes, medians, pages."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import t as student

HERE = Path(__file__).parent


def seconds(call: Callable[[], object], times: int = 5) -> list[float]:
    """How long each of some calls took."""
    found = []
    for _ in range(times):
        begun = perf_counter()
        call()
        found.append(perf_counter() - begun)
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def interval(values: Sequence[float]) -> str:
    """The mean, and its 95 % interval over seeds by Student's t."""
    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} +-{half:.3f}"


def remembered(file: Path, work: Iterable[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
    """What each piece of work gives, by its name: looked up in a file of lines of JSON, or done and
    left there, so that a run can go on.
    """
    kept = {
        k: v
        for line in (file.read_text().splitlines() if file.is_file() else ())
        for k, v in json.loads(line).items()
    }
    for name, call in work:
        if name not in kept:
            kept[name] = call()
            with file.open("a") as opened:
                opened.write(json.dumps({name: kept[name]}) + "\n")
            print(name, "done", flush=True)
    return kept


def machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return f"{model or platform.processor()}, Python {platform.python_version()}, {platform.system()}"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def page(name: str, text: str) -> None:
    """Prints a page and writes it beside the scripts."""
    print(text)
    (HERE / name).write_text(text + "\n", encoding="utf-8")
