"""MobileNetV2 and two EfficientNet-Lite: published names and shapes, and the classes of real photographs."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from plait.errors import RecipeError
from plait.media.image import Framing, normalise, square, to_float
from plait.pretrained import files
from plait.pretrained.convnets import PLANS, ConvNet, relu6, renamed

# As published, with ImageNet's classifier.
PARAMETERS = {"mobilenet_v2": 3_504_872, "efficientnet_lite0": 4_652_008, "efficientnet_lite2": 6_092_072}


@pytest.mark.parametrize("name", PLANS)
def test_as_many_parameters_as_published(name: str) -> None:
    assert sum(p.numel() for p in ConvNet(PLANS[name], 1000).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("side", [32, 50, 224])
def test_each_side_is_divided_by_32(name: str, side: int) -> None:
    network = ConvNet(PLANS[name]).eval()
    with torch.no_grad():
        grid = network(torch.randn(1, 3, side, side))
    divided = -(-side // 32)
    assert grid.shape == (1, 1280, divided, divided)


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="not the weights of mobilenet_v2"):
        renamed({"classifier.1.weight": torch.zeros(10, 1280)}, "mobilenet_v2")


@pytest.mark.parametrize("name", PLANS)
def test_a_photograph_of_a_temple_is_recognised(name: str) -> None:
    """A Chinese temple: palace (698), monastery (663) or bell cote (442) of ImageNet's classes."""
    try:
        folder = files.find(name)
    except RecipeError as error:
        pytest.skip(str(error))
    network = ConvNet(PLANS[name], 1000).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    preprocessor = files.read_json(folder, "preprocessor_config.json")
    mean, std = tuple(preprocessor["image_mean"]), tuple(preprocessor["image_std"])
    framing = Framing(size=preprocessor["size"]["height"], fit="crop", mean=mean, std=std)
    pixels = torch.from_numpy(square(load_sample_image("china.jpg"), framing).copy())[None]
    with torch.no_grad():
        grid = network(normalise(to_float(pixels), framing))
        probabilities = network.classifier(grid.mean((2, 3))).softmax(1)
    assert probabilities.argmax() == 698
    assert probabilities[0, [698, 663, 442]].sum() > 0.4


@pytest.mark.parametrize("name", PLANS)
def test_folding_changes_no_answer(name: str) -> None:
    torch.manual_seed(0)
    network, images = ConvNet(PLANS[name]).eval(), torch.randn(2, 3, 64, 64)
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        expected = network(images)
        tolerance = 1e-4 * float(expected.abs().max())
        assert torch.allclose(network.folded()(images), expected, atol=tolerance)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_relu6_is_that_of_torch_bit_by_bit(kind: torch.dtype) -> None:
    special_values = [
        -float("inf"),
        -1e30,
        -6.0,
        -1e-40,
        -0.0,
        0.0,
        1e-40,
        0.5,
        5.96875,
        6.0,
        6.03125,
        1e30,
        float("inf"),
    ]
    x = torch.cat(
        [torch.tensor(special_values), torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 5]
    ).to(kind)
    with torch.no_grad():
        assert torch.equal(relu6(x.clone()), torch.nn.functional.relu6(x))
    assert relu6(x.clone().requires_grad_() * 1).requires_grad
