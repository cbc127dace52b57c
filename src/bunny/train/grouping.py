"""Rows in an order in which every step's rows are all with or all without pictures, and of similar length.

In: the words of each row, negative for a row without pictures. Out: an order of the rows. It is the original's
`group_by_modality_length` (no published run uses it), index for index for the same random numbers: rows are shuffled,
cut into steps, sorted by length within a step and dealt out so that its parts weigh the same; then steps are shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bunny.core.types import Sample


def signed_words(samples: Sequence[Sample]) -> list[int]:
    """Words of each conversation, counted at blanks; negative without pictures."""
    counts = [max(1, sum(len(turn.text.split()) for turn in sample.turns)) for sample in samples]
    return [count if sample.images else -count for count, sample in zip(counts, samples, strict=True)]


def by_modality_and_length(
    words: Sequence[int], rows_per_part: int, parts: int, generator: torch.Generator | None = None
) -> list[int]:
    """The order of the rows. A step has `parts` (ranks times accumulated passes) of `rows_per_part` rows.

    generator: draws the order of the steps; the rows inside are drawn from torch's own state, as in the original. Where
    all rows are of one kind, `generator` draws the rows.
    """
    kinds = [[i for i, count in enumerate(words) if count > 0], [i for i, count in enumerate(words) if count < 0]]
    if not all(kinds):
        return by_length([abs(count) for count in words], rows_per_part, parts, generator)
    size = rows_per_part * parts
    whole: list[list[int]] = []
    rest: list[int] = []
    for rows in kinds:
        order = [rows[i] for i in by_length([abs(words[row]) for row in rows], rows_per_part, parts)]
        steps = [order[start : start + size] for start in range(0, len(order), size)]
        whole += steps[:-1]
        rest += steps[-1]
    shuffled = [row for step in torch.randperm(len(whole), generator=generator).tolist() for row in whole[step]]
    return shuffled + sorted(rest)  # the last, shorter steps of both kinds come last, together


def by_length(
    lengths: Sequence[int], rows_per_part: int, parts: int, generator: torch.Generator | None = None
) -> list[int]:
    """Rows shuffled, cut into steps, and within a step dealt out to parts of equal weight."""
    drawn = torch.randperm(len(lengths), generator=generator).tolist()
    size = rows_per_part * parts
    order: list[int] = []
    for start in range(0, len(drawn), size):
        step = sorted(drawn[start : start + size], key=lambda row: lengths[row], reverse=True)
        order += [row for part in even_parts(step, lengths, parts) for row in part]
    return order


def even_parts(rows: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Rows dealt out one by one to the part that weighs least and has room; unequal counts are dealt in turn."""
    if len(rows) % parts:
        return [list(rows[start::parts]) for start in range(parts)]
    room = len(rows) // parts
    out: list[list[int]] = [[] for _ in range(parts)]
    weights = [0.0] * parts
    for row in rows:
        lightest = weights.index(min(weights))
        out[lightest].append(row)
        weights[lightest] = float("inf") if len(out[lightest]) == room else weights[lightest] + lengths[row]
    return out
