"""Dividing a number of rows among groups, and taking the best of each: sizes and scores in, counts and rows out."""

from __future__ import annotations

import numpy as np

from bunny.core.types import FloatArray, IntArray


def shared(total: int, size: IntArray, weight: FloatArray | IntArray) -> IntArray:
    """(groups,) how many rows each group gives: in proportion to the weights, at most its size, together
    min(total, all rows). Fractions are settled by largest remainder, ties by group number.

    >>> shared(10, np.array([100, 100, 2]), np.array([3.0, 1.0, 1.0]))
    array([6, 2, 2])
    """
    given = np.zeros(len(size), np.int64)
    open_ = (size > 0) & (weight > 0)
    left = min(total, int(size[open_].sum()))
    while left > 0:  # a group that is full passes on what it cannot give
        part = np.where(open_, weight, 0.0) * (left / float(weight[open_].sum()))
        full = open_ & (part >= size - 1e-9)
        if not full.any():
            return given + _rounded(part, left)
        given[full] = size[full]
        left = min(total, int(size[(size > 0) & (weight > 0)].sum())) - int(given.sum())
        open_ &= ~full
    return given


def level(total: int, size: IntArray) -> IntArray:
    """(groups,) how many rows each group gives if the largest are cut to one height such that `total` stay.

    What that height leaves over goes to the first groups that have more.

    >>> level(10, np.array([2, 9, 5]))
    array([2, 4, 4])
    """
    low, high = 0, int(size.max(initial=0))
    while low < high:  # the greatest height that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(size, middle).sum()) <= total else (low, middle - 1)
    given = np.minimum(size, low).astype(np.int64)
    more = np.flatnonzero(size > low)[: max(0, total - int(given.sum()))]
    given[more] += 1
    return given


def best_of_each(group: IntArray, score: FloatArray, wanted: IntArray) -> IntArray:
    """Rows (in ascending order) with the highest scores of each group; ties by row number, NaN last.

    group: (N,) 0 .. groups - 1; wanted: (groups,) how many of each.
    """
    if not len(group):
        return np.empty(0, np.int64)
    order = np.lexsort((np.arange(len(group)), -np.where(np.isnan(score), -np.inf, score), group))
    starts = np.cumsum(np.bincount(group, minlength=len(wanted))) - np.bincount(group, minlength=len(wanted))
    place = np.arange(len(group)) - starts[group[order]]
    best: IntArray = np.sort(order[place < wanted[group[order]]])
    return best


def _rounded(part: FloatArray, total: int) -> IntArray:
    """Whole numbers that add up to `total`, each within one of its part."""
    whole: IntArray = np.floor(part + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(len(part)), -np.round(part - whole, 9)))
    whole[order[: total - int(whole.sum())]] += 1
    return whole
