"""How videos move: shifts, growth and turns of an image that can be computed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from plait.pretrained.motion import SIDE, WIDTH, affine_motion, motion

# The place of each number of a motion (a + b x + c y, d + e x + f y).
SHIFT_X, GROWTH_X, SHEAR_X, SHIFT_Y, SHEAR_Y, GROWTH_Y = range(6)


def blob(turned: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Draw a smooth image that is turned, scaled and then shifted by pixels of the small grey image."""
    place = torch.linspace(-1, 1, 96)
    y, x = torch.meshgrid(place, place, indexing="ij")
    x, y = x - shift[0] * 2 / SIDE, y - shift[1] * 2 / SIDE
    along = (math.cos(turned) * x + math.sin(turned) * y) / scale
    across = (math.cos(turned) * y - math.sin(turned) * x) / scale
    grey = torch.exp(-8 * along**2 - 24 * across**2) + 0.3 * torch.exp(-20 * ((along - 0.5) ** 2 + across**2))
    return grey.expand(3, -1, -1)


def moments(*frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over time of the numbers of a video's motion."""
    mask_BT = torch.ones(1, len(frames), dtype=torch.bool)
    numbers = motion(torch.stack(frames)[None], mask_BT)[0]
    return numbers[: WIDTH // 2], numbers[WIDTH // 2 :]


@pytest.mark.parametrize(("x", "y"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -0.5), (0.7, 0.7)])
def test_a_shift_is_measured_in_pixels(x: float, y: float) -> None:
    mean, deviation = moments(*(blob(shift=(x * step, y * step)) for step in range(4)))
    assert abs(mean[SHIFT_X] - x) < 0.2
    assert abs(mean[SHIFT_Y] - y) < 0.2
    assert deviation[:6].max() < 0.5, "the shift is steady"


def test_growing_and_shrinking_differ_in_sign() -> None:
    grows, _ = moments(*(blob(scale=1.0 + 0.08 * step) for step in range(4)))
    shrinks, _ = moments(*(blob(scale=1.3 - 0.08 * step) for step in range(4)))
    assert grows[GROWTH_X] > 0.5
    assert grows[GROWTH_Y] > 0.5
    assert shrinks[GROWTH_X] < -0.5


def test_a_turn_shifts_both_axes_oppositely() -> None:
    mean, _ = moments(*(blob(turned=0.1 * step) for step in range(4)))
    assert mean[SHEAR_X] < -0.5
    assert mean[SHEAR_Y] > 0.5


def test_still_and_empty_videos_do_not_move() -> None:
    still, deviation = moments(blob(), blob(), blob())
    assert still.abs().max() < 1e-3
    assert deviation.max() < 1e-3
    mean, _ = moments(torch.zeros(3, 40, 40), torch.zeros(3, 40, 40))
    assert torch.isfinite(mean).all()


def test_one_frame_has_no_motion() -> None:
    frames_BTCHW = torch.rand(2, 3, 3, 40, 40)
    mask_BT = torch.tensor([[True, False, False], [True, True, True]])
    numbers = motion(frames_BTCHW, mask_BT)
    assert not numbers[0].any()
    assert numbers[1].any()
    assert not motion(frames_BTCHW[:, :1], mask_BT[:, :1]).any()


def test_frames_beyond_the_end_have_no_part() -> None:
    frames_BTCHW = torch.rand(1, 5, 3, 40, 40)
    mask_BT = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(motion(frames_BTCHW, mask_BT), motion(frames_BTCHW[:, :3], mask_BT[:, :3]))


def test_the_motion_minimises_the_squared_error() -> None:
    """No other affine motion explains the change between two images better."""
    torch.manual_seed(0)
    before, after = F.avg_pool2d(torch.rand(2, 1, 36, 36), 5, 1)
    best_K = affine_motion(before[None], after[None])[0, 0].requires_grad_()

    over_y, over_x = torch.gradient((before + after)[0] / 2)
    place = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(place, place, indexing="ij")
    a, b, c, d, e, f = best_K
    explained = over_x * (a + b * x + c * y) + over_y * (d + e * x + f * y)
    error = ((after - before)[0] + explained).square().sum()
    (gradient,) = torch.autograd.grad(error, best_K)

    # Zero but for the small penalty.
    assert gradient.abs().max() < 0.01 * error
