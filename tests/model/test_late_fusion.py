"""Votes of parts by themselves, against their equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from plait.model.late_fusion import BEFORE, Votes
from plait.recipe import registry
from plait.tasks.base import Task, fit_temperature
from support.models import build

TARGETS = {
    "classification": ["a", "b", "c"] * 100,
    "two": ["a", "b"] * 150,
    "multilabel": [["a"], ["a", "b"], ["c"]] * 100,
}


def task(kind: str) -> Task:
    """A task of logits, fitted on some labels."""
    found = registry.find("tasks", "classification" if kind == "two" else kind)
    return found.fit(found.options(), pa.chunked_array([pa.array(TARGETS[kind])]), "t")


def rows(kind: str, count: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Fused logits that know a little, those of a good column and of one that is sure of nonsense,
    where each is there, and the truth.
    """
    g = torch.Generator().manual_seed(seed)
    width = {"classification": 3, "two": 1, "multilabel": 3}[kind]
    if kind == "multilabel":
        y = (torch.rand(count, 3, generator=g) < 0.5).float()
        signal = y * 2 - 1
    else:
        y = torch.randint(0, 3 if width == 3 else 2, (count,), generator=g)
        signal = torch.nn.functional.one_hot(y, 3).float() if width == 3 else (y * 2 - 1)[:, None].float()
    noise = [torch.randn(count, width, generator=g) for _ in range(3)]
    own = {"good": 2 * signal + 1.5 * noise[0], "sure": 30 * noise[1]}
    present = {"good": torch.rand(count, generator=g) < 0.8, "sure": torch.rand(count, generator=g) < 0.9}
    return signal + 2 * noise[2], own, present, y


def probabilities(kind: str, logits: np.ndarray) -> np.ndarray:
    if kind == "classification":
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("kind", list(TARGETS))
def test_an_answer_is_the_mean_of_the_fused_one_and_of_the_product_of_the_parts(kind: str) -> None:
    fused, own, present, _ = rows(kind, 50)
    own["sure"] = own["sure"] / 10  # of what is surer one minus the probability is no number
    votes = Votes(["good", "sure"])
    votes.trust_P.copy_(torch.tensor([0.5, 0.1]))
    votes.share.fill_(0.3)
    found = probabilities(kind, votes.mixed(task(kind), fused, own, present).double().numpy())
    a, b = (probabilities(kind, own[c].double().numpy()) for c in ("good", "sure"))
    product, rest = a**0.5 * b**0.1, (1 - a) ** 0.5 * (1 - b) ** 0.1
    voted = product / (product.sum(1, keepdims=True) if kind == "classification" else product + rest)
    alone = probabilities(kind, fused.double().numpy())
    both = (present["good"] & present["sure"]).numpy()
    assert 5 < both.sum() < 50
    np.testing.assert_allclose(found[both], (0.7 * alone + 0.3 * voted)[both], atol=1e-5)
    np.testing.assert_allclose(found[~both], alone[~both], atol=1e-6)


@pytest.mark.parametrize("kind", list(TARGETS))
def test_what_is_sure_of_nonsense_is_hardly_trusted_and_the_share_is_the_most_likely_one(kind: str) -> None:
    made, (fused, own, present, y) = task(kind), rows(kind, 300)
    votes = Votes(["good", "sure"])
    votes.calibrate(made, fused, own, present, y)
    good, sure = (1 / fit_temperature(made, own[c][present[c]], y[present[c]]) for c in ("good", "sure"))
    torch.testing.assert_close(votes.trust_P, torch.tensor([good, sure]))
    assert good > 0.4
    assert sure < 0.1
    both = present["good"] & present["sure"]

    def cost(share: float) -> float:
        votes.share.fill_(share)
        loss = float(made.loss(votes.mixed(made, fused, own, present), y, both))
        return float(both.sum()) * loss - BEFORE / 2 * (np.log(share) + np.log(1 - share))

    chosen = float(votes.share)
    assert cost(chosen) <= min(cost(s) for s in np.linspace(0.01, 0.99, 99)) + 1e-3
    assert 0.5 < chosen < 1, "the good column knows more than the fused answer"
    fresh, own_fresh, there, truth = rows(kind, 2000, seed=1)
    votes.share.fill_(chosen)
    everywhere = torch.ones(2000, dtype=torch.bool)
    assert made.loss(votes.mixed(made, fresh, own_fresh, there), truth, everywhere) < 0.9 * made.loss(
        fresh, truth, everywhere
    )


def test_few_rows_decide_little_or_nothing() -> None:
    made, (fused, own, present, y) = task("classification"), rows("classification", 300)
    shares = []
    for count in (15, 40, 300):
        votes = Votes(["good", "sure"])
        votes.calibrate(made, fused[:count], first(own, count), first(present, count), y[:count])
        shares.append(float(votes.share))
    assert shares[0] == 0.0, "too few rows for temperatures"
    assert 0.4 < shares[1] < shares[2] < 1
    rare = {**present, "sure": present["sure"] & (torch.arange(300) < 12)}
    votes = Votes(["good", "sure"])
    votes.calibrate(made, fused, own, rare, y)
    assert [float(votes.trust_P[1]), float(votes.share)] == [0, 0], "hardly a row has both"


def first(some: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    return {c: x[:count] for c, x in some.items()}


def test_a_row_without_a_part_to_be_trusted_keeps_its_answer() -> None:
    made, (fused, own, present, _) = task("classification"), rows("classification", 50)
    votes = Votes(["good", "sure", "rare"])
    votes.trust_P.copy_(torch.tensor([0.5, 0.0, 0.0]))
    votes.share.fill_(0.5)
    whole = {**present, "rare": torch.ones(50, dtype=torch.bool)}
    found = votes.mixed(made, fused, {**own, "rare": own["sure"]}, whole)
    kept = ~present["good"]
    assert kept.any()
    assert torch.equal(found[kept], fused[kept])
    assert not torch.isclose(found[~kept], fused[~kept]).all(1).any()


def test_a_model_answers_with_its_parts_votes_once_it_is_calibrated() -> None:
    model, batch = build()
    encoded = model.encode(batch)
    before = model.predict_hidden(encoded, batch.present)["label"]
    torch.testing.assert_close(
        before, model(batch)["label"], msg="nothing votes before validation rows were seen"
    )
    votes: Any = model.votes_for("label")
    votes.share.fill_(0.4)
    made, own = model.task("label"), model.own(encoded)["label"]
    found = model.predict_hidden(encoded, batch.present)["label"]
    torch.testing.assert_close(found, votes.mixed(made, before, own, batch.present))
    several = batch.present["one"] & batch.present["two"]
    assert torch.equal(found[~several], before[~several])
    assert not torch.allclose(found[several], before[several])
    hidden = replace(batch, present={**batch.present, "two": torch.zeros(8, dtype=torch.bool)}).present
    before = model.fuse(model.hide(encoded, hidden), hidden, columns=["one"])["label"]
    torch.testing.assert_close(model.predict_hidden(encoded, hidden, ["one"])["label"], made(before, encoded))
