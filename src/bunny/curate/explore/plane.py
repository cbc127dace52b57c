"""Vectors in, places on a plane out: the two directions in which they differ most (principal components)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bunny.core.types import FloatArray, IntArray

BLOCK = 2048  # rows read at a time

VectorsOf = Callable[[IntArray], FloatArray]


def plane(vectors_of: VectorsOf, rows: IntArray) -> FloatArray:
    """(n, 2) float32 within about [-1, 1], the same for the same rows. vectors_of: rows -> (m, D) float32. Rows
    without a direction (NaN) come out as NaN."""
    if not len(rows):
        return np.empty((0, 2), np.float32)
    dim = vectors_of(rows[:1]).shape[1]
    total, count, products = np.zeros(dim), 0, np.zeros((dim, dim))
    for start in range(0, len(rows), BLOCK):
        block = _fine(vectors_of(rows[start : start + BLOCK]))
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block
        count += len(block)
    mean = total / max(count, 1)
    spread = products / max(count, 1) - np.outer(mean, mean)
    _, directions = np.linalg.eigh(spread)
    axes = directions[:, ::-1][:, :2]  # (D, 2), the widest first
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 1)))
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)  # a sign of its own
    blocks = [vectors_of(rows[start : start + BLOCK]) - mean for start in range(0, len(rows), BLOCK)]
    places = np.concatenate([block @ axes for block in blocks])  # (n, 2)
    low, high = np.nanpercentile(places, [0.2, 99.8], axis=0) if count else (-np.ones(2), np.ones(2))
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2, 1e-9)
    return np.clip((places - middle) / reach, -1.04, 1.04).astype(np.float32)


def _fine(block: FloatArray) -> FloatArray:
    return block[np.isfinite(block[:, 0])]
