"""MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite0 (Tan & Le 2019, without squeeze and
excitation, with ReLU6): small networks for pictures whose ImageNet weights come inside packages. Both
are stacks of the same block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIX = 0x40C0  # the bits of 6 in bf16


@dataclass(frozen=True)
class Plan:
    """Each stage: how much wider its blocks are inside, channels, blocks, stride of the first, side of
    the kernel.

    `same` pads as TensorFlow does, less before than after; `epsilon` belongs to batch normalisation.
    """

    stages: tuple[tuple[int, int, int, int, int], ...]
    same: bool
    epsilon: float
    stem: int = 32
    width: int = 1280


PLANS = {
    "mobilenet_v2": Plan(
        (
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 32, 3, 2, 3),
            (6, 64, 4, 2, 3),
            (6, 96, 3, 1, 3),
            (6, 160, 3, 2, 3),
            (6, 320, 1, 1, 3),
        ),
        same=False,
        epsilon=1e-5,
    ),
    "efficientnet_lite0": Plan(
        (
            (1, 16, 1, 1, 3),
            (6, 24, 2, 2, 3),
            (6, 40, 2, 2, 5),
            (6, 80, 3, 2, 3),
            (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5),
            (6, 320, 1, 1, 3),
        ),
        same=True,
        epsilon=1e-3,
    ),
}


class ConvNet(nn.Module):
    """Pictures (B, 3, H, W) to a grid (B, 1280, H/32, W/32); `classifier` makes ImageNet's classes of
    its mean.
    """

    def __init__(self, plan: Plan, classes: int = 0) -> None:
        super().__init__()
        self.stem = Convolution(3, plan.stem, 3, 2, plan)
        blocks, before = [], plan.stem
        for ratio, channels, count, stride, kernel in plan.stages:
            for number in range(count):
                blocks.append(Block(before, channels, ratio, kernel, stride if number == 0 else 1, plan))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(before, plan.width, 1, 1, plan)
        self.classifier = nn.Linear(plan.width, classes) if classes else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x_BCHW)))

    def folded(self) -> ConvNet:
        """This network with each normalisation multiplied into the convolution before it: faster, and
        no longer to be trained.
        """
        for part in (m for m in self.eval().modules() if isinstance(m, Convolution)):
            assert isinstance(part.norm, nn.BatchNorm2d)
            part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), nn.Identity()
        return self


class Block(nn.Module):
    """An inverted residual: made wider, one convolution for each channel, made narrow again, added to
    what came in where the form allows it (Sandler et al. 2018, fig. 4d).
    """

    def __init__(self, before: int, after: int, ratio: int, kernel: int, stride: int, plan: Plan) -> None:
        super().__init__()
        inside = before * ratio
        self.expand = Convolution(before, inside, 1, 1, plan) if ratio > 1 else nn.Identity()
        self.depthwise = Convolution(inside, inside, kernel, stride, plan, groups=inside)
        self.project = Convolution(inside, after, 1, 1, plan, active=False)
        self.residual = stride == 1 and before == after

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.project(self.depthwise(self.expand(x_BCHW)))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class Convolution(nn.Module):
    """A convolution with batch normalisation and, unless not `active`, ReLU6."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        stride: int,
        plan: Plan,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.same, self.active = kernel, stride, plan.same, active
        self.conv = nn.Conv2d(
            before, after, kernel, stride, 0 if plan.same else kernel // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=plan.epsilon)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.same and self.kernel > 1:
            high, wide = (
                max((math.ceil(n / self.stride) - 1) * self.stride + self.kernel - n, 0)
                for n in x_BCHW.shape[2:]
            )
            x_BCHW = F.pad(x_BCHW, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        x_BCHW = self.norm(self.conv(x_BCHW))
        return relu6(x_BCHW) if self.active else x_BCHW


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6), in place. Numbers of bf16 are compared as the integers that their bits are,
    which have the same order from zero up and are below zero where they are: on CPUs torch 2.13 takes
    four times as long for the numbers themselves. NaN does not outlive that.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        x.view(torch.int16).clamp_(0, SIX)
        return x
    return F.relu6(x, inplace=True)


def renamed(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The published weights of a network under the names used here.

    Raises `ValueError` unless there is exactly one of the right shape for each of the network's own.
    """
    translate = _torchvision if name == "mobilenet_v2" else _efficientnet_pytorch
    found = {translate(key): value for key, value in weights.items()}
    expected = ConvNet(PLANS[name], 1000).state_dict()
    wrong = [
        k
        for k in expected.keys() | found.keys()
        if k not in expected or k not in found or expected[k].shape != found[k].shape
    ]
    if wrong or len(found) != len(weights):
        raise ValueError(
            f"these are not the weights of {name}: {len(wrong)} tensors differ, {sorted(wrong)[:3]} among "
            f"them"
        )
    return {k: v if v.dtype == torch.int64 else v.float() for k, v in found.items()}


def _torchvision(key: str) -> str:
    """`features.3.conv.1.0.weight` is `blocks.2.depthwise.conv.weight`; the first block has nothing to
    expand.
    """
    parts = key.split(".")
    kind = parts[-1]
    if parts[0] == "classifier":
        return f"classifier.{kind}"
    stage = int(parts[1])
    if stage in (0, 18):
        return f"{'head' if stage else 'stem'}.{'norm' if parts[2] == '1' else 'conv'}.{kind}"
    steps = ["depthwise", "project"] if stage == 1 else ["expand", "depthwise", "project"]
    place = int(parts[3])
    if place >= len(steps) - 1:  # the last one lies flat: convolution, then normalisation
        return f"blocks.{stage - 1}.project.{'norm' if place == len(steps) else 'conv'}.{kind}"
    return f"blocks.{stage - 1}.{steps[place]}.{'norm' if parts[4] == '1' else 'conv'}.{kind}"


def _efficientnet_pytorch(key: str) -> str:
    """`_blocks.3._bn1.weight` is `blocks.3.depthwise.norm.weight`."""
    parts = key.split(".")
    kind, outer = (
        parts[-1],
        {
            "_conv_stem": "stem.conv",
            "_bn0": "stem.norm",
            "_conv_head": "head.conv",
            "_bn1": "head.norm",
            "_fc": "classifier",
        },
    )
    if parts[0] in outer:
        return f"{outer[parts[0]]}.{kind}"
    inner = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    return f"blocks.{parts[1]}.{inner[parts[2]]}.{kind}"
