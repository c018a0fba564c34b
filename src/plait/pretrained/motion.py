"""How the images of a video move, in a few numbers. A frame's vector does not tell it.

Shape letters: B rows, T frames, C colours, H and W the sides of an image, P pairs of frames, N pixels, K the
six numbers of an affine motion.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from plait.nn.layers import masked_mean

SIDE = 32  # pixels of the grey images that are compared
BLUR = (0.25, 0.5, 0.25)  # on each axis: a motion of a few pixels then changes grey values smoothly
STRENGTH = 1e-3  # of the penalty on motions, as a share of the mean squared slope
WIDTH = 14  # mean and deviation of the six numbers of a motion, and of the change

# How the numbers stand beside the many of an image network, which would drown them: repeated, because linear
# models scale each number by itself, and larger, because networks do not.
COPIES = 16
SCALE = 2.0


def motion(frames_BTCHW: Tensor, mask_BT: Tensor) -> Tensor:
    """Return how the frames of each video move, (B, 14). A video of one frame does not: zeros.

    For each two frames that follow each other, the affine motion is computed that explains the change best
    (Lucas & Kanade 1981, with the model of Bergen et al. 1992, eq. 8). Its six numbers are shift, growth,
    turn and shear; the seventh is the mean size of the change. Returned are mean and standard deviation over
    time.
    """
    grey_BTHW = _grey(frames_BTCHW.float())
    affine_BPK = affine_motion(grey_BTHW[:, :-1], grey_BTHW[:, 1:])
    change_BP = (grey_BTHW[:, 1:] - grey_BTHW[:, :-1]).abs().mean((2, 3))
    moves = torch.cat([affine_BPK, change_BP[..., None]], 2)

    mask_BP = mask_BT[:, 1:] & mask_BT[:, :-1]
    if not moves.shape[1]:
        return moves.new_zeros(len(moves), WIDTH)
    mean = masked_mean(moves, mask_BP)
    variance = masked_mean((moves - mean[:, None]).square(), mask_BP)
    moments = torch.cat([mean, (variance + 1e-8).sqrt()], 1)
    return moments * mask_BP.any(1, keepdim=True)


def affine_motion(before_BPHW: Tensor, after_BPHW: Tensor) -> Tensor:
    """Return the affine motion between two grey images, (B, P, 6).

    A pixel at (x, y), both from -1 to 1, moves by (a + b x + c y, d + e x + f y) pixels. These six numbers
    minimise the sum of (change + slope * motion)^2 over all pixels.
    """
    middle_BPHW = (before_BPHW + after_BPHW) / 2
    over_y, over_x = torch.gradient(middle_BPHW, dim=(2, 3))
    height, width = middle_BPHW.shape[2:]
    y_H1 = torch.linspace(-1, 1, height, device=middle_BPHW.device)[:, None]
    x_W = torch.linspace(-1, 1, width, device=middle_BPHW.device)

    terms = (over_x, over_x * x_W, over_x * y_H1, over_y, over_y * x_W, over_y * y_H1)
    slope_BPNK = torch.stack(terms, -1).flatten(2, 3)
    change_BPN1 = (before_BPHW - after_BPHW).flatten(2)[..., None]
    gram_BPKK = slope_BPNK.mT @ slope_BPNK

    # Images without slopes have no motion that could be seen: the penalty makes it zero.
    penalty_BP11 = STRENGTH * gram_BPKK.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-6
    identity_KK = torch.eye(gram_BPKK.shape[-1], device=gram_BPKK.device)
    product_BPK1 = slope_BPNK.mT @ change_BPN1
    return torch.linalg.solve(gram_BPKK + penalty_BP11 * identity_KK, product_BPK1)[..., 0]


def _grey(frames_BTCHW: Tensor) -> Tensor:
    """Return small grey images, slightly blurred, (B, T, SIDE, SIDE)."""
    grey_NHW = F.adaptive_avg_pool2d(frames_BTCHW.flatten(0, 1).mean(1, keepdim=True), SIDE)
    weight = torch.tensor(BLUR, device=grey_NHW.device)
    kernel = (weight[:, None] * weight)[None, None]
    blurred = F.conv2d(F.pad(grey_NHW, (1, 1, 1, 1), mode="replicate"), kernel)
    return blurred[:, 0].unflatten(0, frames_BTCHW.shape[:2])
