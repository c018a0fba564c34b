"""Long short-term memories in both directions on rows of different lengths: packed sequences, and rows
that are turned round (`BiLSTM`).
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from measure import machine, page, table
from plait.nn.layers import BiLSTM

ROWS, STEPS, WIDTH_IN, WIDTH, LAYERS, ROUNDS = 16, 80, 512, 160, 2, 12


def packed(module: nn.LSTM, x_BLD: Tensor, length_B: Tensor) -> Tensor:
    states, _ = module(pack_padded_sequence(x_BLD, length_B, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(states, batch_first=True)[0]


def step(call: object, x_BLD: Tensor, length_B: Tensor, bf16: bool) -> float:
    """Seconds of a forward and a backward pass."""
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = call(x_BLD, length_B)  # type: ignore[operator]
    out.float().sum().backward()
    return time.perf_counter() - begun


def main() -> None:
    torch.manual_seed(0)
    theirs, ours = (
        nn.LSTM(WIDTH_IN, WIDTH, LAYERS, batch_first=True, bidirectional=True),
        BiLSTM(WIDTH_IN, WIDTH, LAYERS),
    )
    x_BLD, length_B = (
        torch.randn(ROWS, STEPS, WIDTH_IN, requires_grad=True),
        torch.randint(STEPS * 3 // 4, STEPS + 1, (ROWS,)),
    )
    length_B[0] = STEPS
    rows = []
    for bf16 in (False, True):
        taken = np.array(
            [
                [
                    step(lambda x, n: packed(theirs, x, n), x_BLD, length_B, bf16),
                    step(lambda x, n: ours(x, n)[0], x_BLD, length_B, bf16),
                ]
                for _ in range(ROUNDS)
            ]
        )[2:]
        one, other = np.median(taken, 0)
        rows.append(
            [
                "bf16" if bf16 else "fp32",
                f"{1e3 * one:.0f}",
                f"{1e3 * other:.0f}",
                f"{np.median(taken[:, 0] / taken[:, 1]):.1f}",
            ]
        )
    about = f"{ROWS} rows of {STEPS * 3 // 4} to {STEPS} steps of {WIDTH_IN} numbers, {LAYERS} layers of {WIDTH} each way, forward and backward; "
    about += f"median of {ROUNDS - 2} rounds that alternate; {torch.get_num_threads()} threads."
    page(
        "lstm.md",
        "\n\n".join(
            ["# " + (__doc__ or ""), machine(), about, table(["", "packed, ms", "BiLSTM, ms", "ratio"], rows)]
        ),
    )


if __name__ == "__main__":
    main()
