"""The inner loops of curation, compiled by numba and cached. Every loop goes over rows in order, in one thread, without
reordered sums: blocks, threads and machines do not show in the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LEAST = np.int32(-2147483647)


@njit(cache=True, nogil=True, fastmath=True)
def unit_rows(rows: Any) -> None:
    """Scale (N, D) float32 rows to length one, in place. Zero rows become NaN."""
    for i in range(rows.shape[0]):
        row = rows[i]
        total = np.float64(0)
        for j in range(row.shape[0]):
            value = np.float64(row[j])
            total += value * value
        scale = np.float32(1.0 / np.sqrt(total)) if total != 0 else np.float32(np.nan)
        for j in range(row.shape[0]):
            row[j] *= scale


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
def best_cells(scores: Any, bias: Any, cells: Any) -> None:
    """(N, P) int32 columns of the P best of (N, C) int32 scores plus (C,) bias, best first; of equal ones the lower."""
    wanted = cells.shape[1]
    tops = np.empty(wanted, np.int32)
    for i in range(scores.shape[0]):
        tops[:] = LEAST
        cells[i, :] = -1
        for j in range(scores.shape[1]):
            score = scores[i, j] + bias[j]
            if score > tops[wanted - 1] or cells[i, wanted - 1] < 0:
                place = wanted - 1
                while place > 0 and (cells[i, place - 1] < 0 or score > tops[place - 1]):
                    tops[place], cells[i, place] = tops[place - 1], cells[i, place - 1]
                    place -= 1
                tops[place], cells[i, place] = score, j


@njit(cache=True, nogil=True)
def add_codes(codes: Any, label: Any, sums: Any, count: Any) -> None:
    """Add each of (N, D) int8 rows to row `label[n]` of (K, D) int64 sums, and count it."""
    for i in range(codes.shape[0]):
        total = sums[label[i]]
        count[label[i]] += 1
        for j in range(codes.shape[1]):
            total[j] += codes[i, j]


@njit(cache=True, nogil=True)
def add_rows(rows: Any, label: Any, sums: Any) -> None:
    """Add each of (N, D) float32 rows to row `label[n]` of (K, D) float64 sums, in order."""
    for i in range(rows.shape[0]):
        total = sums[label[i]]
        for j in range(rows.shape[1]):
            total[j] += rows[i, j]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def apart(centres: Any, first: Any, second: Any, found: Any) -> None:
    """(N,) float32 distances of centres first[n] and second[n]; infinite where there is no second."""
    for i in range(first.shape[0]):
        if second[i] < 0:
            found[i] = np.float32(np.inf)
            continue
        one, other = centres[first[i]], centres[second[i]]
        total = np.float32(0)
        for j in range(one.shape[0]):
            step = one[j] - other[j]
            total += step * step
        found[i] = np.sqrt(total)


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
    for i in range(other_start, other_stop):  # noqa: SIM110  # numba knows no generators
        if find(parent, i) != root:
            return False
    return True


@njit(cache=True, nogil=True)
def _most(line: Any) -> Any:
    """The largest number of a run; one of 128, whose length the compiler knows, takes a tenth of the time."""
    most = LEAST
    if line.shape[0] == 128:
        for j in range(128):
            most = max(most, line[j])
    else:
        for j in range(line.shape[0]):
            most = max(most, line[j])
    return most


@njit(cache=True, nogil=True)
def scan(
    scores: Any, span: Any, along: Any, bound: Any, least: int, threshold: int, parent: Any, doubtful: Any, count: int
) -> int:
    """Go through one tile of int32 products of codes: sure links are joined, doubtful pairs listed.

    span: first row, last + 1, first column, last + 1, in local numbers (`scores` may be larger); where rows and columns
    begin with one number, only the upper triangle counts. A pair's likeness in code units is
    score + along[i] + along[j], off by at most bound[i] + bound[j] (int32 each). least: no pair whose score + along[i]
    stays below can reach the threshold. doubtful: (M, 2) int64, filled from `count` on; the new count (which may be
    larger than M: the tile must then be scanned again with room).
    """
    first, last, column, last_column = span
    columns = last_column - column
    for one in range(first, last):
        line = scores[one - first]
        low = np.int32(least - along[one])
        start = one - first + 1 if first == column else 0
        while start < columns:
            stop = min(columns, start + 128)
            if _most(line[start:stop]) > low:
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
def within_reach(
    scores: Any, along: Any, bound: Any, column_along: Any, column_bound: Any, threshold: int, pairs: Any
) -> int:
    """The (row, column) pairs of (n, m) int32 products whose likeness may reach the threshold, written into (M, 2)
    `pairs`; how many. The others as in `scan`."""
    count = 0
    for i in range(scores.shape[0]):
        line = scores[i]
        low = threshold - along[i] - bound[i]
        for j in range(line.shape[0]):
            if line[j] + column_along[j] + column_bound[j] >= low:
                pairs[count, 0], pairs[count, 1] = i, j
                count += 1
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


@njit(cache=True, nogil=True)
def join_levels(
    scores: Any, start: int, rows: Any, group: Any, second: Any, levels: Any, parents: Any
) -> None:  # fmt: skip
    """Join, in (L, n) parents, the rows that are linked at each of (L,) ascending levels.

    scores: products of rows start, start + 1, … with the rows from `start` on; only later rows count. Compared are rows
    that share a group: their first or, where it is not -1, their second. A score near a level is taken again, exactly.
    """
    top = levels.shape[0] - 1
    level = np.int64(0)  # scores in a row are alike: the search begins where the last one ended
    for i in range(scores.shape[0]):
        one = start + i
        for j in range(i + 1, scores.shape[1]):
            score = scores[i, j]
            if score < levels[0] - np.float32(1e-5):
                continue
            other = start + j
            if not (
                group[one] == group[other]
                or group[one] == second[other]
                or second[one] == group[other]
                or (second[one] >= 0 and second[one] == second[other])
            ):
                continue
            while level < top and levels[level + 1] <= score + np.float32(1e-5):
                level += 1
            while level > 0 and levels[level] > score + np.float32(1e-5):
                level -= 1
            if find(parents[level], one) == find(parents[level], other):
                continue
            reached = level
            if score < levels[level] + np.float32(1e-5) and exact_dot(rows[one], rows[other]) < levels[level]:
                reached -= 1
            while reached >= 0 and join(parents[reached], one, other):
                reached -= 1


@njit(cache=True, nogil=True)
def first_links(parents: Any, levels: Any, cosine: Any, to: Any) -> None:
    """Of each row the highest level at which it is not the first of its set, and that first row."""
    for level in range(parents.shape[0] - 1, -1, -1):
        for i in range(parents.shape[1]):
            if to[i] < 0:
                root = find(parents[level], i)
                if root != i:
                    cosine[i], to[i] = levels[level], root


@njit(cache=True, nogil=True)
def least_in_set(rows: Any, parent: Any, scores: Any, least: Any) -> None:
    """The lowest product between two rows of each row's set; scores: their upper triangle, or None."""
    size = rows.shape[0]
    lowest = np.full(size, np.float32(2))
    for i in range(size):
        root = find(parent, i)
        for j in range(i + 1, size):
            if find(parent, j) == root:
                score = scores[i, j] if scores is not None else _quick_dot(rows[i], rows[j])
                lowest[root] = min(lowest[root], score)
    for i in range(size):
        low = lowest[find(parent, i)]
        if low < np.float32(2):
            least[i] = low


