"""Attention over packed rows: each segment is causal in itself and sees its prefix, nothing else.

Registered with transformers' attention interface, so every language model that uses it takes part unchanged. The
segments travel in place of the attention mask, as a (1, 1, S, 4) tensor: transformers hands a four-dimensional mask
through every model as it is, and it survives recomputation under activation checkpointing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "bunny_packed"


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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention per segment.

    query: (1, heads, T, d); key, value: (1, key heads, T, d). attention_mask: (1, 1, S, 4) int64, a row per segment:
    start, end, prefix start, prefix end in token positions, covering 0…T in order. Returns (1, T, heads, d).
    """
    if attention_mask is None or attention_mask.shape[-1] != 4:
        raise ValueError("packed attention needs the segments, (1, 1, S, 4), in place of the attention mask")
    outputs = []
    for start, end, prefix_start, prefix_end in attention_mask[0, 0].tolist():
        keys, values = key[:, :, start:end], value[:, :, start:end]
        mask = None
        if prefix_end > prefix_start:
            keys = torch.cat([key[:, :, prefix_start:prefix_end], keys], dim=2)
            values = torch.cat([value[:, :, prefix_start:prefix_end], values], dim=2)
            seen = torch.ones(end - start, keys.shape[2], dtype=torch.bool, device=query.device)
            mask = seen.tril(prefix_end - prefix_start)
        outputs.append(
            nn.functional.scaled_dot_product_attention(
                query[:, :, start:end],
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
