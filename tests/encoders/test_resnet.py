"""The residual network on images of every size, in both precisions."""

from __future__ import annotations

import pytest
import torch

from plait.encoders.base import encoders
from plait.nn.batch import Layout, Values


@pytest.mark.parametrize("size", [8, 16, 17, 24, 32, 96])
@pytest.mark.parametrize("rows", [2, 8])
def test_gradients_in_bf16_are_those_in_fp32(size: int, rows: int) -> None:
    """On a grid of one position, a strided convolution has a wrong gradient in bf16: none is built."""

    def gradients(bf16: bool) -> torch.Tensor:
        torch.manual_seed(0)
        config = encoders.configure("resnet", {"dropout": 0.0})
        module = encoders.find("resnet").build(config, Layout("grid", (3, size, size)))
        module.eval()  # statistics of a few rows of noise would magnify rounding
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.ones_(layer.weight)  # zero in some, at the start: nothing would flow
        x = torch.rand(rows, 3, size, size)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = module(Values(x)).pooled_BD()
        (y.float() * torch.linspace(-1, 1, y.shape[1])).sum().backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    in_fp32, in_bf16 = gradients(False), gradients(True)
    assert torch.isfinite(in_bf16).all()
    assert torch.nn.functional.cosine_similarity(in_fp32, in_bf16, dim=0) > 0.98


@pytest.mark.parametrize(("size", "tokens"), [(8, 1), (16, 1), (32, 1), (64, 4), (96, 9), (224, 49)])
def test_there_is_a_token_for_each_position_of_the_last_grid(size: int, tokens: int) -> None:
    config = encoders.configure("resnet", {})
    module = encoders.find("resnet").build(config, Layout("grid", (3, size, size))).eval()
    assert module(Values(torch.rand(1, 3, size, size))).x_BLD.shape == (1, tokens, 256)
