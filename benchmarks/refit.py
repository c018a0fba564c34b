"""A second fit on the vectors that the first has left in the cache, against the first: benchmarks/refit.py

The emoji (picture + name, frozen encoders), each fit in a process of its own, with a cache that begins empty. Times are those of the whole
command, with its start, evaluation and report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from accuracy import EMOJI, JOBS, PRETRAINED
from measure import machine, page, table

LEFT_OUT = ("vendor", "tags", "vendor_split")
CHANGES = {
    "first fit": (),
    "the same again": (),
    "another seed": ("seed=1",),
    "another fusion": ("fusion=logit_sum",),
    "the same again, 5 epochs": ("training.epochs=5",),
}


def main() -> None:
    path = JOBS["emoji"].path
    rows, first = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in CHANGES.items():
            options = [x for o in ("split.column=split", "split.group=emoji", *EMOJI, *PRETRAINED, *overrides) for x in ("--set", o)]
            ignored = [x for c in LEFT_OUT for x in ("--column", f"{c}=ignored")]
            command = [sys.executable, "-m", "plait", "fit", str(path), "--target", "group", "--out", str(Path(folder) / name), *options, *ignored]
            begun = perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PLAIT_CACHE": str(Path(folder) / "cache")})
            seconds = perf_counter() - begun
            first = first or seconds
            rows.append([name, f"{seconds:.1f}", f"{seconds / first:.1%}"])
            print(*rows[-1], flush=True)
    page("refit.md", f"""# A second fit

Made by `benchmarks/refit.py`; {machine()}, {os.environ.get("OMP_NUM_THREADS", "all")} threads. 7,330 emoji, picture and name, frozen encoders; whole
commands, with 2 s of imports.

{table(["", "seconds", "of the first"], rows)}""")  # fmt: skip


if __name__ == "__main__":
    main()
