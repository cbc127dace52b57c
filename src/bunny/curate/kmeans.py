"""Spherical k-means: unit vectors in, groups around unit centres out. Numpy and BLAS, blockwise, deterministic.

In: (N, D) unit rows and a random generator. Out: `Clusters`: centres, each row's group, its second choice, and how
near it lies to the border between the two (what two-probe duplicate search needs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from bunny.core.types import FloatArray, IntArray

BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Clusters:
    """centres: (K, D) float32 unit rows. For each of N rows: `nearest` and `second` centre (int32; second -1 if K = 1),
    `cosine` to the nearest (float32), `border`: Euclidean distance to the plane half-way between both (float32)."""

    centres: FloatArray
    nearest: IntArray
    second: IntArray
    cosine: FloatArray
    border: FloatArray


def spherical_kmeans(
    vectors: FloatArray,
    groups: int,
    rng: np.random.Generator,
    iterations: int = 20,
    start: Literal["spread", "random"] = "spread",
) -> Clusters:
    """Groups of unit rows by likeness. Stops early once no row changes its group.

    vectors: (N, D) unit rows, float16 or float32. groups: at most N are made. start: "spread" is k-means++ (better,
    costs one pass per group), "random" takes rows (for very many groups). A group that runs empty restarts at the row
    that fits its own group worst. Source: Dhillon & Modha 2001; k-means++ of Arthur & Vassilvitskii 2007.
    """
    groups = min(groups, len(vectors))
    if groups == 0:
        nothing = np.empty(0, np.int32)
        return Clusters(np.empty((0, vectors.shape[1]), np.float32), nothing, nothing, nothing * 1.0, nothing * 1.0)
    chosen = rng.choice(len(vectors), groups, replace=False) if start == "random" else _spread(vectors, groups, rng)
    centres = np.asarray(vectors[chosen], dtype=np.float32)
    before: IntArray = np.full(len(vectors), -1, np.int32)
    for _ in range(iterations):
        found = _assign(vectors, centres)
        if np.array_equal(found.nearest, before):
            return found
        before = found.nearest
        centres = _means(vectors, found, groups)
    return _assign(vectors, centres)


def _spread(vectors: FloatArray, groups: int, rng: np.random.Generator) -> IntArray:
    """k-means++ starts: (K,) rows, each drawn with chance growing with the distance to the rows drawn before."""
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    for _ in range(groups - 1):
        distance = np.minimum(distance, _distance_to(vectors, chosen[-1]))
        distance[chosen] = 0.0
        total = distance.cumsum()
        if total[-1] <= 0:  # only copies of chosen rows are left
            free = np.setdiff1d(np.arange(len(vectors)), chosen)
            return np.array(chosen + list(free[: groups - len(chosen)]))
        row = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        chosen.append(min(row, int(np.flatnonzero(distance)[-1])))
    return np.array(chosen)


def _distance_to(vectors: FloatArray, row: int) -> FloatArray:
    """(N,) squared distances 2 - 2 cos to one row, never negative; rounding noise of copies counts as zero."""
    centre = np.asarray(vectors[row], dtype=np.float32)
    likeness = [
        np.asarray(vectors[start : start + BLOCK_ROWS], dtype=np.float32) @ centre
        for start in range(0, len(vectors), BLOCK_ROWS)
    ]
    distance = 2.0 - 2.0 * np.concatenate(likeness).astype(np.float64)
    return np.where(distance < 1e-6, 0.0, distance)


def _assign(vectors: FloatArray, centres: FloatArray) -> Clusters:
    """Each row's nearest and second centre; of equal ones the first."""
    size = len(vectors)
    nearest, second = np.zeros(size, np.int32), np.full(size, -1, np.int32)
    cosine, border = np.zeros(size, np.float32), np.full(size, np.inf, np.float32)
    for start in range(0, size, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        likeness = np.asarray(vectors[rows], dtype=np.float32) @ centres.T  # (B, K)
        line = np.arange(len(likeness))
        nearest[rows] = likeness.argmax(1)
        cosine[rows] = likeness[line, nearest[rows]]
        if len(centres) > 1:
            likeness[line, nearest[rows]] = -np.inf
            second[rows] = likeness.argmax(1)
            apart = np.linalg.norm(centres[nearest[rows]] - centres[second[rows]], axis=1)
            border[rows] = (cosine[rows] - likeness[line, second[rows]]) / np.maximum(apart, 1e-12)
    return Clusters(centres, nearest, second, cosine, border)


def _means(vectors: FloatArray, found: Clusters, groups: int) -> FloatArray:
    """(K, D) unit means of the groups; an empty group moves to the worst-fitting rows, worst first."""
    sums = np.zeros((groups, vectors.shape[1]), np.float64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = np.asarray(vectors[start : start + BLOCK_ROWS], dtype=np.float32)
        labels = found.nearest[start : start + BLOCK_ROWS]
        member = csr_matrix((np.ones(len(block), np.float32), (labels, np.arange(len(block)))), (groups, len(block)))
        sums += member @ block
    empty = np.flatnonzero(np.bincount(found.nearest, minlength=groups) == 0)
    worst = np.argsort(found.cosine, kind="stable")[: len(empty)]
    sums[empty] = np.asarray(vectors[worst], dtype=np.float64)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 1e-9, sums / np.maximum(length, 1e-9), found.centres).astype(np.float32)
