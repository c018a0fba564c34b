"""Late fusion, against its equations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from plait.tasks.base import Outputs, tasks
from plait.tasks.base_prediction import PRIOR_ROWS, LateFusion, Prediction, fit_temperature

TARGETS = {
    "classification": ["a", "b", "c"] * 100,
    "two": ["a", "b"] * 150,
    "multilabel": [["a"], ["a", "b"], ["c"]] * 100,
}


def task(kind: str) -> Prediction:
    """A task of logits, fitted on some labels."""
    found = tasks.find("classification" if kind == "two" else kind)
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
def test_answers_mix_fusion_and_the_product_of_blocks(kind: str) -> None:
    fused, own, present, _ = rows(kind, 50)
    own["sure"] = own["sure"] / 10  # of what is surer one minus the probability is no number
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.inverse_temperature_P.copy_(torch.tensor([0.5, 0.1]))
    late_fusion.mixture_weight.fill_(0.3)
    found = probabilities(kind, late_fusion(task(kind), Outputs(fused, own, present)).double().numpy())
    a, b = (probabilities(kind, own[c].double().numpy()) for c in ("good", "sure"))
    product, rest = a**0.5 * b**0.1, (1 - a) ** 0.5 * (1 - b) ** 0.1
    voted = product / (product.sum(1, keepdims=True) if kind == "classification" else product + rest)
    alone = probabilities(kind, fused.double().numpy())
    both = (present["good"] & present["sure"]).numpy()
    assert 5 < both.sum() < 50
    np.testing.assert_allclose(found[both], (0.7 * alone + 0.3 * voted)[both], atol=1e-5)
    np.testing.assert_allclose(found[~both], alone[~both], atol=1e-6)


@pytest.mark.parametrize("kind", list(TARGETS))
def test_blocks_sure_of_nonsense_are_hardly_trusted(kind: str) -> None:
    made, (fused, own, present, y) = task(kind), rows(kind, 300)
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.calibrate(made, Outputs(fused, own, present), y)
    good, sure = (1 / fit_temperature(made, own[c][present[c]], y[present[c]]) for c in ("good", "sure"))
    torch.testing.assert_close(late_fusion.inverse_temperature_P, torch.tensor([good, sure]))
    assert good > 0.4
    assert sure < 0.1
    both = present["good"] & present["sure"]

    def cost(share: float) -> float:
        late_fusion.mixture_weight.fill_(share)
        loss = float(made.loss(late_fusion(made, Outputs(fused, own, present)), y, both))
        return float(both.sum()) * loss - PRIOR_ROWS / 2 * (np.log(share) + np.log(1 - share))

    chosen = float(late_fusion.mixture_weight)
    assert cost(chosen) <= min(cost(s) for s in np.linspace(0.01, 0.99, 99)) + 1e-3
    assert 0.5 < chosen < 1, "the good column knows more than the fused answer"
    fresh, own_fresh, there, truth = rows(kind, 2000, seed=1)
    late_fusion.mixture_weight.fill_(chosen)
    everywhere = torch.ones(2000, dtype=torch.bool)
    assert made.loss(
        late_fusion(made, Outputs(fresh, own_fresh, there)), truth, everywhere
    ) < 0.9 * made.loss(fresh, truth, everywhere)


def test_few_rows_decide_little_or_nothing() -> None:
    made, (fused, own, present, y) = task("classification"), rows("classification", 300)
    shares = []
    for count in (15, 40, 300):
        late_fusion = LateFusion(["good", "sure"])
        late_fusion.calibrate(
            made, Outputs(fused[:count], first(own, count), first(present, count)), y[:count]
        )
        shares.append(float(late_fusion.mixture_weight))
    assert shares[0] == 0.0, "too few rows for temperatures"
    assert 0.4 < shares[1] < shares[2] < 1
    rare = {**present, "sure": present["sure"] & (torch.arange(300) < 12)}
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.calibrate(made, Outputs(fused, own, rare), y)
    assert [float(late_fusion.inverse_temperature_P[1]), float(late_fusion.mixture_weight)] == [0, 0], (
        "hardly a row has both"
    )


def first(some: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    return {c: x[:count] for c, x in some.items()}


def test_a_row_without_a_trusted_block_keeps_its_answer() -> None:
    made, (fused, own, present, _) = task("classification"), rows("classification", 50)
    late_fusion = LateFusion(["good", "sure", "rare"])
    late_fusion.inverse_temperature_P.copy_(torch.tensor([0.5, 0.0, 0.0]))
    late_fusion.mixture_weight.fill_(0.5)
    whole = {**present, "rare": torch.ones(50, dtype=torch.bool)}
    found = late_fusion(made, Outputs(fused, {**own, "rare": own["sure"]}, whole))
    kept = ~present["good"]
    assert kept.any()
    assert torch.equal(found[kept], fused[kept])
    assert not torch.isclose(found[~kept], fused[~kept]).all(1).any()
