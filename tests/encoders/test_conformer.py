"""The attention of a conformer, against the equations of its papers."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from plait.encoders.conformer import RelativeAttention, distances


def test_attention_knows_how_far_two_steps_are_apart() -> None:
    """A_ts = (q_t k_s + q_t W r_(t-s) + u k_s + v W r_(t-s)) / sqrt(d) (Dai et al. 2019, sec. 3.3)."""
    torch.manual_seed(0)
    attention = RelativeAttention(8, 2, 0.0).eval()
    torch.nn.init.normal_(attention.u_HE)
    torch.nn.init.normal_(attention.v_HE)
    x, mask = torch.randn(1, 5, 8), torch.tensor([[True, True, True, True, False]])
    projected = attention.query_key_value(attention.norm(x))[0]
    query, key, values = (of_heads.unflatten(-1, (2, 4)) for of_heads in projected.chunk(3, -1))
    sinusoids = distances(5, 8, x.device)
    expected = torch.zeros(5, 2, 4)
    for head in range(2):
        for t in range(5):
            scores = []
            for s in range(4):
                r = attention.distance(sinusoids[4 - (t - s)]).unflatten(-1, (2, 4))[head]
                q, k = query[t, head], key[s, head]
                u, v = attention.u_HE[head], attention.v_HE[head]
                scores.append((q @ k + q @ r + u @ k + v @ r) / math.sqrt(4))
            expected[t, head] = torch.stack(scores).softmax(0) @ values[:4, head]
    torch.testing.assert_close(attention(x, mask)[0], attention.out(expected.flatten(1)))


def test_distances_are_the_sines_of_their_number() -> None:
    sinusoids = distances(3, 4, torch.device("cpu"))
    for row, distance in enumerate((2, 1, 0, -1, -2)):
        angle = torch.tensor([distance * 1.0, distance / 100.0])
        torch.testing.assert_close(sinusoids[row], torch.cat([angle.sin(), angle.cos()]))
    assert F.cosine_similarity(sinusoids[0], sinusoids[4], dim=0) < 1, "before and after differ"
