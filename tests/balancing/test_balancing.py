"""Each way of balancing, against its paper's equations, on two losses of a few parameters that pull apart.

tests/contract/test_balancing.py has what holds for all of them.
"""

from __future__ import annotations

import sys
from typing import cast

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torchjd import scalarization

from plait.balancing.base import Balancing, Share
from plait.errors import RecipeError
from plait.nn.layers import module_key
from support.balancing import UNIT_SHARES, Toy, build, stepped


def log_variance(balancing: Balancing, target: str) -> torch.Tensor:
    scalarizers = cast(nn.ModuleDict, balancing.scalarizers)
    return cast(torch.Tensor, scalarizers[module_key(target)].log_var)


def test_equal_adds_losses_in_units_of_the_baseline_times_weight() -> None:
    toy, gradients = stepped(build("equal")), Toy().gradients()
    np.testing.assert_allclose(toy.w.grad, 2.0 / 4.0 * gradients[0] + 1.0 / 0.5 * gradients[1], rtol=1e-5)
    np.testing.assert_allclose(toy.own["a"].grad, 2.0 / 4.0 * 2.0, rtol=1e-5)


class TestUncertainty:
    def test_it_is_kendalls(self) -> None:
        """L = e^-s L_a + s/2 for a class, e^-s/2 L_b + s/2 for a number (eq. 7, 10), times the weights."""
        balancing = build("uncertainty")
        nn.init.constant_(log_variance(balancing, "a"), 0.3)
        nn.init.constant_(log_variance(balancing, "b"), -0.4)
        toy, gradients, loss = stepped(balancing), Toy().gradients(), Toy().values()
        factor_a, factor_b = 2 * np.exp(-0.3), 0.5 * np.exp(0.4)
        expected = factor_a * gradients[0] + factor_b * gradients[1]
        np.testing.assert_allclose(toy.w.grad, expected, rtol=1e-5)

        expected_a = 2 * (-np.exp(-0.3) * loss["a"] + 0.5)
        expected_b = -0.5 * np.exp(0.4) * loss["b"] + 0.5
        np.testing.assert_allclose(log_variance(balancing, "a").grad, expected_a, rtol=1e-5)
        np.testing.assert_allclose(log_variance(balancing, "b").grad, expected_b, rtol=1e-5)

    def test_it_begins_at_the_loss_of_the_baseline(self) -> None:
        balancing = build("uncertainty")
        assert float(log_variance(balancing, "a").detach().exp()) == pytest.approx(4.0)
        assert float(log_variance(balancing, "b").detach().exp()) == pytest.approx(0.5)

    def test_it_ends_where_the_variance_is_the_loss(self) -> None:
        """At its minimum in s, e^s = 2 L of a class and L of a number: losses then weigh the same, whatever
        their unit.
        """
        balancing = build("uncertainty", {"a": Share(), "b": Share(squared=True)})
        optimizer = torch.optim.Adam(balancing.parameters(), lr=0.05)
        for _ in range(800):
            optimizer.zero_grad()
            balancing.backward({"a": torch.tensor(30.0), "b": torch.tensor(0.02)}, [])
            balancing.finish([])
            optimizer.step()
        assert float(log_variance(balancing, "a").detach().exp()) == pytest.approx(60.0, rel=0.02)
        assert float(log_variance(balancing, "b").detach().exp()) == pytest.approx(0.02, rel=0.02)


