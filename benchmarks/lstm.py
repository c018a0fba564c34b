"""Long short-term memories in both directions, on rows of different lengths: benchmarks/lstm.py

Packed sequences beside rows that are turned round (`BiLSTM`).
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from measure import machine, page, read_arguments, table
from plait.nn.layers import BiLSTM

WARM_UP = 2  # rounds that are not counted
FORMATS = {"fp32": False, "bf16": True}


class Sizes(NamedTuple):
    rows: int
    steps: int
    width_in: int
    width: int
    layers: int
    rounds: int


FULL, QUICK = Sizes(16, 80, 512, 160, 2, 10), Sizes(4, 8, 16, 8, 2, 1)


def packed(module: nn.LSTM, x_BLD: Tensor, length_B: Tensor) -> Tensor:
    states, _ = module(pack_padded_sequence(x_BLD, length_B, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(states, batch_first=True)[0]


def step(call: object, x_BLD: Tensor, length_B: Tensor, bf16: bool) -> float:
    """Time a forward and a backward pass, in seconds."""
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = call(x_BLD, length_B)  # type: ignore[operator]
    out.float().sum().backward()
    return time.perf_counter() - begun


def compare(sizes: Sizes) -> list[list[str]]:
    """Time both in turns. Return a row of the page for each number format."""
    torch.manual_seed(0)
    theirs = nn.LSTM(sizes.width_in, sizes.width, sizes.layers, batch_first=True, bidirectional=True)
    ours = BiLSTM(sizes.width_in, sizes.width, sizes.layers)
    x_BLD = torch.randn(sizes.rows, sizes.steps, sizes.width_in, requires_grad=True)
    length_B = torch.randint(sizes.steps * 3 // 4, sizes.steps + 1, (sizes.rows,))
    length_B[0] = sizes.steps
    lines = []
    for name, bf16 in FORMATS.items():
        durations = []
        for _ in range(WARM_UP + sizes.rounds):
            their_seconds = step(lambda x, n: packed(theirs, x, n), x_BLD, length_B, bf16)
            durations.append([their_seconds, step(lambda x, n: ours(x, n)[0], x_BLD, length_B, bf16)])
        taken = np.array(durations[WARM_UP:])
        milliseconds = 1e3 * np.median(taken, 0)
        ratio = np.median(taken[:, 0] / taken[:, 1])
        lines.append([name, *(f"{ms:.0f}" for ms in milliseconds), f"{ratio:.1f}"])
    return lines


def main() -> None:
    arguments = read_arguments(argparse.ArgumentParser(description=__doc__))
    sizes = QUICK if arguments.quick else FULL
    lines = compare(sizes)
    page(
        "lstm.md",
        f"""# Long short-term memories in both directions

Made by `benchmarks/lstm.py`; {machine()}, {torch.get_num_threads()} threads. Rows of different lengths:
packed sequences beside rows that are turned round (`BiLSTM`). {sizes.rows} rows of
{sizes.steps * 3 // 4} to {sizes.steps} steps of {sizes.width_in} numbers, {sizes.layers} layers of
{sizes.width} each way, forward and backward; medians of {sizes.rounds} rounds that alternate.

{table(["", "packed, ms", "BiLSTM, ms", "ratio"], lines)}""",
        arguments,
    )


if __name__ == "__main__":
    main()
