"""Each way of balancing, against its paper's equations, on two losses of a few parameters that pull apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from plait.balancing.base import Balancing, Share
from plait.nn.layers import module_key
from plait.recipe.registry import configure, find, names

SHARES = {"a": Share(2.0, 4.0), "b": Share(1.0, 0.5, squared=True)}
WAYS = [
    ("equal", {}),
    ("uncertainty", {}),
    ("famo", {}),
    *(("gradient", {"method": m}) for m in ("upgrad", "pcgrad", "cagrad", "mgda")),
]


def build(name: str, shares: dict[str, Share] = SHARES, **options: Any) -> Balancing:
    made: Balancing = find("balancing", name).build(configure("balancing", name, options), shares)
    return made


class Toy(nn.Module):
    """Two losses of shared parameters w, each with one parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.own = nn.ParameterDict({"a": torch.tensor(1.0), "b": torch.tensor(-1.0)})

    def losses(self) -> dict[str, torch.Tensor]:
        a = (self.w * torch.tensor([1.0, 2.0, -1.0])).sum().square() + self.own["a"].square() + 1
        b = (self.w - torch.tensor([0.0, -2.0, 2.0])).square().sum() + (self.own["b"] - 2).square()
        return {"a": a, "b": b}

    def gradients(self) -> np.ndarray:
        found = self.losses()
        return np.stack([torch.autograd.grad(loss, self.w)[0].numpy() for loss in found.values()]).astype(
            float
        )


def stepped(way: Balancing) -> Toy:
    toy = Toy()
    way.backward(toy.losses(), [toy.w])
    way.finish([toy.w])
    return toy


def test_every_way_is_tested() -> None:
    assert {name for name, _ in WAYS} == set(names("balancing"))


def test_equal_adds_losses_in_units_of_a_guess_times_their_weights() -> None:
    toy, gradients = stepped(build("equal")), Toy().gradients()
    np.testing.assert_allclose(toy.w.grad, 2.0 / 4.0 * gradients[0] + 1.0 / 0.5 * gradients[1], rtol=1e-5)
    np.testing.assert_allclose(toy.own["a"].grad, 2.0 / 4.0 * 2.0, rtol=1e-5)


def test_uncertainty_is_kendalls() -> None:
    """L = e^-s L_a + s/2 for a class, e^-s/2 L_b + s/2 for a number (eq. 7, 10), times the given weights."""
    way = build("uncertainty")
    with torch.no_grad():
        for t, value in (("a", 0.3), ("b", -0.4)):
            way.log_variance[module_key(t)].fill_(value)
    toy, gradients = stepped(way), Toy().gradients()
    loss = {t: float(v.detach()) for t, v in Toy().losses().items()}
    np.testing.assert_allclose(
        toy.w.grad, 2 * np.exp(-0.3) * gradients[0] + 0.5 * np.exp(0.4) * gradients[1], rtol=1e-5
    )
    found = {t: float(way.log_variance[module_key(t)].grad) for t in "ab"}
    assert found["a"] == pytest.approx(2 * (-np.exp(-0.3) * loss["a"] + 0.5), rel=1e-5)
    assert found["b"] == pytest.approx(-0.5 * np.exp(0.4) * loss["b"] + 0.5, rel=1e-5)


