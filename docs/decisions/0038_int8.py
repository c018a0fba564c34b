"""MiniLM in bf16 by torch, and in int8 by ONNX Runtime: the figures of decision 0038.

Run it with `python docs/decisions/0038_int8.py`, on one thread. Times are processor seconds, the least of
several interleaved rounds. Needs transformers, the weights of `minilm`, onnx and onnxruntime.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AutoModel

from plait.pretrained import files

SHAPES = ((64, 16), (32, 64), (8, 256))  # texts, and tokens of each
ROUNDS = 7


class States(nn.Module):
    """The last states of a network, without names around them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.body(input_ids=ids, attention_mask=mask).last_hidden_state


def exported(body: nn.Module, folder: Path) -> dict[str, onnxruntime.InferenceSession]:
    """Write the network for ONNX Runtime in float32 and in int8. Return a session of each."""
    whole, small = folder / "whole.onnx", folder / "int8.onnx"
    ids = torch.randint(1000, 20000, (4, 32))
    axes = {name: {0: "texts", 1: "tokens"} for name in ("ids", "mask", "states")}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            States(body),
            (ids, torch.ones_like(ids)),
            whole,
            input_names=["ids", "mask"],
            output_names=["states"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {}
    for name, path in {"fp32, ONNX Runtime": whole, "int8, ONNX Runtime": small}.items():
        sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return sessions


@torch.inference_mode()
def by_torch(body: nn.Module, precision: torch.dtype, ids: Tensor) -> Tensor:
    """Return the mean state of each text."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        states = body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return states.float().mean(1)


def by_session(session: onnxruntime.InferenceSession, ids: Tensor) -> Tensor:
    """Return the mean state of each text."""
    (states,) = session.run(None, {"ids": ids.numpy(), "mask": torch.ones_like(ids).numpy()})
    return torch.from_numpy(states).mean(1)


def main() -> None:
    torch.set_num_threads(1)
    folder = files.find("minilm")
    programs: dict[str, Callable[[Tensor], Tensor]] = {}
    body = AutoModel.from_pretrained(folder).eval()
    programs["fp32, torch"] = partial(by_torch, body, torch.float32)
    programs["bf16, torch"] = partial(by_torch, body, torch.bfloat16)
    with tempfile.TemporaryDirectory() as name:
        plain = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        for label, session in exported(plain, Path(name)).items():
            programs[label] = partial(by_session, session)
        for texts, tokens in SHAPES:
            ids = torch.randint(1000, 20000, (texts, tokens), generator=torch.Generator().manual_seed(0))
            seconds: dict[str, list[float]] = {label: [] for label in programs}
            vectors = {}
            for _ in range(ROUNDS):
                for label, program in programs.items():
                    begun = process_time()
                    vectors[label] = program(ids)
                    seconds[label].append(process_time() - begun)
            for label, times in seconds.items():
                cosine = float(cosine_similarity(vectors[label], vectors["fp32, torch"]).mean())
                speed = texts / min(times)
                print(f"{tokens} tokens, {label}: {speed:.0f} texts a second, cosine {cosine:.4f}")


if __name__ == "__main__":
    main()
