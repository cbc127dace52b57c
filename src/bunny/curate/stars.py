"""Chains cut into stars: linked groups in, for every row the kept row that it is itself linked to out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.curate.columns import Rows

Preference = Literal["first", "middle", "last"]


def split_into_stars(
    vectors: Rows, component: IntArray, score: FloatArray, prefer: Preference, above: float, least: float | None
) -> IntArray:
    """(N,) int64: for every row the one that stays in its place, itself if it stays.

    In each component rows are taken in the order of preference (best score first, last, or from the middle of the
    ranking outwards; equal ones by row). One that is free becomes a centre and takes all free rows whose cosine to it
    is at least `above`; with `least`, nearest first, only those whose cosine to every row taken is at least that.
    """
    size = len(component)
    twin = np.arange(size, dtype=np.int64)
    order = np.lexsort((np.arange(size), -score, component))
    edges = np.append(np.flatnonzero(np.diff(component[order], prepend=-1)), size)
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if stop - start > 1:
            rows = order[start:stop]
            rows = rows[_preferred(len(rows), prefer)]
            twin[rows] = rows[_centres(vectors.read(rows), above, least)]
    return twin


def _preferred(size: int, prefer: Preference) -> IntArray:
    places = np.arange(size)
    if prefer == "last":
        return places[::-1]
    if prefer == "middle":
        return np.argsort(np.abs(places - size // 2), kind="stable")
    return places


def _centres(vectors: FloatArray, above: float, least: float | None) -> IntArray:
    """(n,) the centre of every row; rows in order of preference."""
    size = len(vectors)
    centre = np.full(size, -1, np.int64)
    for head in range(size):
        if centre[head] >= 0:
            continue
        centre[head] = head
        free = np.flatnonzero(centre < 0)
        likeness = (vectors[free].astype(np.float64) @ vectors[head].astype(np.float64)).astype(np.float32)
        near = free[np.argsort(-likeness, kind="stable")][: int((likeness >= np.float32(above)).sum())]
        centre[near if least is None else _close(vectors, head, near, least)] = head
    return centre


def _close(vectors: FloatArray, head: int, near: IntArray, least: float) -> IntArray:
    """Those of `near`, nearest first, that keep all cosines within the star at `least` or above."""
    taken = [head]
    for row in near.tolist():
        if float((vectors[taken] @ vectors[row]).min()) >= least:
            taken.append(row)
    return np.array(taken[1:], dtype=np.int64)