def test_uncertainty_ends_where_the_variance_is_the_loss() -> None:
    """At its minimum in s, e^s = 2 L of a class and L of a number: losses then weigh the same, whatever
    their unit.
    """
    way = build("uncertainty", {"a": Share(), "b": Share(squared=True)})
    optimizer = torch.optim.Adam(way.parameters(), lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        way.backward({"a": torch.tensor(30.0), "b": torch.tensor(0.02)}, [])
        optimizer.step()
    assert float(way.log_variance["of_a"].detach().exp()) == pytest.approx(60.0, rel=0.02)
    assert float(way.log_variance["of_b"].detach().exp()) == pytest.approx(0.02, rel=0.02)


def test_famo_is_algorithm_1() -> None:
    way = build("famo", {"a": Share(), "b": Share()})
    way.w.copy_(torch.tensor([0.4, -0.2]))  # type: ignore[operator]
    toy, gradients = stepped(way), Toy().gradients()
    loss = np.array([float(v.detach()) for v in Toy().losses().values()])
    z = np.exp([0.4, -0.2]) / np.exp([0.4, -0.2]).sum()
    c = 1 / (z / loss).sum()
    np.testing.assert_allclose(
        toy.w.grad, c * (z[0] / loss[0] * gradients[0] + z[1] / loss[1] * gradients[1]), rtol=1e-4
    )
    way.after({"a": torch.tensor(loss[0] * 0.5), "b": torch.tensor(loss[1] * 0.9)})
    fell = np.log([1 / 0.5, 1 / 0.9])
    jacobian = np.diag(z) - np.outer(z, z)
    np.testing.assert_allclose(
        way.w, np.array([0.4, -0.2]) - 0.025 * (jacobian @ fell + 0.001 * np.array([0.4, -0.2])), rtol=1e-4
    )
    assert way.w[0] < 0.4, "what fell fast is worth less"


def direction(method: str) -> tuple[np.ndarray, np.ndarray]:
    """The direction for unit shares, and the gradients."""
    toy = stepped(build("gradient", {"a": Share(), "b": Share()}, method=method))
    assert toy.w.grad is not None
    np.testing.assert_allclose(
        toy.own["a"].grad, 2.0, rtol=1e-5, err_msg="what is a target's own gets its own gradient"
    )
    return toy.w.grad.numpy().astype(float), Toy().gradients()


def test_the_toy_pulls_apart() -> None:
    gradients = Toy().gradients()
    assert gradients[0] @ gradients[1] < 0


def test_upgrad_projects_each_gradient_to_where_no_loss_grows() -> None:
    """The nearest point to g_i with J x >= 0, by a solver that is asked just that (Quinton & Rey 2024,
    eq. 3), summed over targets.
    """
    found, J = direction("upgrad")
    expected = np.zeros(3)
    for g in J:
        expected += minimize(
            lambda x, g=g: ((x - g) ** 2).sum(),
            g,
            constraints={"type": "ineq", "fun": lambda x: J @ x},
            tol=1e-12,
        ).x
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert (J @ found >= -1e-3).all()


def test_pcgrad_takes_from_each_what_is_against_the_other() -> None:
    """g_i - (g_i . g_j / |g_j|^2) g_j where they conflict, added up (Yu et al. 2020, algorithm 1)."""
    found, (a, b) = direction("pcgrad")
    np.testing.assert_allclose(found, (a - a @ b / (b @ b) * b) + (b - a @ b / (a @ a) * a), rtol=1e-4)


def test_mgda_is_the_shortest_convex_combination() -> None:
    found, (a, b) = direction("mgda")
    share = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)  # Sener & Koltun 2018, eq. 4 with two tasks
    np.testing.assert_allclose(found / 2, share * a + (1 - share) * b, rtol=1e-2, atol=1e-2)


def test_cagrad_is_the_best_for_the_worst_within_a_ball() -> None:
    """argmax_d min_i g_i . d with |d - g_0| <= c |g_0| (Liu et al. 2021, eq. 3)."""
    found, J = direction("cagrad")
    mean = J.mean(0)
    ball = {"type": "ineq", "fun": lambda d: (0.5 * np.linalg.norm(mean)) ** 2 - ((d[:3] - mean) ** 2).sum()}
    above = {"type": "ineq", "fun": lambda d: J @ d[:3] - d[3]}
    best = minimize(lambda d: -d[3], [*mean, (J @ mean).min()], constraints=[ball, above], tol=1e-12).x
    np.testing.assert_allclose(found / 2, best[:3], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("name", "options"), WAYS)
class TestBalancing:
    def test_a_target_without_a_label_in_the_batch_is_left_out(
        self, name: str, options: dict[str, Any]
    ) -> None:
        way, toy = build(name, **options), Toy()
        way.backward({"b": toy.losses()["b"]}, [toy.w])
        way.finish([toy.w])
        if way.again:
            way.after({"b": toy.losses()["b"] * 0.5})
        assert toy.own["a"].grad is None
        assert toy.w.grad is not None
        cosine = torch.cosine_similarity(toy.w.grad, torch.from_numpy(Toy().gradients()[1]).float(), dim=0)
        assert cosine == pytest.approx(1.0, abs=1e-5)

    def test_both_losses_fall_from_a_common_start(self, name: str, options: dict[str, Any]) -> None:
        way, toy = build(name, **options), Toy()
        optimizer = torch.optim.SGD([*toy.parameters(), *way.parameters()], lr=0.01)
        before = {t: float(v.detach()) for t, v in toy.losses().items()}
        for _ in range(600):
            optimizer.zero_grad()
            way.backward(toy.losses(), [toy.w])
            way.finish([toy.w])
            optimizer.step()
            if way.again:
                way.after({t: v.detach() for t, v in toy.losses().items()})
        assert all(float(v.detach()) < before[t] for t, v in toy.losses().items())

    def test_what_it_learned_is_saved(self, name: str, options: dict[str, Any]) -> None:
        way, other = build(name, **options), build(name, **options)
        for p in way.state_dict().values():
            p += 0.3
        other.load_state_dict(way.state_dict())
        assert all(
            torch.equal(a, b)
            for a, b in zip(way.state_dict().values(), other.state_dict().values(), strict=True)
        )
        assert torch.equal(stepped(way).w.grad, stepped(other).w.grad)
