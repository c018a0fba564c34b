"""Layers, against their equations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from plait.nn.layers import BiLSTM, Dropout, MaskedBatchNorm, SetAttention


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_dropout_drops_entries_independently(p: float) -> None:
    torch.manual_seed(0)
    module, x = Dropout(p), torch.rand(1000, 1003).requires_grad_()
    dropped = module(x)
    is_zero = (dropped == 0).double()
    error = 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert abs(float(is_zero.mean()) - p) < error + 1 / 65_536
    for step in (1, 2, 3, 4):  # four entries share a random number
        both_are_zero = is_zero.flatten()[:-step] * is_zero.flatten()[step:]
        assert abs(float(both_are_zero.mean()) - p * p) < 2 * error
    assert torch.allclose(dropped[dropped != 0], x[dropped != 0] / (1 - p), rtol=1e-3)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, dropped == 0)


def test_dropout_is_seeded_and_only_in_training() -> None:
    x = torch.rand(3, 5, 7)
    for module in (Dropout(0.3), Dropout(0.9999999)):
        torch.manual_seed(1)
        once = module(x)
        torch.manual_seed(1)
        assert torch.equal(module(x), once)
        assert torch.isfinite(once).all()
        assert module.eval()(x) is x
    assert Dropout(0.3)(x.bfloat16()).dtype == torch.bfloat16
    assert Dropout(0.3)(x[:0]).shape == (0, 5, 7)
    assert Dropout(0.0)(x) is x
    assert not Dropout(1.0)(x).any()


def test_masked_batch_norm_is_batch_norm_of_the_valid_steps() -> None:
    x, length = torch.randn(5, 3, 7, 4) * 2 + 1, torch.tensor([7, 3, 1, 5, 7])
    mask = torch.arange(7) < length[:, None]
    masked, plain = MaskedBatchNorm(3), nn.BatchNorm1d(3)
    valid = x.permute(0, 2, 3, 1)[mask].reshape(-1, 3)
    normalised = masked(x, mask).permute(0, 2, 3, 1)
    valid_steps = normalised[mask].reshape(-1, 3)
    assert not normalised[~mask].any()
    assert torch.allclose(valid_steps, plain(valid), atol=1e-5)
    assert torch.allclose(masked.norm.running_mean, plain.running_mean, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(masked.norm.running_var, plain.running_var, atol=1e-5)  # type: ignore[arg-type]

    masked.eval()
    plain.eval()
    normalised = masked(x, mask).permute(0, 2, 3, 1)
    assert torch.allclose(normalised[mask].reshape(-1, 3), plain(valid), atol=1e-5)


def test_gradients_of_masked_batch_norm_follow_its_equation() -> None:
    """In torch 2.13, batch normalisation has wrong gradients for some strides, in both precisions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 9, 5, generator=generator) * 2 + 1
    upstream = torch.randn(6, 4, 9, 5, generator=generator)
    for length in (torch.full((6,), 9), torch.tensor([9, 3, 1, 5, 7, 9])):
        mask = torch.arange(9) < length[:, None]
        weight = upstream * mask[:, None, :, None]
        exact = x.double().requires_grad_()
        valid = exact.permute(0, 2, 3, 1)[mask].reshape(-1, 4)
        normed = (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt()
        (normed * weight.double().permute(0, 2, 3, 1)[mask].reshape(-1, 4)).sum().backward()
        assert exact.grad is not None
        for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
            leaf = x.to(dtype, copy=True).requires_grad_()
            (MaskedBatchNorm(4)(leaf, mask) * weight.to(dtype)).sum().backward()
            assert leaf.grad is not None
            assert torch.allclose(leaf.grad.double(), exact.grad, atol=close), dtype


def test_set_attention_is_its_equation_in_any_order() -> None:
    module, x = SetAttention(6), torch.randn(3, 4, 6)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    pooled = module(x, mask)
    v, w = module.score[0], module.score[2]
    for row, count in ((0, 4), (1, 2)):
        scores = torch.stack([w.weight[0] @ torch.tanh(v.weight @ h + v.bias) for h in x[row, :count]])
        assert torch.allclose(pooled[row], (scores.softmax(0)[:, None] * x[row, :count]).sum(0), atol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(module(x[:1, order], mask[:1, order]), pooled[:1], atol=1e-5)
    assert torch.isfinite(pooled).all()


def test_both_directions_are_those_of_a_packed_lstm() -> None:
    torch.manual_seed(0)
    bilstm = BiLSTM(5, 3, layers=2)
    packed_lstm = nn.LSTM(5, 3, 2, batch_first=True, bidirectional=True)
    for layer in range(2):
        for lstm, suffix in ((bilstm.ahead[layer], ""), (bilstm.back[layer], "_reverse")):
            for name, parameter in lstm.named_parameters():
                parameter.data = getattr(packed_lstm, f"{name[:-1]}{layer}{suffix}").data

    x, length = torch.randn(4, 7, 5), torch.tensor([7, 1, 4, 6])
    packed, (last, _) = packed_lstm(pack_padded_sequence(x, length, batch_first=True, enforce_sorted=False))
    expected = pad_packed_sequence(packed, batch_first=True)[0]
    states, ends = bilstm(x, length)
    for row, steps in enumerate(length.tolist()):
        torch.testing.assert_close(states[row, :steps], expected[row, :steps])
    torch.testing.assert_close(ends, last[-2:].transpose(0, 1).flatten(1))
