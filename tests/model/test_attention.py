"""FlexAttention's view of packed rows equals the segment-by-segment one, which the fp64 proofs hold to padded rows."""

from __future__ import annotations

import pytest
import torch

from bunny.model.attention import flexible, packed_attention

SEGMENTS = [(0, 20, 0, 0), (20, 33, 0, 20), (33, 40, 0, 20), (40, 90, 40, 40), (90, 130, 90, 90), (130, 137, 90, 130)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_both_ways_of_attention_agree(window: int | None, softcap: float | None, key_heads: int) -> None:
    torch.manual_seed(0)
    tokens = SEGMENTS[-1][1]
    query = torch.randn(1, 4, tokens, 16)
    key, value = torch.randn(1, key_heads, tokens, 16), torch.randn(1, key_heads, tokens, 16)
    segments = torch.tensor(SEGMENTS)[None, None]
    wanted, _ = packed_attention(
        torch.nn.Identity(), query, key, value, segments, scaling=0.3, sliding_window=window, softcap=softcap
    )
    found = flexible(query, key, value, segments, 0.3, window, softcap)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 9])
def test_gradients_on_a_gpu_are_those_of_the_segments(window: int | None) -> None:
    torch.manual_seed(0)
    tokens = SEGMENTS[-1][1]
    parts = [torch.randn(1, heads, tokens, 64, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
    segments = torch.tensor(SEGMENTS)[None, None]
    fused, _ = packed_attention(torch.nn.Identity(), *parts, segments, sliding_window=window)
    wanted, _ = packed_attention(torch.nn.Identity(), *(part.cpu() for part in parts), segments, sliding_window=window)
    torch.testing.assert_close(fused.cpu(), wanted, rtol=1e-3, atol=1e-3)
    weights = torch.randn_like(wanted)
    found = torch.autograd.grad((fused * weights.cuda()).sum(), parts)
    for one, two in zip(found, torch.autograd.grad((wanted * weights).sum(), parts), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
