"""The classic recipe against the primer's own Keras code, in one run, turn by turn:
benchmarks/classic.py [--rounds N]

Needs an environment of its own for TensorFlow (made on the first run in benchmarks/out/keras; --keras
PYTHON uses another). Both get the same 320 rows. Keras is fed float32 arrays in memory, plait its
prepared bytes, which it converts in every step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import numpy as np

from measure import HERE, machine, median, page, table

OUT = HERE / "out"
KERAS = ["tensorflow-cpu==2.21.0", "keras==3.15.1"]
WORKERS = {
    "keras fp32": "keras:fp32",
    "keras bf16": "keras:bf16",
    "plait fp32": "plait:fp32",
    "plait bf16": "plait:bf16",
}


class Worker:
    """A process of its own that answers one JSON line for each line it is sent."""

    def __init__(self, kind: str, keras: str) -> None:
        name, _, precision = kind.partition(":")
        python = keras if name == "keras" else sys.executable
        errors = (OUT / f"{name}-{precision}.log").open("w")
        script = str(HERE / f"classic_{name}.py")
        self.process = subprocess.Popen(
            [python, script, precision, str(OUT)], stdin=-1, stdout=-1, stderr=errors, text=True
        )
        self.ask("ready")

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker stopped at '{line}'; see {OUT}/*.log")
        return json.loads(answer)


def keras_python() -> str:
    """The interpreter of the environment for Keras, made if it is not there."""
    python = OUT / "keras" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(OUT / "keras")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *KERAS], check=True)
    return str(python)


def make_data() -> None:
    """320 rows: noise pictures and random words; the label is whether a bright picture and an early
    word agree.
    """
    rng = np.random.default_rng(0)
    bright, early = rng.integers(0, 2, (2, 320))
    pictures = (rng.integers(0, 128, (320, 224, 224, 3)) + bright[:, None, None, None] * 100).astype(np.uint8)
    words = np.where(early[:, None], rng.integers(2, 5000, (320, 100)), rng.integers(5000, 10000, (320, 100)))
    np.savez(
        OUT / "data.npz",
        pictures=pictures,
        words=words.astype(np.int32),
        label=(bright ^ early).astype(np.int64),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keras")
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    make_data()
    keras = arguments.keras or keras_python()
    workers = {"keras fp32": Worker("keras:fp32", keras)}
    workers["keras fp32"].ask("save")
    workers |= {name: Worker(kind, keras) for name, kind in WORKERS.items() if name not in workers}
    same = {name: workers[name].ask("logits") for name in ("keras fp32", "plait fp32")}
    difference = float(np.abs(np.subtract(same["keras fp32"]["logits"], same["plait fp32"]["logits"])).max())
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in workers}
    for _ in range(arguments.rounds + 1):
        for line in ("train", "predict 1", "predict 32"):
            for name, worker in workers.items():
                found[name].setdefault(line, []).append(worker.ask(line))
    curves = {
        name: workers[name].ask("curve 3")["loss"] for name in ("keras fp32", "plait fp32", "plait bf16")
    }
    page("classic.md", report(found, difference, curves, same["plait fp32"]["parameters"], arguments.rounds))


def report(
    found: dict[str, Any], difference: float, curves: dict[str, list[float]], parameters: int, rounds: int
) -> str:
    def value(name: str, line: str, key: str) -> float:
        return median([r[key] for r in found[name][line][1:]])  # the first round warms up

    rows = []
    for name in found:
        train, one, many = (value(name, line, "ms") for line in ("train", "predict 1", "predict 32"))
        ratios = [
            value("keras fp32", line, "ms") / value(name, line, "ms")
            for line in ("train", "predict 1", "predict 32")
        ]
        rss, faults = value(name, "train", "rss_mb"), value(name, "train", "faults")
        rows.append(
            [
                name,
                f"{train:.0f}",
                f"{ratios[0]:.2f}x",
                f"{one:.1f}",
                f"{ratios[1]:.2f}x",
                f"{many:.0f}",
                f"{ratios[2]:.2f}x",
                f"{rss:.0f}",
                f"{rss / value('keras fp32', 'train', 'rss_mb'):.2f}x",
                f"{faults:,.0f}",
            ]
        )
    headers = [
        "",
        "training, ms a step",
        "against Keras",
        "prediction of 1, ms",
        "against Keras",
        "of 32, ms",
        "against Keras",
        "peak RSS, MB",
        "against Keras",
        "page faults a step",
    ]
    against_mixed = value("keras bf16", "train", "ms") / value("plait bf16", "train", "ms")
    goals = [
        (
            "training, against Keras fp32",
            value("keras fp32", "train", "ms") / value("plait bf16", "train", "ms"),
            1.9,
        ),
        ("training, against Keras mixed_bfloat16", against_mixed, 1.1),
        ("training, both fp32", value("keras fp32", "train", "ms") / value("plait fp32", "train", "ms"), 1.0),
        (
            "prediction of 1",
            value("keras fp32", "predict 1", "ms") / value("plait bf16", "predict 1", "ms"),
            1.9,
        ),
        (
            "prediction of 32",
            value("keras fp32", "predict 32", "ms") / value("plait bf16", "predict 32", "ms"),
            1.9,
        ),
    ]
    reached = [
        [name, f"{ratio:.2f}x", f"{goal}x", "yes" if ratio >= goal else "no"] for name, ratio, goal in goals
    ]
    losses = [[name, *(f"{loss:.5f}" for loss in curve)] for name, curve in curves.items()]
    return f"""# The classic model: plait beside Keras

Made by `benchmarks/classic.py` with {rounds} rounds, each program in turn, medians; {machine()}, 2 cores.
Batches of 32, pictures of 224 x 224, texts of 100 tokens. plait's figures are those of its own loop (`plait.training`) and predictor.

{table(headers, rows)}

{table(["", "ratio", "target", "reached"], reached)}

- The same function: {parameters:,} trained parameters, and with Keras's weights copied in, logits in fp32 differ by at most {difference:.1e}.
- Prediction of one row is bound by the three convolutions and by reading the 44 MB of the first dense layer's weights.
  Training in bf16 spends its time in the same convolutions, in the same library
  (oneDNN) that TensorFlow calls: the two differ by what lies between.
- Peak RSS includes the 320 rows: 193 MB as Keras's floats, 48 MB as plait's bytes.

Mean training loss of three epochs from the first weights, in the same order of rows. The first steps of Adam are large
and blow rounding up; Keras also adds epsilon before, PyTorch after the bias correction:

{table(["", "epoch 1", "epoch 2", "epoch 3"], losses)}"""


if __name__ == "__main__":
    main()
