"""Attention of many rows to one copy of what they begin with: nothing is repeated in memory, row by row.

In: the cache of G beginnings, how many rows go on from each. Out: a cache for these rows, which `generate` extends and
reorders as any other; its layers keep what is the rows' own. Registered with transformers' attention interface, so
every language model that uses it takes part unchanged. Scores are computed in float32, whatever the model's type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import sdpa_mask

NAME = "bunny_shared"


class OwnLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """What B rows have of their own, behind G beginnings of S tokens.

    start_keys, start_values: (G, key heads, S, d). counts: rows of each beginning, in order; their sum is B.
    """

    def __init__(self, start_keys: Tensor, start_values: Tensor, counts: Sequence[int]) -> None:
        super().__init__()
        self.start_keys, self.start_values, self.counts = start_keys, start_values, list(counts)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        keys.behind = self  # travels through the model to `shared_attention`
        return keys, values

    def get_seq_length(self) -> int:
        return int(self.start_keys.shape[-2] + super().get_seq_length())


def behind(cache: Any, counts: Sequence[int]) -> Cache:
    """The cache of rows that go on from those in `cache`, `counts` of them from each."""
    return Cache(layers=[OwnLayer(layer.keys, layer.values, counts) for layer in cache.layers])


def shared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention to the beginning and to the row itself, under one softmax.

    query: (B, heads, Q, d); key, value: (B, key heads, K, d) of the rows alone, as `OwnLayer` returned them.
    attention_mask: (B, 1, Q, S + K) bool, or None if everything is seen. Returns (B, Q, heads, d).
    """
    layer: OwnLayer = key.behind  # type: ignore[attr-defined]
    heads, tokens = key.shape[1], query.shape[2]
    grouped = query.float().unflatten(1, (heads, -1)).flatten(2, 3)  # (B, key heads, heads per key head * Q, d)
    grouped = grouped * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    first = _each(layer, grouped, lambda some, n: some @ layer.start_keys[n].float().mT)
    scores = torch.cat([first, grouped @ key.float().mT], dim=-1)  # (B, key heads, …, S + K)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        shaped = scores.unflatten(2, (-1, tokens))
        shaped.masked_fill_(~attention_mask[:, :, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    length = first.shape[-1]
    out = _each(layer, weights[..., :length], lambda some, n: some @ layer.start_values[n].float())
    out = (out + weights[..., length:] @ value.float()).unflatten(2, (-1, tokens)).flatten(1, 2)  # (B, heads, Q, d)
    return out.to(query.dtype).transpose(1, 2).contiguous(), None


def _each(layer: OwnLayer, rows: Tensor, product: Callable[[Tensor, int], Tensor]) -> Tensor:
    """A product with the own beginning's matrix for rows (B, heads, N, k): the rows of one beginning in one piece."""
    made = []
    for number, some in enumerate(rows.split(layer.counts)):  # (b, heads, N, k)
        flat = some.transpose(0, 1).flatten(1, 2)  # (heads, b * N, k)
        made.append(product(flat, number).unflatten(1, (len(some), -1)).transpose(0, 1))
    return torch.cat(made)


AttentionInterface.register(NAME, shared_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
