"""MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite0 (Tan & Le 2019).

EfficientNet-Lite0 has no squeeze and excitation, and ReLU6. Both are small networks for images, stacks of the
same block, whose ImageNet weights come inside packages.
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
    """The architecture of a network.

    Each stage has: how many times wider its blocks are inside, channels, number of blocks, stride of the
    first block, side of the kernel. `same` pads as TensorFlow does, less before than after. `epsilon`
    belongs to batch normalisation.
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
    """From images (B, 3, H, W) to a grid (B, 1280, H/32, W/32).

    `classifier` gives the logits of ImageNet's classes from the grid's mean; `forward` does not call it.
    """

    def __init__(self, plan: Plan, classes: int = 0) -> None:
        super().__init__()
        self.stem = Convolution(3, plan.stem, 3, 2, plan)
        blocks, before = [], plan.stem
        for ratio, channels, count, stride, kernel in plan.stages:
            for number in range(count):
                block_stride = stride if number == 0 else 1
                blocks.append(Block(before, channels, ratio, kernel, block_stride, plan))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(before, plan.width, 1, 1, plan)
        self.classifier = nn.Linear(plan.width, classes) if classes else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the grid of vectors, (B, 1280, H/32, W/32)."""
        return self.head(self.blocks(self.stem(x_BCHW)))

    def folded(self) -> ConvNet:
        """Multiply each normalisation into the convolution before it, and return this network.

        It is then faster, and can no longer be trained.
        """
        for module in self.eval().modules():
            if isinstance(module, Convolution):
                assert isinstance(module.norm, nn.BatchNorm2d)
                module.conv = fuse_conv_bn_eval(module.conv, module.norm)
                module.norm = nn.Identity()
        return self


class Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, fig. 4d).

    It widens its input, convolves each channel by itself, and makes it narrow again. The input is added if it
    has the same shape.
    """

    def __init__(self, before: int, after: int, ratio: int, kernel: int, stride: int, plan: Plan) -> None:
        super().__init__()
        inside = before * ratio
        self.expand = Convolution(before, inside, 1, 1, plan) if ratio > 1 else nn.Identity()
        self.depthwise = Convolution(inside, inside, kernel, stride, plan, groups=inside)
        self.project = Convolution(inside, after, 1, 1, plan, active=False)
        self.residual = stride == 1 and before == after

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        y_BCHW = self.project(self.depthwise(self.expand(x_BCHW)))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class Convolution(nn.Module):
    """A convolution with batch normalisation and, if `active`, ReLU6."""

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
        padding = 0 if plan.same else kernel // 2
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=plan.epsilon)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        if self.same and self.kernel > 1:
            height, width = x_BCHW.shape[2:]
            rows, columns = self._missing(height), self._missing(width)
            padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            x_BCHW = F.pad(x_BCHW, padding)
        x_BCHW = self.norm(self.conv(x_BCHW))
        return relu6(x_BCHW) if self.active else x_BCHW

    def _missing(self, side: int) -> int:
        """Return by how many pixels TensorFlow pads a side, both ends together."""
        steps = math.ceil(side / self.stride)
        return max((steps - 1) * self.stride + self.kernel - side, 0)


def relu6(x: Tensor) -> Tensor:
    """Return min(max(x, 0), 6), computed in place.

    On a CPU, bf16 numbers are compared as the integers of their bits, which have the same order from zero up
    and the same sign: torch 2.13 takes four times as long for the numbers themselves. A NaN becomes 6 or 0.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        x.view(torch.int16).clamp_(0, SIX)
        return x
    return F.relu6(x, inplace=True)


def renamed(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the published weights of a network under the names used here.

    Raises `ValueError` unless there is exactly one tensor of the right shape for each of the network's own.
    """
    translate = _torchvision if name == "mobilenet_v2" else _efficientnet_pytorch
    tensors = {translate(key): tensor for key, tensor in weights.items()}
    expected = ConvNet(PLANS[name], 1000).state_dict()
    differing = sorted(key for key in expected.keys() | tensors.keys() if _differs(key, expected, tensors))
    if differing or len(tensors) != len(weights):
        raise ValueError(
            f"these are not the weights of {name}: {len(differing)} tensors differ, {differing[:3]} among "
            f"them"
        )

    # integers count the batches that a normalisation has seen
    return {key: tensor if tensor.dtype == torch.int64 else tensor.float() for key, tensor in tensors.items()}


def _differs(key: str, expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> bool:
    """Return whether a tensor is missing on one side, or has another shape."""
    if key not in expected or key not in tensors:
        return True
    return expected[key].shape != tensors[key].shape


def _torchvision(key: str) -> str:
    """Translate a name of torchvision's MobileNetV2.

    `features.3.conv.1.0.weight` is `blocks.2.depthwise.conv.weight`. The first block has nothing to expand.
    """
    names = key.split(".")
    kind = names[-1]
    if names[0] == "classifier":
        return f"classifier.{kind}"
    stage = int(names[1])
    if stage in (0, 18):
        module = "head" if stage else "stem"
        return f"{module}.{_layer(names[2])}.{kind}"

    steps = ["depthwise", "project"] if stage == 1 else ["expand", "depthwise", "project"]
    step = int(names[3])
    if step >= len(steps) - 1:  # the last one lies flat: convolution, then normalisation
        layer = "norm" if step == len(steps) else "conv"
        return f"blocks.{stage - 1}.project.{layer}.{kind}"
    return f"blocks.{stage - 1}.{steps[step]}.{_layer(names[4])}.{kind}"


def _layer(number: str) -> str:
    """Return which layer of a `Convolution` torchvision gives this number."""
    return "norm" if number == "1" else "conv"


EFFICIENTNET_OUTER = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classifier",
}


EFFICIENTNET_INNER = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def _efficientnet_pytorch(key: str) -> str:
    """Translate a name of efficientnet_pytorch.

    `_blocks.3._bn1.weight` is `blocks.3.depthwise.norm.weight`.
    """
    names = key.split(".")
    kind = names[-1]
    if names[0] in EFFICIENTNET_OUTER:
        return f"{EFFICIENTNET_OUTER[names[0]]}.{kind}"
    return f"blocks.{names[1]}.{EFFICIENTNET_INNER[names[2]]}.{kind}"
