"""What prompts have in common is read once: which beginnings to share, and one cache for rows of different lengths.

In: prompts (lists of ids), which of them show the same pictures. Out: a plan; from the cache of the beginnings, the
cache of all rows as if each had been read alone. Keys and values know their positions already, so a beginning may be
moved to wherever the row's left padding ends: behind it, rows look exactly as in any left-padded batch, without pads
in the middle, which a sliding window would count.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """Beginnings to read once.

    firsts: for each of G beginnings a row that has it. lengths: their tokens. owner: for each of B rows its beginning.
    rest: tokens at the end of each row that are read row by row; what lies before is copied from the beginning.
    """

    firsts: list[int]
    lengths: list[int]
    owner: list[int]
    rest: int


def plan(prompts: Sequence[list[int]], pictures: Sequence[Hashable]) -> Plan | None:
    """What to share between B prompts, or None if reading all of them whole costs no more.

    pictures: one name per prompt; equal for prompts that show the same pictures. The last token of a prompt is never
    shared: its logits are wanted.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, name in enumerate(pictures):
        groups.setdefault(name, []).append(row)
    members = list(groups.values())
    lengths = [_common([prompts[row] for row in rows]) for rows in members]
    owner = [0] * len(prompts)
    for number, rows in enumerate(members):
        for row in rows:
            owner[row] = number
    rest = max(len(prompt) - lengths[owner[row]] for row, prompt in enumerate(prompts))
    shared = len(members) * max(lengths) + len(prompts) * rest
    if not max(lengths) or shared >= len(prompts) * max(map(len, prompts)):
        return None
    return Plan([rows[0] for rows in members], lengths, owner, rest)


def _common(prompts: Sequence[list[int]]) -> int:
    """Length of the longest beginning of all prompts that leaves each at least one token."""
    low, high = min(prompts), max(prompts)  # what the first and last in order share, all share
    end = min(map(len, prompts)) - 1
    return next((place for place in range(end) if low[place] != high[place]), end)


def sharable(text_config: Any) -> bool:
    """Whether a language model remembers by keys and values alone; recurrent states cannot be cut and moved."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=text_config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def spread(cache: Any, made: Plan, prompt_lengths: Sequence[int]) -> None:
    """Turn the cache of G left-padded beginnings (G, heads, S, d) into that of B left-padded rows (B, heads, C, d).

    C: the longest prompt less `made.rest`. In a row's pads stand numbers that its mask hides.
    """
    have = max(made.lengths)  # S
    keep = max(prompt_lengths) - made.rest  # C
    lengths, owner = torch.tensor(made.lengths), torch.tensor(made.owner)
    own = torch.tensor(prompt_lengths) - made.rest  # (B,) tokens of each row that are copied
    place = torch.arange(keep) - (keep - own)[:, None]  # (B, C) position in the beginning; negative in pads
    source = ((have - lengths)[owner][:, None] + place).clamp(0, have - 1)
    for layer in cache.layers:
        rows, columns = owner.to(layer.keys.device)[:, None], source.to(layer.keys.device)
        layer.keys = layer.keys.transpose(1, 2)[rows, columns].transpose(1, 2)
        layer.values = layer.values.transpose(1, 2)[rows, columns].transpose(1, 2)


def beginnings(embeds: Tensor, made: Plan, prompt_lengths: Sequence[int]) -> dict[str, Tensor]:
    """Model inputs of the G beginnings, left-padded, from the input vectors (B, T, width) of all left-padded rows."""
    have, tokens = max(made.lengths), embeds.shape[1]
    ends = torch.tensor([tokens - prompt_lengths[row] for row in made.firsts]) + torch.tensor(made.lengths)  # (G,)
    place = (ends[:, None] + torch.arange(-have, 0)).clamp(min=0)  # (G, S)
    mask = (torch.arange(have) >= have - torch.tensor(made.lengths)[:, None]).long()  # (G, S)
    where = torch.tensor(made.firsts, device=embeds.device)[:, None], place.to(embeds.device)
    return {
        "inputs_embeds": embeds[where],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }


def alike(lengths: Sequence[int], more: int, text_config: Any) -> list[tuple[list[int], bool]]:
    """Rows that may be computed together, and whether they may share beginnings.

    lengths: tokens of each prompt. more: tokens that an answer may have. Where the rotary frequencies depend on the
    sequence's length (LongRoPE, dynamic NTK), rows that may pass the length at which they change go only with rows of
    the same length, and are read whole.
    """
    limit = _frequencies_change_at(text_config)
    together: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        together.setdefault(0 if limit is None or length + more <= limit else length, []).append(row)
    return [(rows, key == 0) for key, rows in together.items()]


def _frequencies_change_at(config: Any) -> int | None:
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [kind for kind in rope.values() if isinstance(kind, dict)] or [rope]  # one set, or one a layer type
    limits = [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)
