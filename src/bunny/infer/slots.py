"""Keys and values of many answers under way: one slot each, and attention that finds every token its own slot.

In: one pass over tokens of many rows, laid end to end without padding. Out: the same attention that each row would have
alone. Registered with transformers' attention interface, so every language model that uses it takes part unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

NAME = "bunny_slots"

GROWTH = 256
"""Tokens by which slots grow at least."""

WASTE = 1.3
"""On a CPU rows are computed in one piece while that reads at most this many times the keys there are; one by one
costs about 20 microseconds a row and layer."""

Saved = list[tuple[Tensor, Tensor]]
"""Keys and values of a stretch of tokens: for each layer two (key heads, tokens, d)."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens `start` to `end` of the row in a slot; what stands before them is there already."""

    slot: int
    start: int
    end: int


@dataclass
class Pass:
    """Where the T tokens of a pass stand. Stretches of one token come first.

    slots, places: (T,) int64. singles: how many stretches are one token. masks: what the layers of a kind made already.
    """

    stretches: Sequence[Stretch]
    slots: Tensor
    places: Tensor
    singles: int
    masks: dict[Any, Any] = field(default_factory=dict)

    @staticmethod
    def over(stretches: Sequence[Stretch], device: torch.device) -> Pass:
        """The pass over these stretches, in order."""
        where = [(one.slot, place) for one in stretches for place in range(one.start, one.end)]
        slots, places = torch.tensor(where).to(device).unbind(1)
        singles = next((n for n, one in enumerate(stretches) if one.end - one.start > 1), len(stretches))
        return Pass(stretches, slots, places, singles)

    def abreast(self, window: int | None) -> tuple[int, int, Tensor] | None:
        """(first key, end of keys, mask (S, 1, 1, keys) over the first S slots) if single tokens of all rows are
        better computed in one piece; else None."""
        if window not in self.masks:
            self.masks[window] = self._abreast(window)
        return self.masks[window]  # type: ignore[no-any-return]

    def _abreast(self, window: int | None) -> tuple[int, int, Tensor] | None:
        rows = self.stretches[: self.singles]
        lows = [_low(one, window) for one in rows]
        low, high, slots = min(lows), max(one.end for one in rows), 1 + max(one.slot for one in rows)
        needed = sum(one.end - first for one, first in zip(rows, lows, strict=True))
        if self.slots.device.type == "cpu" and (len(rows) == 1 or slots * (high - low) > WASTE * needed):
            return None
        place = torch.arange(low, high, device=self.slots.device)
        ends = self.places.new_full((slots,), low)  # a slot that has no part sees one key: no row of nothing
        ends[self.slots[: self.singles]] = self.places[: self.singles]
        seen = place <= ends[:, None]
        if window is not None:
            seen &= place > ends[:, None] - window
        return low, high, seen[:, None, None]

    def causal(self, one: Stretch, window: int | None, groups: int) -> tuple[int, Tensor]:
        """(first key, mask (groups * tokens, keys)) of a stretch: each token sees what stands before it and itself."""
        if (one, window) not in self.masks:
            low = _low(one, window)
            query = torch.arange(one.start, one.end, device=self.slots.device)[:, None]
            place = torch.arange(low, one.end, device=self.slots.device)
            seen = place <= query
            if window is not None:
                seen &= place > query - window
            self.masks[one, window] = low, seen.repeat(groups, 1)
        return self.masks[one, window]  # type: ignore[no-any-return]


def _low(one: Stretch, window: int | None) -> int:
    """The first key that any token of the stretch sees."""
    return 0 if window is None else max(0, one.start + 1 - window)


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values: (slots, key heads, capacity, d), made when the first are written.

    window: positions that a position sees, itself included; none: all before it.
    """

    def __init__(self, slots: int, window: int | None) -> None:
        super().__init__()
        self.slots, self.window, self.capacity = slots, window, 0
        self.now: Pass
        self.keys: Any = None
        self.values: Any = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes (1, key heads, T, d) to their places."""
        if self.keys is None:
            self.keys, self.values = (
                state.new_zeros(self.slots, state.shape[1], self.capacity, state.shape[3])
                for state in (key_states, value_states)
            )
        self.keys[self.now.slots, :, self.now.places] = key_states[0].transpose(0, 1)
        self.values[self.now.slots, :, self.now.places] = value_states[0].transpose(0, 1)
        key_states.layer = self  # type: ignore[attr-defined]  # travels through the model to `slot_attention`
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0

    def grow(self, capacity: int) -> None:
        """Room for so many tokens in every slot. New room is zeros: what is masked must be finite."""
        if self.keys is not None:
            self.keys, self.values = (
                torch.cat([old, old.new_zeros(*old.shape[:2], capacity - self.capacity, old.shape[3])], dim=2)
                for old in (self.keys, self.values)
            )
        self.capacity = capacity


