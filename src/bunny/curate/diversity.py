"""Few rows that stand for many: unit vectors in; which rows to keep, and for every row the kept one nearest to it, out.

Likenesses are float64 products rounded to six decimals: ties are ties on every machine, and the first row wins them.
No matrix of all pairs is held: a step costs one product of all rows with the row chosen, a cover two of all with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.curate.columns import Rows

HELD = 1 << 25  # numbers of a group that is held in memory as float64 (256 MB); larger ones are read block by block
BLOCK = 2048
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """kept: (K,) rows in the order in which they were chosen. stands: (N,) the kept row that stands for each row (for a
    kept one: itself), -1 where none does. likeness: (N,) float32 cosine to that row, NaN where there is none."""

    kept: IntArray
    stands: IntArray
    likeness: FloatArray


def k_centre(vectors: Rows, count: int) -> Chosen:
    """At most `count` rows as far apart as greedy search finds them (Gonzalez 1985: no row is more than twice as far
    from a kept one as with the best choice). Starts with the medoid, then takes the row least like any kept one; stops
    early when every row is the same as a kept one.

    >>> k_centre(Rows.of(np.eye(3, dtype=np.float32)), 2).kept
    array([0, 1])
    """
    group = _Group(vectors)
    stands = np.zeros(len(vectors), np.int64)
    likeness = np.full(len(vectors), -2.0)
    kept: list[int] = []
    while len(kept) < min(count, len(vectors)):
        one = int(np.argmin(likeness)) if kept else group.medoid()
        if kept and likeness[one] >= 1:
            break
        found = group.likeness(one)
        found[one] = np.inf  # a kept row stands for itself
        nearer = found > likeness
        stands[nearer], likeness[nearer] = one, found[nearer]
        kept.append(one)
    likeness[kept] = 1.0
    return _chosen(kept, stands if kept else stands - 1, likeness)


def cover(vectors: Rows, above: float, count: int | None = None) -> Chosen:
    """Few rows such that every row has a kept one with a cosine of at least `above`: greedy set cover, each time the
    row that covers most of what is not covered yet (Chvátal 1979: at most 1 + ln N times as many as the fewest).

    count: stop with so many rows; what is not covered then has none that stands for it.
    """
    group = _Group(vectors)
    stands = np.full(len(vectors), -1, np.int64)
    likeness = np.full(len(vectors), np.nan)
    gain = np.zeros(len(vectors), np.int64)  # what a row would cover
    for _, block in group.blocks():
        gain += group.near(block, above)
    kept: list[int] = []
    while (stands < 0).any() and (count is None or len(kept) < count):
        one = int(np.argmax(gain))
        if gain[one] <= 0:  # cannot be, but for a cosine on the very border that rounds both ways
            one = int(np.argmax(stands < 0))
        found = group.likeness(one)
        found[one] = 1.0
        fresh = np.flatnonzero((stands < 0) & (found >= above))
        gain[one] = 0
        if not len(fresh):
            continue
        stands[fresh], likeness[fresh] = one, found[fresh]
        stands[one], likeness[one] = one, 1.0  # it may have been covered already
        for _, block in group.blocks(fresh):
            gain -= group.near(block, above)
        kept.append(one)
    return _chosen(kept, stands, likeness)


class _Group:
    """(N, D) rows, as float64: held where they are few, else read again each time."""

    def __init__(self, vectors: Rows) -> None:
        self.vectors = vectors
        few = len(vectors) * vectors.shape[1] <= HELD
        self.held = vectors.read().astype(np.float64) if few else None

    def medoid(self) -> int:
        """The row with the greatest sum of cosines to all."""
        total = np.zeros(self.vectors.shape[1])
        for _, block in self.blocks():
            total += block.sum(axis=0)
        return int(np.argmax(self._products(total / max(float(np.linalg.norm(total)), 1e-12))))

    def likeness(self, one: int) -> FloatArray:
        """(N,) cosines of all rows to one."""
        return self._products(self.vectors.read(np.array([one]))[0].astype(np.float64))

    def near(self, some: FloatArray, above: float) -> IntArray:
        """(N,) how many of some rows have at least that cosine to each row."""
        counts = np.empty(len(self.vectors), np.int64)
        for start, block in self.blocks():
            counts[start : start + len(block)] = (np.round(block @ some.T, DECIMALS) >= above).sum(axis=1)
        return counts

    def blocks(self, rows: IntArray | None = None) -> Iterator[tuple[int, FloatArray]]:
        """(first place, (n, D) float64) of blocks of those rows; of all rows."""
        rows = np.arange(len(self.vectors)) if rows is None else rows
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            yield start, self.held[some] if self.held is not None else self.vectors.read(some).astype(np.float64)

    def _products(self, one: FloatArray) -> FloatArray:
        """(N,) rounded cosines of all rows to one vector."""
        found = np.empty(len(self.vectors))
        for start, block in self.blocks():
            found[start : start + len(block)] = np.round(block @ one, DECIMALS)
        return found


def _chosen(kept: list[int], stands: IntArray, likeness: FloatArray) -> Chosen:
    return Chosen(np.array(kept, np.int64), stands, np.where(stands < 0, np.nan, likeness).astype(np.float32))
