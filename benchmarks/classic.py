"""The classic recipe beside the primer's Keras code, in one run, turn by turn: benchmarks/classic.py

Needs an environment of its own for TensorFlow (made on the first run in benchmarks/out/keras; --keras
PYTHON uses another). Both get the same 320 rows. Keras is fed float32 arrays in memory, plait its
prepared bytes, which it converts in every step. A quick run without --keras has weights of Keras's shapes,
drawn from a seed, and no times of Keras.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from measure import HERE, cache_folder, machine, median, page, read_arguments, table

OUT = HERE / "out"
KERAS = ["tensorflow-cpu==2.21.0", "keras==3.15.1"]
BASE, FP32, BF16 = "keras fp32", "plait fp32", "plait bf16"
KERAS_BF16 = "keras bf16"


class Sizes(NamedTuple):
    rows: int
    batch: int
    side: int  # of an image, in pixels


FULL, QUICK = Sizes(320, 32, 224), Sizes(16, 4, 24)


class Program(Protocol):
    def ask(self, line: str) -> Any: ...

    def stop(self) -> None: ...


class Worker:
    """A process of its own that answers each line with a line of JSON."""

    def __init__(self, name: str, keras: str, folder: Path) -> None:
        library, precision = name.split()
        python = keras if library == "keras" else sys.executable
        self.log = folder / f"{library}-{precision}.log"
        command = [python, str(HERE / f"classic_{library}.py"), precision, str(folder)]
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=errors, text=True)
        self.ask("ready")

    def ask(self, line: str) -> Any:
        """Send a line and wait for its answer. End the script with the log where the worker stopped."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.log} ends, at '{line}', with:\n{self.log.read_text()[-2000:]}")
        return json.loads(answer)

    def stop(self) -> None:
        """Let the process end."""
        self.process.communicate()


class RecordedKeras:
    """Stands in for Keras, where it is absent, with the shapes that its weights have."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes, self.folder = sizes, folder

    def ask(self, line: str) -> Any:
        if line == "save":
            rng = np.random.default_rng(0)
            weights = {}
            for name, shape in shapes(self.sizes.side).items():
                weights[name] = (0.05 * rng.normal(size=shape)).astype(np.float32)
            np.savez(self.folder / "weights.npz", **weights)
        nothing = math.nan
        return {"logits": nothing, "loss": [nothing] * 3, "ms": nothing, "rss_mb": nothing, "faults": nothing}

    def stop(self) -> None: ...


def shapes(side: int) -> dict[str, tuple[int, ...]]:
    """List the shapes of Keras's weights for images of this side."""
    recorded: dict[str, tuple[int, ...]] = {"Embedding0.0": (10_000, 64)}
    channels = 3
    for number, filters in enumerate((64, 128, 256)):
        recorded |= {f"Conv2D{number}.0": (3, 3, channels, filters), f"Conv2D{number}.1": (filters,)}
        channels, side = filters, (side - 2) // 2  # a convolution without padding, and pooling
    recorded |= {"LSTM0.0": (64, 256), "LSTM0.1": (64, 256), "LSTM0.2": (256,)}
    widths = (side * side * channels + 64, 128, 64, 1)
    for number in range(3):
        recorded |= {
            f"Dense{number}.0": widths[number : number + 2],
            f"Dense{number}.1": (widths[number + 1],),
        }
    return recorded


def keras_python() -> str:
    """Return the interpreter of Keras's environment, which is made if it is absent."""
    python = OUT / "keras" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(OUT / "keras")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *KERAS], check=True)
    return str(python)


def make_data(sizes: Sizes, folder: Path) -> None:
    """Make images of noise and random words.

    The label tells whether a bright image and an early word agree.
    """
    rng = np.random.default_rng(0)
    rows, side = sizes.rows, sizes.side
    bright, early = rng.integers(0, 2, (2, rows))
    images = (rng.integers(0, 128, (rows, side, side, 3)) + bright[:, None, None, None] * 100).astype(
        np.uint8
    )
    early_words, late_words = rng.integers(2, 5000, (rows, 100)), rng.integers(5000, 10000, (rows, 100))
    words = np.where(early[:, None], early_words, late_words).astype(np.int32)
    label = (bright ^ early).astype(np.int64)
    np.savez(folder / "data.npz", images=images, words=words, label=label, batch=sizes.batch)


@contextmanager
def running(sizes: Sizes, keras: str, folder: Path) -> Iterator[dict[str, Program]]:
    """Start all programs, and stop them. plait's begin from the weights that Keras drew."""
    make_data(sizes, folder)
    programs: dict[str, Program] = {
        BASE: Worker(BASE, keras, folder) if keras else RecordedKeras(sizes, folder)
    }
    programs[BASE].ask("save")
    if keras:
        programs[KERAS_BF16] = Worker(KERAS_BF16, keras, folder)
    for name in (FP32, BF16):
        programs[name] = Worker(name, keras, folder)
    yield programs
    for program in programs.values():
        program.stop()


