"""The contract of all encoders, with every kind of layout that each takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from plait.encoders.base import FrozenEncoder
from support.components import component, configured
from support.encoders import (
    build_encoder,
    encoder_config,
    encoders_and_kinds,
    random_values,
    tiny_network,
    trainable,
)
from support.export import assert_exported_alike
from support.gradients import assert_gradient, silent_parameters, weighted_sum
from support.models import build_around
from support.options import assert_option_matters, options_of

PAIRS = encoders_and_kinds()


@pytest.mark.parametrize(("name", "kind"), PAIRS)
class TestEncoder:
    def test_tokens_have_shapes_and_finite_values(self, name: str, kind: str) -> None:
        encoder = build_encoder(name, kind)
        tokens = encoder(random_values(kind, 8))
        assert tokens.x_BLD.shape[0] == 8
        assert tokens.x_BLD.shape[2] == encoder.width
        assert tokens.mask_BL.shape == tokens.x_BLD.shape[:2]
        assert tokens.mask_BL.dtype == torch.bool
        assert torch.isfinite(tokens.x_BLD).all()

    def test_a_single_row_is_encoded_as_among_eight(self, name: str, kind: str) -> None:
        encoder, values = build_encoder(name, kind), random_values(kind, 8)
        among = encoder(values).pooled_BD()
        for row in range(8):
            single_row = values.take(torch.tensor([row]))  # without padding beyond its length
            single = encoder(single_row).pooled_BD()
            assert torch.allclose(single[0], among[row], atol=1e-5)

    def test_every_parameter_learns_in_two_steps(self, name: str, kind: str) -> None:
        encoder, values = build_encoder(name, kind, trainable(name)).train(), random_values(kind, 8)
        silent = silent_parameters(encoder, lambda: weighted_sum(encoder(values).x_BLD))
        if component("encoders", name).pretrained:  # it has layers that its vectors do not pass through
            silent = {n for n in silent if "pooler" not in n and "masked_spec_embed" not in n}
        assert not silent

    def test_gradients_are_those_of_small_steps(self, name: str, kind: str) -> None:
        if component("encoders", name).pretrained:
            pytest.skip("a pretrained network computes in single precision whatever it is given")
        encoder = build_encoder(name, kind, trainable(name)).double().train()
        values = random_values(kind, 8)
        if values.x.is_floating_point():
            values = replace(values, x=values.x.double())
        assert_gradient(encoder, lambda: encoder(values).x_BLD)

    def test_one_row_trains(self, name: str, kind: str) -> None:
        encoder = build_encoder(name, kind, trainable(name)).train()
        encoder(random_values(kind, 1)).x_BLD.sum().backward()
        assert any(p.grad is not None for p in encoder.parameters())

    def test_loaded_weights_give_equal_tokens(self, name: str, kind: str) -> None:
        encoder, other = build_encoder(name, kind), build_encoder(name, kind)
        for parameter in other.parameters():
            parameter.data += 1
        other.load_state_dict(encoder.state_dict())
        values = random_values(kind, 3)
        assert torch.equal(encoder(values).x_BLD, other(values).x_BLD)

    def test_a_network_with_it_can_be_exported(self, name: str, kind: str) -> None:
        encoder, values = build_encoder(name, kind), random_values(kind, 8)
        if isinstance(encoder, FrozenEncoder):
            values = encoder.embed(values)  # as the network gets it
        assert_exported_alike(*build_around(encoder, values))


def test_a_network_of_lists_can_be_exported() -> None:
    count_B = torch.tensor([2, 1, 0, 3, 1, 1, 0, 2])
    images = replace(random_values("grid", int(count_B.sum())), count_B=count_B)
    assert_exported_alike(*build_around(build_encoder("vgg", "grid"), images, several=True))


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")  # in transformers
@pytest.mark.parametrize("kind", ["tokens", "grid", "frames", "spectrogram"])
def test_a_network_that_is_trained_further_can_be_exported(kind: str) -> None:
    """Networks of waves cannot: they read one recording after the other, as far as it goes."""
    encoder = build_encoder("pretrained", kind, trainable("pretrained"))
    assert_exported_alike(*build_around(encoder, random_values(kind, 8)))


@pytest.mark.parametrize(("name", "option"), options_of("encoders"))
def test_every_encoder_option_changes_something(name: str, option: str) -> None:
    kind = min(component("encoders", name).takes - {"index"})

    def outcome(options: dict[str, Any]) -> list[object]:
        """The tokens in training, and what is trained at which share of the learning rate."""
        encoder = build_encoder(name, kind, options).train()
        shares = {id(parameter): share for parameter, share in encoder.rates()}
        torch.manual_seed(1)
        tokens = encoder(random_values(kind, 8)).x_BLD
        parameters = [p for p in encoder.parameters() if p.requires_grad]
        return [tokens, [(p.shape, shares.get(id(p), 1.0)) for p in parameters]]

    if option == "chunks":  # it says how much of a long text is read, so it changes what cells become
        encoder = component("encoders", name)
        options = {"model": tiny_network("tokens", 0)}
        configs = [configured("encoders", name, {**options, "chunks": chunks}) for chunks in (1, 2)]
        one, two = (encoder.asks(encoder.settled(config, "text"), "text") for config in configs)
        assert one["max_tokens"] * 2 == two["max_tokens"]
    elif option == "model":
        tokens, other_tokens = (outcome({"model": tiny_network(kind, seed)})[0] for seed in (0, 1))
        assert not torch.allclose(tokens, other_tokens)
    else:
        assert_option_matters("encoders", name, option, outcome)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("trained", [False, True])
def test_a_frozen_encoder_is_one_that_its_options_freeze(name: str, kind: str, trained: bool) -> None:
    """The plan reads `frozen`, and code that handles embeddings relies on the class that `build` returns."""
    options = trainable(name) if trained else {}
    is_frozen = component("encoders", name).frozen(encoder_config(name, kind, options))
    assert isinstance(build_encoder(name, kind, options), FrozenEncoder) == is_frozen
