"""The inner loops of curation, compiled by numba and cached. Every loop goes over rows in order, in one thread, without
reordered sums: blocks, threads and machines do not show in the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LEAST = np.int32(-2147483647)


@njit(cache=True, nogil=True)
def unit_rows(rows: Any) -> None:
    """Scale (N, D) float32 rows to length one, in place. Zero and NaN rows become or stay NaN."""
    for i in range(rows.shape[0]):
        total = np.float64(0)
        for j in range(rows.shape[1]):
            total += np.float64(rows[i, j]) * np.float64(rows[i, j])
        scale = np.float32(1.0 / np.sqrt(total)) if total > 0 else np.float32(np.nan)
        for j in range(rows.shape[1]):
            rows[i, j] *= scale


@njit(cache=True, nogil=True, fastmath=True)
def encode(rows: Any, mean: Any, scale: Any, codes: Any, error: Any, length: Any, along: Any) -> None:
    """int8 codes of (N, D) float32 rows: round((row - mean) * scale), cut at ±127.

    Out, per row: error: length of what the code leaves out; length: of the centred row; along: row · mean.
    """
    step = np.float32(1) / scale
    for i in range(rows.shape[0]):
        missed = np.float32(0)
        total = np.float32(0)
        product = np.float32(0)
        for j in range(rows.shape[1]):
            centred = rows[i, j] - mean[j]
            code = np.rint(min(max(centred * scale, np.float32(-127)), np.float32(127)))
            codes[i, j] = np.int8(code)
            rest = centred - code * step
            missed += rest * rest
            total += centred * centred
            product += rows[i, j] * mean[j]
        error[i], length[i], along[i] = np.sqrt(missed), np.sqrt(total), product


@njit(cache=True, nogil=True)
def best_two(scores: Any, bias: Any, first: Any, second: Any, margin: Any) -> None:
    """Of each row of (N, K) int32 scores plus (K,) bias: the best column, the next, and by how much it is better.
    Of equal ones the lower column. `scores` is spoilt. second is -1 and margin 0 where K = 1."""
    columns = scores.shape[1]
    for i in range(scores.shape[0]):
        row = scores[i]
        top = LEAST
        for j in range(columns):
            row[j] += bias[j]
            top = max(top, row[j])
        best = 0
        while row[best] != top:
            best += 1
        first[i], second[i], margin[i] = best, -1, 0
        if columns > 1:
            row[best] = LEAST
            next_top = LEAST
            for j in range(columns):
                next_top = max(next_top, row[j])
            other = 0
            while row[other] != next_top or other == best:
                other += 1
            second[i], margin[i] = other, top - next_top


@njit(cache=True, nogil=True)
def best_one(scores: Any, bias: Any, first: Any) -> None:
    """Of each row of (N, K) int32 scores plus (K,) bias: the best column; of equal ones the lowest."""
    for i in range(scores.shape[0]):
        row = scores[i]
        top = LEAST
        for j in range(row.shape[0]):
            row[j] += bias[j]
            top = max(top, row[j])
        best = 0
        while row[best] != top:
            best += 1
        first[i] = best


@njit(cache=True, nogil=True)
def merge_best(scores: Any, bias: Any, names: Any, rows: Any, first: Any, second: Any, top: Any, next_top: Any) -> None:
    """Bring (n, k) int32 scores of some rows and some columns into the rows' best two so far.

    bias, names: (k,) of the columns; rows: (n,) places in first, second (column names, -1 none), top, next_top.
    Of equal scores the lower name wins, so the order of the calls does not show.
    """
    for i in range(scores.shape[0]):
        at = rows[i]
        one, two, high, low = first[at], second[at], top[at], next_top[at]
        row = scores[i]
        for start in range(0, row.shape[0], 32):
            stop = min(start + 32, row.shape[0])
            most = LEAST
            for j in range(start, stop):
                row[j] += bias[j]
                most = max(most, row[j])
            if most < low:
                continue
            for j in range(start, stop):
                score, name = row[j], names[j]
                if score > high or (score == high and name < one) or one < 0:
                    one, two, high, low = name, one, score, high
                elif score > low or (score == low and name < two) or two < 0:
                    two, low = name, score
        first[at], second[at], top[at], next_top[at] = one, two, high, low


@njit(cache=True, nogil=True)
def add_rows(rows: Any, label: Any, sums: Any) -> None:
    """Add each of (N, D) float32 rows to row `label[n]` of (K, D) float64 sums, in order."""
    for i in range(rows.shape[0]):
        total = sums[label[i]]
        for j in range(rows.shape[1]):
            total[j] += rows[i, j]


@njit(cache=True, nogil=True, fastmath=True)
def row_dots(rows: Any, others: Any, which: Any, found: Any) -> None:
    """found[n] = rows[n] · others[which[n]], float32."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        other = others[which[i]]
        for j in range(rows.shape[1]):
            total += rows[i, j] * other[j]
        found[i] = total