class Measured(NamedTuple):
    """What the programs answered: to each question in each round, and once."""

    rounds: dict[str, dict[str, list[dict[str, float]]]]
    curves: dict[str, list[float]]
    difference: float  # of logits
    parameters: int

    def median(self, name: str, question: str, key: str = "ms") -> float:
        """Return the median over rounds, without the first one, which warms up."""
        return median([answer[key] for answer in self.rounds[name][question][1:]])

    def ratio(self, name: str, question: str, key: str = "ms", base: str = BASE) -> float:
        """Return Keras's median over the program's."""
        if base not in self.rounds:
            return math.nan
        return self.median(base, question, key) / self.median(name, question, key)


def measure(programs: dict[str, Program], sizes: Sizes, rounds: int) -> Measured:
    """Ask all programs in turns."""
    theirs, ours = programs[BASE].ask("logits"), programs[FP32].ask("logits")
    difference = float(np.abs(np.subtract(theirs["logits"], ours["logits"])).max())
    answers: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in programs}
    for _ in range(rounds + 1):
        for question in ("train", "predict 1", f"predict {sizes.batch}"):
            for name, program in programs.items():
                answers[name].setdefault(question, []).append(program.ask(question))
    curves = {name: programs[name].ask("curve 3")["loss"] for name in (BASE, FP32, BF16)}
    return Measured(answers, curves, difference, ours["parameters"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keras", help="the interpreter of an environment that has Keras")
    arguments = read_arguments(parser)
    sizes, rounds, folder, keras = FULL, arguments.rounds, OUT, arguments.keras
    if arguments.quick:
        sizes, rounds, folder = QUICK, 1, cache_folder()
    else:
        keras = keras or keras_python()
    folder.mkdir(parents=True, exist_ok=True)
    with running(sizes, keras or "", folder) as programs:
        measured = measure(programs, sizes, rounds)
    page("classic.md", report(measured, sizes, rounds), arguments)


def report(measured: Measured, sizes: Sizes, rounds: int) -> str:
    many = f"predict {sizes.batch}"
    lines = []
    for name in measured.rounds:
        line = [name]
        for question, digits in (("train", 0), ("predict 1", 1), (many, 0)):
            line.append(f"{measured.median(name, question):.{digits}f}")
            line.append(f"{measured.ratio(name, question):.2f}x")
        memory = measured.median(name, "train", "rss_mb")
        line += [f"{memory:.0f}", f"{memory / measured.median(BASE, 'train', 'rss_mb'):.2f}x"]
        lines.append([*line, f"{measured.median(name, 'train', 'faults'):,.0f}"])
    headers = ["", "training, ms a step", "against Keras", "prediction of 1, ms", "against Keras"]
    headers += [
        f"of {sizes.batch}, ms",
        "against Keras",
        "peak RSS, MB",
        "against Keras",
        "page faults a step",
    ]

    targets = [
        ("training, against Keras fp32", measured.ratio(BF16, "train"), 1.9),
        ("training, against Keras mixed_bfloat16", measured.ratio(BF16, "train", base=KERAS_BF16), 1.1),
        ("training, both fp32", measured.ratio(FP32, "train"), 1.0),
        ("prediction of 1", measured.ratio(BF16, "predict 1"), 1.9),
        (f"prediction of {sizes.batch}", measured.ratio(BF16, many), 1.9),
    ]
    reached = []
    for name, ratio, target in targets:
        reached.append([name, f"{ratio:.2f}x", f"{target}x", "yes" if ratio >= target else "no"])
    losses = [[name, *(f"{loss:.5f}" for loss in curve)] for name, curve in measured.curves.items()]
    return f"""# The classic model: plait beside Keras

Made by `benchmarks/classic.py` with {rounds} rounds, each program in turn, medians; {machine()}, 2 cores.
Batches of {sizes.batch}, images of {sizes.side} x {sizes.side}, texts of 100 tokens. plait's figures are
those of its training loop (`plait.training`) and predictor.

{table(headers, lines)}

{table(["", "ratio", "target", "reached"], reached)}

- The same function: {measured.parameters:,} trained parameters, and with Keras's weights copied in, logits
  in fp32 differ by at most {measured.difference:.1e}.
- Prediction of one row is bound by the three convolutions and by reading the 44 MB of the first dense
  layer's weights. Training in bf16 spends its time in the same convolutions, in the same library (oneDNN)
  that TensorFlow calls: the two differ by what lies between.
- Peak RSS includes the 320 rows: 193 MB as Keras's floats, 48 MB as plait's bytes.

Mean training loss of three epochs from the first weights, in the same order of rows. The first steps of
Adam are large and enlarge rounding; Keras also adds epsilon before, PyTorch after the bias correction:

{table(["", "epoch 1", "epoch 2", "epoch 3"], losses)}"""


if __name__ == "__main__":
    main()
