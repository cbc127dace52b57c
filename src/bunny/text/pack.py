"""Rows become packed batches: no padding, and conversations about one picture share what they have in common.

In: the `TokenRow`s of one optimiser step (which rows is decided before; packing never moves a row to another step),
each with its weight in the loss. Out: `Batch`es of at most so many tokens, dealt out to ranks of equal work. A group
of rows with the same pictures is laid out as one shared prefix and one branch per row; attention is causal inside
prefix and branch, and a branch sees its prefix. Losses and gradients equal those of the padded rows (proved in
tests/train).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bunny.core.types import IGNORE, FloatArray, ImageRef, IntArray, TokenRow


@dataclass(frozen=True, slots=True)
class Batch:
    """One packed forward pass over T tokens.

    ids, targets, positions: (T,) int64; targets are already shifted (what position t has to predict, or IGNORE).
    weights: (T,) float64 share of each position in the loss. features_at: (T,) int64 index into the flattened
    (len(images) * tokens per picture) features, -1 for text. images: each different picture once. segments: (S, 4)
    int64 rows (start, end, prefix start, prefix end): [start, end) attends causally to [prefix) + [start, end).
    """

    ids: IntArray
    targets: IntArray
    weights: FloatArray
    positions: IntArray
    features_at: IntArray
    segments: IntArray
    images: tuple[ImageRef, ...]
    rows: tuple[str, ...]
    padded_tokens: int  # what the same rows would take unshared: their summed lengths

    @property
    def weight(self) -> float:
        """What the batch contributes to the step's total weight."""
        return float(self.weights.sum())

    def weightless(self) -> Batch:
        """The same batch, teaching nothing: for a rank that has to take part in a pass and has no row left."""
        return replace(self, weights=np.zeros_like(self.weights), rows=(), padded_tokens=0)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as the layout needs it: `targets[t]` is what position t predicts; the tail that teaches nothing is gone.

    weight: of each of its labels.
    """

    row: TokenRow
    ids: IntArray
    targets: IntArray
    weight: float

    @staticmethod
    def of(row: TokenRow, weight: float) -> _Row:
        learnt = np.flatnonzero(row.labels[1:] != IGNORE)
        if not len(learnt):
            raise ValueError(f"{row.id}: a row without labels")
        end = int(learnt[-1]) + 1  # no later position predicts a label, and nobody sees what comes after
        return _Row(row, row.ids[:end], row.labels[1 : end + 1], weight)


def pack(
    rows: Sequence[TokenRow],
    image_token_id: int,
    image_tokens: int,
    tokens_per_pass: int,
    weights: Sequence[float] | None = None,
    share: bool = True,
) -> list[Batch]:
    """The rows as few packed batches of at most `tokens_per_pass` tokens (one group may exceed it alone).

    weights: of each row's labels; default 1.
    """
    (batches,) = deal(rows, image_token_id, image_tokens, tokens_per_pass, weights, share)
    return batches


def deal(
    rows: Sequence[TokenRow],
    image_token_id: int,
    image_tokens: int,
    tokens_per_pass: int,
    weights: Sequence[float] | None = None,
    share: bool = True,
    ranks: int = 1,
    picture_tokens: float = 0.0,
) -> list[list[Batch]]:
    """The rows as passes of each rank, all ranks with the same number of passes and about the same work.

    picture_tokens: work of encoding one picture, in tokens of the language model. Groups are dealt out longest first,
    each to the rank with the least work so far (LPT). A rank that runs out of rows gets a weightless pass. The result
    is the same on every rank: nothing has to be sent.
    """
    known = weights if weights is not None else [1.0] * len(rows)
    made = [_Row.of(row, weight) for row, weight in zip(rows, known, strict=True)]
    fair = -(-sum(len(row.ids) for row in made) // ranks)  # a larger group would leave other ranks idle
    groups = _groups(made, share, min(tokens_per_pass, fair) if ranks > 1 else tokens_per_pass)
    shares = [groups] if ranks == 1 else _even(groups, ranks, picture_tokens)
    passes = [_passes(some, tokens_per_pass) for some in shares]
    most = max(map(len, passes))
    spare = min(groups, key=_size)
    out = []
    for mine in passes:
        _split(mine, most)
        batches = [_lay_out(some, image_token_id, image_tokens) for some in mine]
        idle = most - len(batches)
        out.append(batches + [_lay_out([spare], image_token_id, image_tokens).weightless()] * idle)
    return out


def _even(groups: Sequence[list[_Row]], ranks: int, picture_tokens: float) -> list[list[list[_Row]]]:
    """Groups for each rank, in their first order: the heaviest first to the rank that has least."""
    work = [_size(group) + picture_tokens * len(group[0].row.images) for group in groups]
    loads = [0.0] * ranks
    owner = [0] * len(groups)
    for number in sorted(range(len(groups)), key=lambda n: -work[n]):
        owner[number] = loads.index(min(loads))
        loads[owner[number]] += work[number]
    return [[group for group, whose in zip(groups, owner, strict=True) if whose == rank] for rank in range(ranks)]


def _passes(groups: Sequence[list[_Row]], tokens_per_pass: int) -> list[list[list[_Row]]]:
    """Groups in their order, cut into passes where the next one would not fit."""
    passes: list[list[list[_Row]]] = []
    room = 0
    for group in groups:
        size = _size(group)
        if not passes or size > room:
            passes.append([])
            room = tokens_per_pass
        passes[-1].append(group)
        room -= size
    return passes


def _split(passes: list[list[list[_Row]]], count: int) -> None:
    """Cut the passes with most groups in two until there are `count`, as far as that goes."""
    while len(passes) < count and any(len(some) > 1 for some in passes):
        place = max(range(len(passes)), key=lambda n: len(passes[n]))
        some = passes[place]
        passes[place : place + 1] = [some[: len(some) // 2], some[len(some) // 2 :]]


def _groups(rows: Sequence[_Row], share: bool, limit: int) -> list[list[_Row]]:
    """Rows by their pictures, in order of first appearance; text-only rows alone; no group larger than the limit."""
    by_pictures: dict[object, list[_Row]] = {}
    for number, row in enumerate(rows):
        by_pictures.setdefault(row.row.images if row.row.images and share else number, []).append(row)
    out: list[list[_Row]] = []
    for group in by_pictures.values():
        piece: list[_Row] = []
        for row in group:
            if piece and _size([*piece, row]) > limit:
                out.append(piece)
                piece = []
            piece.append(row)
        out.append(piece)
    return out


def _shared(group: Sequence[_Row]) -> int:
    """Length of the common beginning in which no row learns anything; every row keeps at least one own position."""
    if len(group) == 1:
        return 0
    shortest = min(len(row.ids) for row in group) - 1
    first = group[0]
    same = first.targets[:shortest] == IGNORE
    for row in group[1:]:
        same &= (row.ids[:shortest] == first.ids[:shortest]) & (row.targets[:shortest] == IGNORE)
    return shortest if same.all() else int(np.argmin(same))


def _size(group: Sequence[_Row]) -> int:
    shared = _shared(group)
    return shared + sum(len(row.ids) - shared for row in group)


def _lay_out(groups: Sequence[Sequence[_Row]], image_token_id: int, image_tokens: int) -> Batch:
    images: dict[ImageRef, int] = {}
    parts: list[tuple[IntArray, IntArray, FloatArray, IntArray, IntArray]] = []
    segments: list[tuple[int, int, int, int]] = []
    place = 0

    def add(row: _Row, begin: int, end: int, prefix: tuple[int, int]) -> None:
        nonlocal place
        targets = row.targets[begin:end]
        weights = np.where(targets != IGNORE, row.weight, 0.0)
        features = _features_at(row.row, images, image_token_id, image_tokens)[begin:end]
        parts.append((row.ids[begin:end], targets, weights, np.arange(begin, end), features))
        segments.append((place, place + end - begin, *prefix))
        place += end - begin

    for group in groups:
        shared = _shared(group)
        prefix = (place, place + shared)
        if shared:
            add(group[0], 0, shared, (place, place))
        for row in group:
            add(row, shared, len(row.ids), prefix if shared else (place, place))
    ids, targets, weights, positions, features_at = (np.concatenate(column) for column in zip(*parts, strict=True))
    flat = [row.row for group in groups for row in group]
    return Batch(
        ids,
        targets,
        weights,
        positions,
        features_at,
        segments=np.asarray(segments, dtype=np.int64),
        images=tuple(images),
        rows=tuple(row.id for row in flat),
        padded_tokens=sum(len(row.ids) for row in flat),
    )


def _features_at(row: TokenRow, images: dict[ImageRef, int], image_token_id: int, image_tokens: int) -> IntArray:
    """For each position of the row, its place among the flattened picture features, -1 for text."""
    out = np.full(len(row.ids), -1, dtype=np.int64)
    places = np.flatnonzero(row.ids == image_token_id) if row.images else np.empty(0, dtype=np.int64)
    if len(places) != image_tokens * len(row.images):
        raise ValueError(f"{row.id}: {len(places)} picture tokens for {len(row.images)} pictures of {image_tokens}")
    for number, ref in enumerate(row.images):
        slot = images.setdefault(ref, len(images))
        run = places[number * image_tokens : (number + 1) * image_tokens]
        out[run] = slot * image_tokens + np.arange(image_tokens)
    return out
