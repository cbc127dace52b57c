"""Clusters, duplicate groups and thresholds: arrays of the decision table in, counts and members out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bunny.core.types import BoolArray, FloatArray, IntArray

MOST_GRID = 600  # distinct link cosines up to which they are taken for the step's grid
STEP = 0.005  # of a grid of our own


@dataclass(frozen=True, slots=True)
class Groups:
    """The rows of every group of a column. label: (G,) ascending; start: (G + 1,) into `rows`; lowest: (G,) lowest
    cosine of a member to the one that stays, NaN where it is not known."""

    label: IntArray
    start: IntArray
    rows: IntArray
    kept: IntArray
    lowest: FloatArray

    @staticmethod
    def of(column: IntArray, kept: BoolArray, cosine: FloatArray, smallest: int = 1) -> Groups:
        """column: (N,) group of every row, -1 none. smallest: groups of fewer rows are left out."""
        member = column >= 0
        if smallest > 1 and int(column.max(initial=-1)) < 4 * len(column):  # few rows are left to be sorted
            member &= np.bincount(column[member])[np.where(member, column, 0)] >= smallest if member.any() else member
        rows = np.flatnonzero(member)
        rows = rows[np.argsort(column[rows], kind="stable")]
        label, size = np.unique(column[rows], return_counts=True)
        rows = rows[np.repeat(size >= smallest, size)]
        label, size = label[size >= smallest], size[size >= smallest]
        start = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        if not len(label):
            return Groups(label, start, rows, label, label.astype(float))
        low = np.minimum.reduceat(np.nan_to_num(cosine[rows], nan=2.0), start[:-1])
        staying = np.add.reduceat(kept[rows].astype(np.int64), start[:-1])
        return Groups(label, start, rows, staying, np.where(low > 1.5, np.nan, low))

    @property
    def size(self) -> IntArray:
        return np.diff(self.start)

    def members(self, place: int) -> IntArray:
        """Rows of the group at a place, ascending."""
        return self.rows[self.start[place] : self.start[place + 1]]

    def place(self, label: int) -> int:
        """Where a label stands, -1 if nowhere."""
        at = int(np.searchsorted(self.label, label))
        return at if at < len(self.label) and self.label[at] == label else -1

    def order(self, by: str) -> IntArray:
        """Places of the groups: `size` largest first, `lowest` most stretched first, `label`."""
        if by == "size":
            return np.lexsort((self.label, -self.size))
        if by == "lowest":
            return np.lexsort((self.label, np.nan_to_num(self.lowest, nan=2.0)))
        return np.arange(len(self.label))


def grid_of(link_cosine: FloatArray, used: float | None) -> FloatArray:
    """Thresholds to offer: those that the step remembered, else steps of 0.005 from the lowest link to 1."""
    known = link_cosine[np.isfinite(link_cosine)]
    if not len(known):
        return np.empty(0)
    values = np.unique(known.astype(np.float32))
    if len(values) > MOST_GRID:
        lowest = np.ceil(float(values[0]) / STEP - 1e-4) * STEP
        values = np.arange(lowest, 1.0 + STEP / 2, STEP)
    grid = np.unique(np.round(np.concatenate([values, [] if used is None else [used]]).astype(np.float64), 6))
    return grid


def removed(link_cosine: FloatArray, grid: FloatArray) -> IntArray:
    """How many rows go at each threshold: links at or above it (compared as float32, as they are stored)."""
    known = np.sort(link_cosine[np.isfinite(link_cosine)].astype(np.float32))
    found: IntArray = len(known) - np.searchsorted(known, grid.astype(np.float32), side="left")
    return found


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """removed: rows that go; groups: of two and more; largest: rows of the largest; pairs: (E,) rows whose link lies
    between both thresholds, nearest to `used` first."""

    removed: int
    groups: int
    largest: int
    pairs: IntArray


def at_threshold(link_cosine: FloatArray, link_row: IntArray, threshold: float, used: float) -> AtThreshold:
    """What another threshold than the used one would do. link_row: (N,) the row that each link goes to, -1 where
    unknown: then there are no groups to count."""
    cosine = link_cosine.astype(np.float32)
    with np.errstate(invalid="ignore"):
        strong = cosine >= np.float32(threshold)
        low, high = sorted((np.float32(threshold), np.float32(used)))
        between = np.flatnonzero((cosine >= low) & (cosine < high))
    pairs = between[np.argsort(np.abs(cosine[between] - np.float32(used)), kind="stable")]
    size = sizes(link_row, strong & (link_row >= 0))
    return AtThreshold(int(strong.sum()), int((size > 1).sum()), int(size.max(initial=0)), pairs)


def sizes(link_row: IntArray, strong: BoolArray) -> IntArray:
    """Sizes of the groups of two and more that the marked links make."""
    rows = np.flatnonzero(strong)
    if not len(rows):
        return np.zeros(0, np.int64)
    ends = np.zeros(len(link_row), dtype=bool)
    ends[rows] = ends[link_row[rows]] = True
    place = np.cumsum(ends, dtype=np.int32) - 1  # of a row among the ends
    count = int(ends.sum())
    links = (place[rows], place[link_row[rows]])
    graph = coo_matrix((np.ones(len(rows), np.int8), links), shape=(count, count))
    found: IntArray = np.bincount(connected_components(graph, directed=False)[1])
    return found
