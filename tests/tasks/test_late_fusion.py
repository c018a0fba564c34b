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
    """Return a task of logits, fitted on the labels of this kind."""
    task_class = tasks.find("classification" if kind == "two" else kind)
    labels = pa.chunked_array([pa.array(TARGETS[kind])])
    return task_class.fit(task_class.options(), labels, "t")


def rows(kind: str, count: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Return fused logits, unimodal logits, which rows have each block, and the target.

    The fused logits are weakly informative. The block `good` is informative, and the block `sure` is certain
    but random.
    """
    g = torch.Generator().manual_seed(seed)
    if kind == "multilabel":
        y = (torch.rand(count, 3, generator=g) < 0.5).float()
        signal = y * 2 - 1
    elif kind == "two":
        y = torch.randint(0, 2, (count,), generator=g)
        signal = (y * 2 - 1)[:, None].float()
    else:
        y = torch.randint(0, 3, (count,), generator=g)
        signal = torch.nn.functional.one_hot(y, 3).float()
    noise = [torch.randn(signal.shape, generator=g) for _ in range(3)]
    unimodal = {"good": 2 * signal + 1.5 * noise[0], "sure": 30 * noise[1]}
    present = {"good": torch.rand(count, generator=g) < 0.8, "sure": torch.rand(count, generator=g) < 0.9}
    fused = signal + 2 * noise[2]
    return fused, unimodal, present, y


def probabilities(kind: str, logits: np.ndarray) -> np.ndarray:
    if kind == "classification":
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("kind", list(TARGETS))
def test_answers_mix_fusion_and_the_product_of_blocks(kind: str) -> None:
    fused, unimodal, present, _ = rows(kind, 50)
    unimodal["sure"] = unimodal["sure"] / 10  # 1 - p of more certain logits would round to 0
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.inverse_temperature_P.copy_(torch.tensor([0.5, 0.1]))
    late_fusion.mixture_weight.fill_(0.3)
    output = late_fusion(task(kind), Outputs(fused, unimodal, present))
    mixed = probabilities(kind, output.double().numpy())

    good = probabilities(kind, unimodal["good"].double().numpy())
    sure = probabilities(kind, unimodal["sure"].double().numpy())
    product = good**0.5 * sure**0.1
    total = product.sum(1, keepdims=True)
    if kind != "classification":
        total = product + (1 - good) ** 0.5 * (1 - sure) ** 0.1
    late = product / total
    fused_p = probabilities(kind, fused.double().numpy())
    both = (present["good"] & present["sure"]).numpy()
    assert 5 < both.sum() < 50
    np.testing.assert_allclose(mixed[both], (0.7 * fused_p + 0.3 * late)[both], atol=1e-5)
    np.testing.assert_allclose(mixed[~both], fused_p[~both], atol=1e-6)


@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_certain_but_random_block_counts_little(kind: str) -> None:
    fitted, (fused, unimodal, present, y) = task(kind), rows(kind, 300)
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.calibrate(fitted, Outputs(fused, unimodal, present), y)
    inverse_temperature = {}
    for block, present_B in present.items():
        temperature = fit_temperature(fitted, unimodal[block][present_B], y[present_B])
        inverse_temperature[block] = 1 / temperature
    expected = torch.tensor(list(inverse_temperature.values()))
    torch.testing.assert_close(late_fusion.inverse_temperature_P, expected)
    assert inverse_temperature["good"] > 0.4
    assert inverse_temperature["sure"] < 0.1
    both = present["good"] & present["sure"]

    def cost(share: float) -> float:
        late_fusion.mixture_weight.fill_(share)
        loss = float(fitted.loss(late_fusion(fitted, Outputs(fused, unimodal, present)), y, both))
        return float(both.sum()) * loss - PRIOR_ROWS / 2 * (np.log(share) + np.log(1 - share))

    weight = float(late_fusion.mixture_weight)
    assert cost(weight) <= min(cost(s) for s in np.linspace(0.01, 0.99, 99)) + 1e-3
    assert 0.5 < weight < 1, "the good block says more than the fused answer"

    new_fused, new_unimodal, new_present, new_y = rows(kind, 2000, seed=1)
    late_fusion.mixture_weight.fill_(weight)
    everywhere = torch.ones(2000, dtype=torch.bool)
    mixed = late_fusion(fitted, Outputs(new_fused, new_unimodal, new_present))
    loss_of_fused = fitted.loss(new_fused, new_y, everywhere)
    assert fitted.loss(mixed, new_y, everywhere) < 0.9 * loss_of_fused


def test_few_rows_hardly_move_the_mixture_weight() -> None:
    fitted, (fused, unimodal, present, y) = task("classification"), rows("classification", 300)
    all_rows = Outputs(fused, unimodal, present)
    weights = []
    for count in (15, 40, 300):
        first_rows = torch.arange(count)
        late_fusion = LateFusion(["good", "sure"])
        late_fusion.calibrate(fitted, all_rows.take(first_rows), y[first_rows])
        weights.append(float(late_fusion.mixture_weight))
    assert weights[0] == 0.0, "too few rows for temperatures"
    assert 0.4 < weights[1] < weights[2] < 1

    # Hardly a row has both.
    rare = {**present, "sure": present["sure"] & (torch.arange(300) < 12)}
    late_fusion = LateFusion(["good", "sure"])
    late_fusion.calibrate(fitted, Outputs(fused, unimodal, rare), y)
    assert late_fusion.inverse_temperature_P[1] == 0
    assert late_fusion.mixture_weight == 0


def test_a_row_without_a_calibrated_block_keeps_its_answer() -> None:
    fitted, (fused, unimodal, present, _) = task("classification"), rows("classification", 50)
    late_fusion = LateFusion(["good", "sure", "rare"])
    late_fusion.inverse_temperature_P.copy_(torch.tensor([0.5, 0.0, 0.0]))
    late_fusion.mixture_weight.fill_(0.5)
    all_present = {**present, "rare": torch.ones(50, dtype=torch.bool)}
    output = late_fusion(fitted, Outputs(fused, {**unimodal, "rare": unimodal["sure"]}, all_present))
    is_unmixed = ~present["good"]
    assert is_unmixed.any()
    assert torch.equal(output[is_unmixed], fused[is_unmixed])
    assert not torch.isclose(output[~is_unmixed], fused[~is_unmixed]).all(1).any()