@njit(cache=True, nogil=True)
def link_small_sets(
    rows: Any, edges: Any, most: int, group: Any, second: Any, levels: Any, mark: int, names: Any,
    cosine: Any, to: Any, least: Any,
) -> None:  # fmt: skip
    """Links of every set of at most `most` rows. Set k is rows edges[k] to edges[k + 1] - 1 of (N, D) rows; names: (N,)
    what `to` calls them; the others as in `join_levels`, `first_links` and, at level `mark`, `least_in_set`."""
    for k in range(edges.shape[0] - 1):
        start, stop = edges[k], edges[k + 1]
        size = stop - start
        if size > most:
            continue
        own = rows[start:stop]
        scores = np.empty((size, size), np.float32)
        for i in range(size):
            for j in range(i + 1, size):
                scores[i, j] = _quick_dot(own[i], own[j])
        parents = np.empty((levels.shape[0], size), np.int64)
        for level in range(levels.shape[0]):
            for i in range(size):
                parents[level, i] = i
        join_levels(scores, 0, own, group[start:stop], second[start:stop], levels, parents)
        least_in_set(own, parents[mark], scores, least[start:stop])
        found = np.full(size, np.float32(np.nan), np.float32)
        first = np.full(size, -1, np.int64)
        first_links(parents, levels, found, first)
        for i in range(size):
            cosine[start + i] = found[i]
            to[start + i] = names[start + first[i]] if first[i] >= 0 else names[start + i]