class Slots(Cache):  # type: ignore[misc]  # transformers is untyped
    """The slots of a language model. It keeps no account of who is where: a row knows its slot and length.

    text_config: says which layers have windows.
    """

    def __init__(self, text_config: Any, slots: int) -> None:
        kinds = DynamicCache(config=text_config).layers
        super().__init__(layers=[SlotLayer(slots, getattr(kind, "sliding_window", None)) for kind in kinds])
        self.count, self.capacity = slots, 0

    def enter(self, stretches: Sequence[Stretch], device: torch.device) -> None:
        """Make ready for a pass over these stretches; stretches of one token come first."""
        self.reserve(max(one.end for one in stretches))
        now = Pass.over(stretches, device)
        for layer in self.layers:
            layer.now = now

    def reserve(self, tokens: int) -> None:
        """Room for so many tokens in every slot; a layer that found no memory for it is tried again next time."""
        if tokens > self.capacity:
            capacity = max(-(-tokens // GROWTH) * GROWTH, self.capacity * 3 // 2)
            for layer in self.layers:
                if layer.capacity < capacity:
                    layer.grow(capacity)
            self.capacity = capacity

    def release(self) -> None:
        """Give the memory back."""
        self.capacity = 0
        for layer in self.layers:
            layer.keys = layer.values = None
            layer.capacity = 0

    def clear(self, slot: int) -> None:
        """Zeros in a slot whose numbers are broken: masked, not a number would still spread."""
        for layer in self.layers:
            if layer.keys is not None:
                layer.keys[slot].zero_()
                layer.values[slot].zero_()

    def save(self, slot: int, tokens: int) -> Saved:
        """A copy of a row's first tokens."""
        return [(layer.keys[slot, :, :tokens].clone(), layer.values[slot, :, :tokens].clone()) for layer in self.layers]

    def put(self, slot: int, saved: Saved, tokens: int) -> None:
        """The first tokens of what was saved become a row's beginning."""
        self.reserve(tokens)
        for layer, (keys, values) in zip(self.layers, saved, strict=True):
            if layer.keys is None:
                layer.keys, layer.values = (
                    some.new_zeros(self.count, some.shape[0], self.capacity, some.shape[2]) for some in (keys, values)
                )
            layer.keys[slot, :, :tokens] = keys[:, :tokens]
            layer.values[slot, :, :tokens] = values[:, :tokens]

    @property
    def bytes(self) -> int:
        """Memory that the slots take."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.keys is not None)


def slot_attention(
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
    """Scaled dot-product attention of each token to its own row, whose keys `SlotLayer` holds.

    query: (1, heads, T, d); key: (1, key heads, T, d), as `SlotLayer` returned it. Returns (1, T, heads, d).
    Heads that share a key head are laid out as more queries: keys are never repeated.
    """
    layer: SlotLayer = key.layer  # type: ignore[attr-defined]
    now, heads = layer.now, key.shape[1]
    rows = query[0].unflatten(0, (heads, -1))  # (key heads, groups, T, d)
    outs = []
    if now.singles:
        outs.append(_singles(layer, rows[:, :, : now.singles], scaling, softcap))
    begin = now.singles
    for one in now.stretches[now.singles :]:
        end = begin + one.end - one.start
        low, seen = now.causal(one, layer.window, rows.shape[1])
        some = rows[:, :, begin:end].flatten(1, 2)[None]  # (1, key heads, groups * tokens, d)
        keys, values = (every[one.slot, None, :, low : one.end] for every in (layer.keys, layer.values))
        out = _attend(some, keys, values, seen, scaling, softcap)[0].unflatten(1, (rows.shape[1], -1))
        outs.append(out.permute(2, 0, 1, 3))  # (tokens, key heads, groups, d)
        begin = end
    return (outs[0] if len(outs) == 1 else torch.cat(outs)).flatten(1, 2)[None], None


def _singles(layer: SlotLayer, rows: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    """One token a row, (key heads, groups, B, d): (B, key heads, groups, d)."""
    now, query = layer.now, rows.permute(2, 0, 1, 3)
    if together := now.abreast(layer.window):
        low, high, seen = together
        order = now.slots[: now.singles]
        spread = query.new_zeros(len(seen), *query.shape[1:])
        spread[order] = query
        keys, values = (every[: len(seen), :, low:high] for every in (layer.keys, layer.values))
        return _attend(spread, keys, values, seen, scaling, softcap)[order]
    outs = []
    for n, one in enumerate(now.stretches[: now.singles]):
        low = _low(one, layer.window)
        keys, values = (every[one.slot, None, :, low : one.end] for every in (layer.keys, layer.values))
        outs.append(_attend(query[n : n + 1], keys, values, None, scaling, softcap))
    return torch.cat(outs)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    if not softcap:
        return scaled_dot_product_attention(query, keys, values, attn_mask=seen, scale=scaling)
    scores = query.float() @ keys.float().mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap  # no fused kernel bends scores (Gemma-2)
    if seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ values.float()).to(query.dtype)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Slots say who sees whom: transformers need not build a mask."""


AttentionInterface.register(NAME, slot_attention)
AttentionMaskInterface.register(NAME, _no_mask)
