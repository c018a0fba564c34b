"""The contract of all ways of balancing, with each of their methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plait.balancing.base import balancings
from support.balancing import Toy, build, stepped, train
from support.components import variants
from support.options import assert_option_matters, options_of

VARIANTS = variants(balancings)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
class TestBalancing:
    def test_a_target_without_a_label_is_left_out(self, name: str, options: dict[str, Any]) -> None:
        balancing, toy = build(name, **options), Toy()
        balancing.backward({"b": toy.losses()["b"]}, [toy.w])
        balancing.finish([toy.w])
        if balancing.again:
            balancing.after({"b": toy.losses()["b"] * 0.5})
        assert toy.own["a"].grad is None
        assert toy.w.grad is not None
        cosine = torch.cosine_similarity(toy.w.grad, torch.from_numpy(Toy().gradients()[1]).float(), dim=0)
        assert cosine == pytest.approx(1.0, abs=1e-5)

    def test_both_losses_fall_from_a_common_start(self, name: str, options: dict[str, Any]) -> None:
        balancing = build(name, **options)
        steps = 400 if balancing.state_dict() else 100  # what learns its weights takes longer
        before, after = Toy().values(), train(balancing, steps).values()
        assert after["a"] < before["a"]
        assert after["b"] < before["b"]

    def test_what_it_learned_is_saved(self, name: str, options: dict[str, Any]) -> None:
        balancing, other = build(name, **options), build(name, **options)
        for tensor in balancing.state_dict().values():
            tensor += 0.3
        other.load_state_dict(balancing.state_dict())
        restored = other.state_dict()
        for key, tensor in balancing.state_dict().items():
            assert torch.equal(tensor, restored[key])
        assert torch.equal(stepped(balancing).w.grad, stepped(other).w.grad)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_micro_batches_have_the_gradient_of_the_batch(name: str, options: dict[str, Any]) -> None:
    balancing, at_once, toy = build(name, **options), build(name, **options), Toy()
    if balancing.again:
        balancing.before({target: loss.detach() for target, loss in toy.losses().items()})
    for share in (0.3, 0.7):
        balancing.backward({target: loss * share for target, loss in toy.losses().items()}, [toy.w])
    balancing.finish([toy.w])
    torch.testing.assert_close(toy.w.grad, stepped(at_once).w.grad)
    for parameter, expected in zip(balancing.parameters(), at_once.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


@pytest.mark.parametrize(("name", "option"), options_of("balancing"))
def test_every_balancing_option_matters(name: str, option: str) -> None:
    def outcome(options: dict[str, Any]) -> list[object]:
        return [train(build(name, **options), steps=3).w.detach()]

    assert_option_matters("balancing", name, option, outcome)
