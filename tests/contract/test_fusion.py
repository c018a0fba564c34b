"""The contract of all fusions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plait.fusion.base import Fusion
from plait.nn.batch import Tokens
from support.components import component, component_names, configured
from support.gradients import assert_gradient, silent_parameters, weighted_sum
from support.options import assert_option_matters, options_of

WIDTHS = {"photo": 6, "a.title": 10, "keys": 4}
LENGTHS = {"photo": 9, "a.title": 5, "keys": 1}


def build_fusion(name: str, options: dict[str, Any] | None = None) -> Fusion:
    torch.manual_seed(0)
    fusion: Fusion = component("fusion", name).build(configured("fusion", name, options), WIDTHS)
    return fusion.eval()


def everywhere(rows: int) -> dict[str, torch.Tensor]:
    """All columns are present in all rows."""
    return {column: torch.ones(rows, dtype=torch.bool) for column in WIDTHS}


def random_tokens(present: dict[str, torch.Tensor]) -> dict[str, Tokens]:
    """Tokens of all columns, of other lengths in each row. A missing column has its stand-in token."""
    generator = torch.Generator().manual_seed(0)
    tokens = {}
    for column, width in WIDTHS.items():
        rows, length = len(present[column]), LENGTHS[column]
        x = torch.randn(rows, length, width, generator=generator)
        mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
        present_B = present[column][:, None]
        tokens[column] = Tokens(torch.where(present_B[..., None], x, 0.1), mask & present_B)
    return tokens


@pytest.mark.parametrize("name", component_names("fusion"))
class TestFusion:
    def test_gradients_are_those_of_small_steps(self, name: str) -> None:
        fusion, present = build_fusion(name).double().train(), everywhere(8)
        tokens = {c: Tokens(t.x_BLD.double(), t.mask_BL) for c, t in random_tokens(present).items()}
        assert_gradient(fusion, lambda: fusion(tokens, present))

    def test_every_subset_of_columns_is_finite(self, name: str) -> None:
        subsets = torch.tensor([[bool(i >> k & 1) for i in range(8)] for k in range(3)])
        present = dict(zip(WIDTHS, subsets, strict=True))
        fusion = build_fusion(name)
        fused = fusion(random_tokens(present), present)
        assert fused.shape == (8, fusion.width)
        assert torch.isfinite(fused).all()
        fused.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)
        assert len({tuple(row.tolist()) for row in fused.detach()}) >= 7, "two subsets give the same vector"

    def test_masked_tokens_have_no_effect(self, name: str) -> None:
        fusion, present = build_fusion(name), everywhere(8)
        tokens, noisy = random_tokens(present), {}
        for column, t in tokens.items():
            noisy[column] = Tokens(torch.where(t.mask_BL[..., None], t.x_BLD, 1e3), t.mask_BL)
        assert torch.allclose(fusion(tokens, present), fusion(noisy, present), atol=1e-5)

    def test_a_single_row_is_fused_as_among_eight(self, name: str) -> None:
        fusion, present = build_fusion(name), everywhere(8)
        tokens = random_tokens(present)
        row = {column: Tokens(t.x_BLD[3:4], t.mask_BL[3:4]) for column, t in tokens.items()}
        single = fusion(row, everywhere(1))
        assert torch.allclose(fusion(tokens, present)[3], single[0], atol=1e-5)

    def test_every_parameter_learns(self, name: str) -> None:
        fusion, present = build_fusion(name).train(), everywhere(64)
        tokens = random_tokens(present)
        assert not silent_parameters(fusion, lambda: weighted_sum(fusion(tokens, present)))


@pytest.mark.parametrize(("name", "option"), options_of("fusion"))
def test_every_fusion_option_changes_something(name: str, option: str) -> None:
    def outcome(options: dict[str, Any]) -> list[object]:
        fusion, present = build_fusion(name, options).train(), everywhere(8)
        torch.manual_seed(1)
        return [fusion(random_tokens(present), present)]

    assert_option_matters("fusion", name, option, outcome)
