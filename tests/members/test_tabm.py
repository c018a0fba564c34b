"""TabM: its arithmetic, its inputs, and what hiding does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from plait.data.features import FeatureBlock
from plait.members.base_tabm import StackedTabM
from plait.members.tabm import Inputs
from support.members import SEEN, TARGETS, make

FOLDS, MEMBERS, ROWS, OUTPUTS = 2, 3, 7, 4
CHUNKS = [5, 1, 2]


def network(depth: int = 2) -> StackedTabM:
    torch.manual_seed(0)
    stacked = StackedTabM(FOLDS, MEMBERS, CHUNKS, 6, depth, torch.randn(FOLDS, OUTPUTS), dropout=0.0)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stacked.eval()


def rows() -> Tensor:
    return torch.randn(FOLDS, ROWS, sum(CHUNKS), generator=torch.Generator().manual_seed(1))


def test_each_member_of_each_fold_is_a_network_of_its_own() -> None:
    stacked, x_FBD = network(), rows()
    outputs = stacked(x_FBD)
    for fold in range(FOLDS):
        for member in range(MEMBERS):
            hidden = x_FBD[fold]
            for layer in stacked.layers:
                weight = layer.r[fold, member].T * layer.weight[fold] * layer.s[fold, member]
                hidden = (hidden @ weight + layer.bias[fold, member]).relu()
            expected = hidden @ stacked.head[fold, member] + stacked.head_bias[fold, member]
            torch.testing.assert_close(outputs[fold, member], expected)


def test_no_rows_have_no_outputs() -> None:
    assert network()(rows()[:, :0]).shape == (FOLDS, MEMBERS, 0, OUTPUTS)


def test_rows_may_lie_in_memory_in_any_order() -> None:
    stacked, x_FBD = network(), rows()
    by_column = x_FBD.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(stacked(by_column), stacked(x_FBD))


def test_it_equals_the_authors_package_after_a_step() -> None:
    """Outputs, and weights after one step of AdamW by the mean loss of all members."""
    authors = pytest.importorskip("tabm", reason="the authors' package is not installed")
    stacked, x_FBD = network(), rows()
    fold = 1
    theirs = authors.TabM(
        n_num_features=sum(CHUNKS), d_out=OUTPUTS, k=MEMBERS, n_blocks=2, d_block=6, dropout=0.0,
        activation="ReLU", arch_type="tabm", start_scaling_init="normal",
    )  # fmt: skip
    with torch.no_grad():
        for ours, block in zip(stacked.layers, theirs.backbone.blocks, strict=True):
            block[0].weight.copy_(ours.weight[fold].T)
            block[0].r.copy_(ours.r[fold, :, 0])
            block[0].s.copy_(ours.s[fold, :, 0])
            block[0].bias.copy_(ours.bias[fold, :, 0])
        theirs.output.weight.copy_(stacked.head[fold])
        theirs.output.bias.copy_(stacked.head_bias[fold, :, 0])

    target = torch.randn(ROWS, OUTPUTS, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(stacked(x_FBD)[fold], theirs(x_FBD[fold]).transpose(0, 1))
    of_stack = torch.optim.AdamW(stacked.parameters(), 0.01)
    of_theirs = torch.optim.AdamW(theirs.parameters(), 0.01)
    (stacked(x_FBD)[fold] - target).square().mean().backward()
    (theirs(x_FBD[fold]) - target[:, None]).square().mean().backward()
    of_stack.step()
    of_theirs.step()
    torch.testing.assert_close(
        stacked(x_FBD)[fold], theirs(x_FBD[fold]).transpose(0, 1), rtol=1e-4, atol=1e-4
    )


def test_members_begin_apart_only_by_factors_of_whole_blocks() -> None:
    torch.manual_seed(0)
    stacked = StackedTabM(FOLDS, MEMBERS, CHUNKS, 6, 2, torch.zeros(FOLDS, OUTPUTS), dropout=0.0)
    first, second = stacked.layers
    assert torch.equal(first.r[..., :5], first.r[..., :1].expand(-1, -1, -1, 5))
    assert not torch.equal(first.r[:, 0], first.r[:, 1])
    assert torch.equal(second.r, torch.ones_like(second.r))
    assert torch.equal(first.bias[:, 0], first.bias[:, 1])


def blocks() -> list[FeatureBlock]:
    examples, _ = make(TARGETS)
    return examples.take(np.arange(SEEN)).blocks()


def test_inputs_are_bounded_and_flag_missing_cells() -> None:
    of_train = blocks()
    inputs = Inputs.of(of_train)
    far = [replace(block, reduced=block.reduced * 1000) for block in of_train]
    x = inputs(far)
    assert x.abs().max() <= 3
    missing = x[:, -len(of_train) :].bool().numpy()
    for number, block in enumerate(of_train):
        np.testing.assert_array_equal(missing[:, number], ~block.present)


def test_a_hidden_block_is_zero_and_flagged() -> None:
    of_train = blocks()
    inputs = Inputs.of(of_train)
    x = inputs(of_train)
    everything_hidden = inputs.hide(x[None], 1.0)[0]
    nothing_present = inputs([block.only([]) for block in of_train])
    torch.testing.assert_close(everything_hidden, nothing_present)
    torch.testing.assert_close(inputs.hide(x[None], 0.0)[0], x)
