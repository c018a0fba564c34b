"""MobileNetV2 (Sandler et al. 2018), EfficientNet-Lite0 and EfficientNet-Lite2 (Tan & Le 2019).

All are small networks for images, stacks of the same block, whose ImageNet weights come inside packages. The
Lite networks are EfficientNets without squeeze and excitation, and with ReLU6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from plait.errors import count

SIX = 0x40C0  # the bits of 6 in bf16


class Stage(NamedTuple):
    """Blocks of the same width.

    Inside, a block is `ratio` times wider than its input. `stride` is that of the first block, `kernel` the
    side of the depthwise convolutions.
    """

    ratio: int
    channels: int
    blocks: int
    stride: int
    kernel: int


@dataclass(frozen=True)
class Plan:
    """The architecture of a network.

    `stem` and `width` are the channels of the first and the last convolution. `same` pads as TensorFlow does,
    less before than after. `epsilon` belongs to batch normalisation.
    """

    stages: tuple[Stage, ...]
    same: bool
    epsilon: float
    stem: int = 32
    width: int = 1280


PLANS = {
    "mobilenet_v2": Plan(
        (
            Stage(1, 16, 1, 1, 3),
            Stage(6, 24, 2, 2, 3),
            Stage(6, 32, 3, 2, 3),
            Stage(6, 64, 4, 2, 3),
            Stage(6, 96, 3, 1, 3),
            Stage(6, 160, 3, 2, 3),
            Stage(6, 320, 1, 1, 3),
        ),
        same=False,
        epsilon=1e-5,
    ),
    "efficientnet_lite0": Plan(
        (
            Stage(1, 16, 1, 1, 3),
            Stage(6, 24, 2, 2, 3),
            Stage(6, 40, 2, 2, 5),
            Stage(6, 80, 3, 2, 3),
            Stage(6, 112, 3, 1, 5),
            Stage(6, 192, 4, 2, 5),
            Stage(6, 320, 1, 1, 3),
        ),
        same=True,
        epsilon=1e-3,
    ),
    "efficientnet_lite2": Plan(
        (
            Stage(1, 16, 1, 1, 3),
            Stage(6, 24, 3, 2, 3),
            Stage(6, 48, 3, 2, 5),
            Stage(6, 88, 4, 2, 3),
            Stage(6, 120, 4, 1, 5),
            Stage(6, 208, 5, 2, 5),
            Stage(6, 352, 1, 1, 3),
        ),
        same=True,
        epsilon=1e-3,
    ),
}


class ConvNet(nn.Module):
    """Turn images (B, 3, H, W) into grids of vectors (B, 1280, H/32, W/32).

    `classifier` gives the logits of ImageNet's classes from the grid's mean; `forward` does not call it.
    """

    def __init__(self, plan: Plan, classes: int = 0) -> None:
        super().__init__()
        self.stem = Convolution(3, plan.stem, kernel=3, stride=2, plan=plan)

        blocks = []
        before = plan.stem
        for stage in plan.stages:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(Block(before, stage.channels, stage.ratio, stage.kernel, stride, plan))
                before = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(before, plan.width, kernel=1, stride=1, plan=plan)
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

    It widens its input, convolves each channel separately, and makes it narrow again. The input is added if
    it has the same shape.
    """

    def __init__(self, before: int, after: int, ratio: int, kernel: int, stride: int, plan: Plan) -> None:
        super().__init__()
        inside = before * ratio
        self.expand: nn.Module = nn.Identity()
        if ratio > 1:
            self.expand = Convolution(before, inside, 1, 1, plan)
        self.depthwise = Convolution(inside, inside, kernel, stride, plan, groups=inside)
        self.project = Convolution(inside, after, 1, 1, plan, active=False)
        self.residual = stride == 1 and before == after

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        y_BCHW = self.project(self.depthwise(self.expand(x_BCHW)))
        if self.residual:
            return x_BCHW + y_BCHW
        return y_BCHW


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
        self.kernel = kernel
        self.stride = stride
        self.same = plan.same
        self.active = active
        padding = 0 if plan.same else kernel // 2  # `forward` pads as TensorFlow does
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=plan.epsilon)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        if self.same and self.kernel > 1:
            height, width = x_BCHW.shape[2:]
            x_BCHW = F.pad(x_BCHW, (*self._padding(width), *self._padding(height)))
        x_BCHW = self.norm(self.conv(x_BCHW))
        if not self.active:
            return x_BCHW
        return relu6(x_BCHW)

    def _padding(self, side: int) -> tuple[int, int]:
        """Return by how many pixels TensorFlow pads the start and the end of a side."""
        steps = math.ceil(side / self.stride)
        read_pixels = (steps - 1) * self.stride + self.kernel
        padding = max(read_pixels - side, 0)
        return padding // 2, padding - padding // 2


def relu6(x: Tensor) -> Tensor:
    """Return min(max(x, 0), 6), computed in place.

    On a CPU, bf16 numbers are compared as the integers of their bits, because torch 2.13 takes four times as
    long for the numbers themselves. From zero up the integers have the same order, and below it the same
    sign. A NaN becomes 6 or 0.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        x.view(torch.int16).clamp_(0, SIX)
        return x
    return F.relu6(x, inplace=True)


def read(name: str, file: Path) -> dict[str, Tensor]:
    """Return the tensors of a published network, under the names used here. No code of the file is run.

    Raises `ValueError` for a file that is damaged, or that holds other tensors.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what the parts of a damaged archive raise
        raise ValueError(f"this cannot be read as weights ({type(error).__name__})") from error
    return renamed(weights, name)


def renamed(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the published weights of a network under the names used here.

    Raises `ValueError` unless there is exactly one tensor of the right shape for each tensor of the network.
    """
    translate = _torchvision if name == "mobilenet_v2" else _efficientnet_pytorch
    tensors = {translate(key): tensor for key, tensor in weights.items()}

    expected = ConvNet(PLANS[name], 1000).state_dict()
    all_keys = expected.keys() | tensors.keys()
    differing = sorted(key for key in all_keys if _differs(key, expected, tensors))
    if differing or len(tensors) != len(weights):
        raise ValueError(
            f"these are not the weights of {name}: {count(len(differing), 'tensor')} differ, such as "
            f"{', '.join(differing[:3])}"
        )

    # Integers stay: they count the batches that a normalisation has seen.
    for key, tensor in tensors.items():
        if tensor.dtype != torch.int64:
            tensors[key] = tensor.float()
    return tensors


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
    feature = int(names[1])
    if feature == 0:
        return f"stem.{_layer(names[2])}.{kind}"
    if feature == 18:
        return f"head.{_layer(names[2])}.{kind}"

    block = f"blocks.{feature - 1}"
    steps = ["expand", "depthwise", "project"]
    if feature == 1:
        steps = ["depthwise", "project"]

    # The last step is no module of its own: its convolution and its normalisation are two modules of `conv`.
    number = int(names[3])
    if number == len(steps):
        return f"{block}.project.norm.{kind}"
    if number >= len(steps) - 1:
        return f"{block}.project.conv.{kind}"
    return f"{block}.{steps[number]}.{_layer(names[4])}.{kind}"


def _layer(number: str) -> str:
    """Return the layer of a `Convolution` that has this number in torchvision."""
    return "norm" if number == "1" else "conv"


# Names of efficientnet_pytorch's layers outside its blocks, and inside them.
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
        layer = EFFICIENTNET_OUTER[names[0]]
        return f"{layer}.{kind}"
    layer = EFFICIENTNET_INNER[names[2]]
    return f"blocks.{names[1]}.{layer}.{kind}"
