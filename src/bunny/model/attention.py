"""Attention over packed rows: each segment is causal in itself and sees its prefix, nothing else.

On a GPU by FlexAttention (one fused kernel that skips the blocks nobody sees), elsewhere segment by segment by
PyTorch's own kernels. Registered with transformers' attention interface, so every language model that uses it takes
part unchanged. The segments travel in place of the attention mask, as a (1, 1, S, 4) tensor: transformers hands a
four-dimensional mask through every model as it is, and it survives recomputation under activation checkpointing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "bunny_packed"

_MASKS: WeakKeyDictionary[Tensor, dict[tuple[int | None, torch.device], BlockMask]] = WeakKeyDictionary()
"""Block masks of the segments at hand; they go with them."""


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precisions, else the type itself."""
    return torch.promote_types(dtype, torch.float32)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The segments say who sees whom: transformers need not build a mask."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention per segment.

    query: (1, heads, T, d); key, value: (1, key heads, T, d). attention_mask: (1, 1, S, 4) int64, a row per segment:
    start, end, prefix start, prefix end in token positions, covering 0…T in order. sliding_window: positions that a
    position sees, itself included (Phi-3, Gemma). softcap: scores are bent to stay below it (Gemma-2).
    Returns (1, T, heads, d).
    """
    if attention_mask is None or attention_mask.shape[-1] != 4:
        raise ValueError("packed attention needs the segments, (1, 1, S, 4), in place of the attention mask")
    if query.is_cuda and not dropout:
        return flexible(query, key, value, attention_mask, scaling, sliding_window, softcap, _compiled()), None
    outputs = []
    for start, end, prefix_start, prefix_end in attention_mask[0, 0].tolist():
        keys, values = key[:, :, start:end], value[:, :, start:end]
        if prefix_end > prefix_start:
            keys = torch.cat([key[:, :, prefix_start:prefix_end], keys], dim=2)
            values = torch.cat([value[:, :, prefix_start:prefix_end], values], dim=2)
        part = query[:, :, start:end]
        seen = _seen(part.shape[2], keys.shape[2], sliding_window, query.device)
        if softcap:
            outputs.append(_capped(part, keys, values, seen, scaling, dropout, softcap))
            continue
        outputs.append(
            nn.functional.scaled_dot_product_attention(
                part,
                keys,
                values,
                attn_mask=seen,
                dropout_p=dropout,
                is_causal=seen is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _seen(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
    """(queries, keys) bool: what each position sees; the queries are the last of the keys. None: plainly causal."""
    far = window is not None and keys > window
    if queries == keys and not far:
        return None
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return seen.triu(keys - queries - window + 1) if far and window else seen


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float,
) -> Tensor:
    """Attention with bent scores, which no fused kernel offers: (1, heads, queries, d)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if seen is None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = nn.functional.softmax(scores, dim=-1, dtype=at_least_float32(query.dtype)).to(query.dtype)
    return nn.functional.dropout(weights, p=dropout) @ value


def flexible(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    kernel: Callable[..., Tensor] = flex_attention,
) -> Tensor:
    """The same by FlexAttention; arguments and result as `packed_attention`'s. kernel: compiled or not."""
    mask = _block_mask(segments, query.shape[2], sliding_window, query.device)
    bend = functools.partial(_bent, softcap) if softcap else None
    grouped = query.shape[1] != key.shape[1]
    out = kernel(query, key, value, score_mod=bend, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


def _bent(cap: float, score: Tensor, *_: Tensor) -> Tensor:
    return cap * torch.tanh(score / cap)


def _block_mask(segments: Tensor, tokens: int, window: int | None, device: torch.device) -> BlockMask:
    """Who sees whom. Made once for a pass: all layers of a kind bring the same segments."""
    known: dict[tuple[int | None, torch.device], BlockMask] = _MASKS.setdefault(segments, {})
    if (window, device) not in known:
        rows = segments[0, 0].to(device)
        lengths = rows[:, 1] - rows[:, 0]
        start, _, prefix, prefix_end = torch.repeat_interleave(rows, lengths, dim=0).unbind(1)  # (T,) each
        place = torch.arange(tokens, device=device)
        position = place - start + prefix_end - prefix

        def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            own = (k >= start[q]) & (k <= q)
            seen = own | ((k >= prefix[q]) & (k < prefix_end[q]))
            return seen if window is None else seen & (position[q] - position[k] < window)

        known[window, device] = create_block_mask(sees, None, None, tokens, tokens, device=str(device))
    return known[window, device]


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """The fused kernel; uncompiled, FlexAttention would hold all scores. Every pass has another length."""
    return torch.compile(flex_attention, dynamic=True)  # type: ignore[no-any-return]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
