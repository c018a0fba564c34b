"""Share what every benchmark needs: its command line, timing, intervals, and the page that it writes."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
from scipy.stats import t as student

HERE = Path(__file__).parent
CODE = ("../src", "*.py")  # seen from here: what a page's figures depend on


def read_arguments(
    parser: argparse.ArgumentParser, scores: str = "", has_page: bool = True
) -> argparse.Namespace:
    """Read a script's command line, with the switches that all scripts share, and prepare a quick run.

    `scores` names the file of a script that can go on later: it adds the switch `--scores`. A quick run
    has a cache folder of its own, fetches nothing, keeps no scores, and writes a page only to `--out`.
    """
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round: see that the script runs"
    )
    if has_page:
        parser.add_argument("--out", type=Path, help="the folder for the page; benchmarks/ if left out")
    if scores:
        parser.add_argument(
            "--scores", type=Path, default=Path(scores), help="a file of scores, for a run that goes on later"
        )
    arguments = parser.parse_args()
    if not arguments.quick:
        return arguments

    if scores:
        arguments.scores = None
    folder = tempfile.mkdtemp(prefix="plait-quick-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.pop("PLAIT_CACHE", None)
    os.environ.update(XDG_CACHE_HOME=folder, HF_HUB_OFFLINE="1")
    return arguments


def cache_folder() -> Path:
    """Return plait's folder in the user's cache, or in that of a quick run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"


def sample_table(sample: ModuleType) -> Path:
    """Fetch a sample of `plait.samples`, once, and return the path of its table."""
    return sample.fetch(cache_folder() / "samples" / sample.__name__.rsplit(".", 1)[-1])


def seconds(call: Callable[[], object], times: int = 5) -> list[float]:
    """Time some calls, one by one."""
    durations = []
    for _ in range(times):
        begun = perf_counter()
        call()
        durations.append(perf_counter() - begun)
    return durations


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def interval(values: Sequence[float]) -> str:
    """Format the mean, and its 95 % interval over seeds by Student's t."""
    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} +-{half:.3f}"


def remembered(file: Path | None, work: Iterable[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
    """Do each piece of named work, unless the file already has its scores, a line of JSON for each.

    New scores are added to the file, if there is one, so that a run can go on later.
    """
    scores: dict[str, Any] = {}
    for line in file.read_text().splitlines() if file and file.is_file() else ():
        scores |= json.loads(line)
    for name, call in work:
        if name in scores:
            continue
        scores[name] = call()
        if file:
            with file.open("a") as opened:
                opened.write(json.dumps({name: scores[name]}) + "\n")
        print(name, "done", flush=True)
    return scores


def machine() -> str:
    """Describe the machine in a few words: processor, Python, system."""
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
    """Format a table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def commit() -> str:
    """Say which commit a page is made at, and whether plait or the scripts have changed since."""
    short_hash = commit_hash()
    return f"Made at commit {short_hash}." if short_hash else "Made outside a git checkout."


def commit_hash() -> str:
    """Return the commit, with a mark if plait or the scripts have changed since; "" outside a checkout."""
    try:
        short_hash = _git("rev-parse", "--short", "HEAD")
        changes = " + changes" if _git("status", "--porcelain", "--", *CODE) else ""
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{short_hash}{changes}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HERE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def page(name: str, text: str, arguments: argparse.Namespace) -> None:
    """Print a page with the commit that made it, and write it; a quick run only writes it to `--out`."""
    text = f"{text}\n\n{commit()}\n"
    print(text)
    folder = arguments.out or (None if arguments.quick else HERE)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