@njit(cache=True, nogil=True)
def find(parent: Any, i: Any) -> Any:
    """The root of i's set."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def join(parent: Any, i: Any, j: Any) -> bool:
    """Make one set of those of i and j; the lower root stays. False if they were one."""
    i, j = find(parent, i), find(parent, j)
    if i == j:
        return False
    if i < j:
        parent[j] = i
    else:
        parent[i] = j
    return True


@njit(cache=True, nogil=True)
def join_pairs(parent: Any, first: Any, second: Any) -> None:
    """Join many pairs."""
    for k in range(first.shape[0]):
        join(parent, first[k], second[k])


@njit(cache=True, nogil=True)
def roots(parent: Any) -> Any:
    """(N,) root of every row."""
    found = np.empty_like(parent)
    for i in range(parent.shape[0]):
        found[i] = find(parent, i)
    return found


@njit(cache=True, nogil=True)
def one_set(parent: Any, start: int, stop: int, other_start: int, other_stop: int) -> bool:
    """Whether all rows of both ranges are in one set already."""
    root = find(parent, start)
    for i in range(start + 1, stop):
        if find(parent, i) != root:
            return False
    for i in range(other_start, other_stop):
        if find(parent, i) != root:
            return False
    return True


@njit(cache=True, nogil=True)
def scan(
    scores: Any, row: int, column: int, along: Any, bound: Any, least: int, threshold: int, parent: Any,
    doubtful: Any, count: int,
) -> int:  # fmt: skip
    """Go through one tile of (n, m) int32 products of codes: sure links are joined, doubtful pairs listed.

    row, column: local numbers of its first row and column; where both are equal, only its upper triangle counts.
    A pair's likeness in code units is score + along[i] + along[j], off by at most bound[i] + bound[j] (int32 each).
    least: no pair whose score + along[i] stays below can reach the threshold. doubtful: (M, 2) int64, filled from
    `count` on; the new count (which may be larger than M: the tile must then be scanned again with room).
    """
    columns = scores.shape[1]
    for i in range(scores.shape[0]):
        line = scores[i]
        one = row + i
        low = np.int32(least - along[one])
        start = i + 1 if row == column else 0
        while start < columns:
            stop = min(columns, start + 128)
            most = LEAST
            for j in range(start, stop):
                most = max(most, line[j])
            if most > low:
                for j in range(start, stop):
                    if line[j] > low:
                        other = column + j
                        likeness = line[j] + along[one] + along[other]
                        slack = bound[one] + bound[other]
                        if likeness - slack > threshold:
                            join(parent, one, other)
                        elif likeness + slack >= threshold and find(parent, one) != find(parent, other):
                            if count < doubtful.shape[0]:
                                doubtful[count, 0], doubtful[count, 1] = one, other
                            count += 1
            start = stop
    return count


@njit(cache=True, nogil=True)
def still_apart(pairs: Any, parent: Any) -> Any:
    """(M,) bool: which of (M, 2) pairs are not in one set."""
    found = np.empty(pairs.shape[0], np.bool_)
    for k in range(pairs.shape[0]):
        found[k] = find(parent, pairs[k, 0]) != find(parent, pairs[k, 1])
    return found


@njit(cache=True, nogil=True, fastmath=True)
def _quick_dot(one: Any, other: Any) -> Any:
    total = np.float32(0)
    for j in range(one.shape[0]):
        total += one[j] * other[j]
    return total


@njit(cache=True, nogil=True)
def exact_dot(one: Any, other: Any) -> Any:
    """The likeness of two rows: their product in float64, rounded to float32."""
    total = np.float64(0)
    for j in range(one.shape[0]):
        total += np.float64(one[j]) * np.float64(other[j])
    return np.float32(total)


@njit(cache=True, nogil=True)
def settle(pairs: Any, places: Any, rows: Any, threshold: Any, parent: Any) -> None:
    """Join the pairs of (M, 2) whose likeness reaches the threshold. places: (M, 2) their rows in (n, D) `rows`."""
    for k in range(pairs.shape[0]):
        if find(parent, pairs[k, 0]) == find(parent, pairs[k, 1]):
            continue
        one, other = rows[places[k, 0]], rows[places[k, 1]]
        likeness = _quick_dot(one, other)
        if abs(likeness - threshold) < 1e-5:
            likeness = exact_dot(one, other)
        if likeness >= threshold:
            join(parent, pairs[k, 0], pairs[k, 1])