class TestFAMO:
    w = (0.4, -0.2)

    def build(self) -> Balancing:
        balancing = build("famo", UNIT_SHARES)
        balancing.load_state_dict({"w": torch.tensor(self.w)})
        return balancing

    def test_it_is_algorithm_1(self) -> None:
        balancing = self.build()
        toy, gradients = stepped(balancing), Toy().gradients()
        loss = np.array(list(Toy().values().values()))
        z = np.exp(self.w) / np.exp(self.w).sum()
        c = 1 / (z / loss).sum()
        np.testing.assert_allclose(toy.w.grad, c * (z / loss) @ gradients, rtol=1e-4)

        balancing.after({"a": torch.tensor(loss[0] * 0.5), "b": torch.tensor(loss[1] * 0.9)})
        fall = np.log([1 / 0.5, 1 / 0.9])
        jacobian = np.diag(z) - np.outer(z, z)
        expected = np.array(self.w) - 0.025 * (jacobian @ fall + 0.001 * np.array(self.w))
        w = balancing.state_dict()["w"]
        np.testing.assert_allclose(w, expected, rtol=1e-4)
        assert w[0] < self.w[0], "what fell fast is worth less"

    def test_its_gradient_is_torchjds(self) -> None:
        """Where a batch has labels of all targets, and these have no weights (see docs/decisions/0001)."""
        toy, reference = Toy(), scalarization.FAMO(2)
        reference(torch.stack(list(toy.losses().values()))).backward()
        assert toy.w.grad is not None
        torch.testing.assert_close(stepped(build("famo", UNIT_SHARES)).w.grad, toy.w.grad)

    def test_a_target_without_label_keeps_its_weight(self) -> None:
        balancing, toy = self.build(), Toy()
        balancing.backward({"b": toy.losses()["b"]}, [toy.w])
        balancing.after({"b": toy.losses()["b"] * 0.5})
        assert float(balancing.state_dict()["w"][0]) == pytest.approx(self.w[0])


def direction(method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the direction for unit shares (3,), and the gradients (2, 3)."""
    toy = stepped(build("gradient", UNIT_SHARES, method=method))

    # A parameter that only one target depends on gets that target's gradient.
    np.testing.assert_allclose(toy.own["a"].grad, 2.0, rtol=1e-5)
    assert toy.w.grad is not None
    return toy.w.grad.numpy().astype(float), Toy().gradients()


class TestGradient:
    def test_the_toy_pulls_apart(self) -> None:
        gradients = Toy().gradients()
        assert gradients[0] @ gradients[1] < 0

    def test_upgrad_projects_each_gradient_to_where_no_loss_grows(self) -> None:
        """The nearest point to g_i with J x >= 0, by a solver that is asked just that (Quinton & Rey 2024,
        eq. 3), summed over targets.
        """
        summed, J = direction("upgrad")
        no_loss_grows = {"type": "ineq", "fun": lambda x: J @ x}
        expected = np.zeros(3)
        for g in J:
            nearest = minimize(lambda x, g=g: ((x - g) ** 2).sum(), g, constraints=no_loss_grows, tol=1e-12)
            expected += nearest.x
        np.testing.assert_allclose(summed, expected, rtol=1e-3, atol=1e-3)
        assert (J @ summed >= -1e-3).all()

    def test_pcgrad_takes_from_each_what_is_against_the_other(self) -> None:
        """g_i - (g_i . g_j / |g_j|^2) g_j where they conflict, added up (Yu et al. 2020, algorithm 1)."""
        summed, (a, b) = direction("pcgrad")
        expected = (a - a @ b / (b @ b) * b) + (b - a @ b / (a @ a) * a)
        np.testing.assert_allclose(summed, expected, rtol=1e-4)

    def test_mgda_is_the_shortest_convex_combination(self) -> None:
        summed, (a, b) = direction("mgda")
        share = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)  # Sener & Koltun 2018, eq. 4 with two tasks
        np.testing.assert_allclose(summed / 2, share * a + (1 - share) * b, rtol=1e-2, atol=1e-2)

    def test_cagrad_is_the_best_for_the_worst_within_a_ball(self) -> None:
        """argmax_d min_i g_i . d with |d - g_0| <= c |g_0| (Liu et al. 2021, eq. 3)."""
        summed, J = direction("cagrad")
        mean = J.mean(0)
        radius = 0.5 * np.linalg.norm(mean)
        ball = {"type": "ineq", "fun": lambda d: radius**2 - ((d[:3] - mean) ** 2).sum()}
        above = {"type": "ineq", "fun": lambda d: J @ d[:3] - d[3]}
        best = minimize(lambda d: -d[3], [*mean, (J @ mean).min()], constraints=[ball, above], tol=1e-12).x
        np.testing.assert_allclose(summed / 2, best[:3], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("name", "module"), [("uncertainty", "scalarization"), ("gradient", "aggregation")])
def test_a_missing_torchjd_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"torchjd.{module}", None)
    with pytest.raises(RecipeError, match=rf"'{name}' needs torchjd: pip install 'plait\[balancing\]'"):
        build(name)
