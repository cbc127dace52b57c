"""What prompts have in common is read once: which beginnings to share, and which rows may be computed together.

In: prompts (lists of ids), which of them show the same pictures, what the language model does with positions. Out: a
`Plan`; `shared_attention` lets all rows look at the one copy of their beginning.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


@dataclass(frozen=True, slots=True)
class Plan:
    """Beginnings to read once. Rows are in order of their beginnings.

    starts: the ids of each of G beginnings. rows: for each, the numbers of the prompts that go on from it. rests: B
    lists of ids, what stands behind the beginning in each row.
    """

    starts: list[list[int]]
    rows: list[list[int]]
    rests: list[list[int]]

    @property
    def order(self) -> list[int]:
        """The B prompts' numbers, as the rows stand."""
        return [row for group in self.rows for row in group]

    @property
    def columns(self) -> tuple[int, int]:
        """Tokens that a row takes with its padding: of the beginning, of the rest."""
        return max(map(len, self.starts)), max(map(len, self.rests))


def plan(prompts: Sequence[list[int]], pictures: Sequence[Hashable], most: int | None = None) -> Plan | None:
    """What to share between B prompts, or None if that computes no fewer tokens, or takes more columns than `most`.

    pictures: one name per prompt; equal for prompts that show the same pictures. The last token of a prompt is never
    shared: its logits are wanted.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, name in enumerate(pictures):
        groups.setdefault(name, []).append(row)
    rows = list(groups.values())
    lengths = [_common([prompts[row] for row in group]) for group in rows]
    starts = [prompts[group[0]][:length] for group, length in zip(rows, lengths, strict=True)]
    rests = [prompts[row][length:] for group, length in zip(rows, lengths, strict=True) for row in group]
    made = Plan(starts, rows, rests)
    start, rest = made.columns
    computed = len(starts) * start + len(prompts) * rest
    if not start or computed >= len(prompts) * max(map(len, prompts)) or (most is not None and start + rest > most):
        return None
    return made


def _common(prompts: Sequence[list[int]]) -> int:
    """Length of the longest beginning of all prompts that leaves each at least one token."""
    low, high = min(prompts), max(prompts)  # what the first and last in order share, all share
    end = min(map(len, prompts)) - 1
    return next((place for place in range(end) if low[place] != high[place]), end)


def sharable(language_model: Any) -> bool:
    """Whether rows of a language model can look at one copy of keys and values, and nothing else is remembered:
    recurrent states and sinks are not shared."""
    layers = DynamicCache(config=language_model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    sinks = any(hasattr(module, "sinks") for module in language_model.modules())
    return plain and not sinks and bool(language_model._supports_attention_backend)


def window(text_config: Any) -> int | None:
    """Columns within which a sliding window hides nothing. It counts pads, which stand between beginning and rest."""
    return getattr(text_config, "sliding_window", None)


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
