"""The inner loops over sets of linked rows: union-find and what decides which rows are joined. As in
`bunny.curate.kernels`, nothing depends on blocks, threads or machines. The lowest row of a set is its root."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from bunny.curate.kernels import LEAST


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
def meet(one: Any, other: Any) -> bool:
    """Whether two rows with these (P,) groups share one; -1 is none."""
    for i in range(one.shape[0]):
        if one[i] >= 0:
            for j in range(other.shape[0]):
                if one[i] == other[j]:
                    return True
    return False


@njit(cache=True, nogil=True)
def join_levels(scores: Any, start: int, rows: Any, groups: Any, levels: Any, parents: Any) -> None:
    """Join, in (L, n) parents, the rows that are linked at each of (L,) ascending levels.

    scores: products of rows start, start + 1, … with the rows from `start` on; only later rows count. groups: (n, P);
    compared are rows that share one. A score near a level is taken again, exactly.
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
            while level < top and levels[level + 1] <= score + np.float32(1e-5):
                level += 1
            while level > 0 and levels[level] > score + np.float32(1e-5):
                level -= 1
            known = parents[level]
            if known[one] == known[other] or find(known, one) == find(known, other):
                continue
            if not meet(groups[one], groups[other]):
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
    rows: Any, edges: Any, most: int, groups: Any, levels: Any, mark: int, names: Any,
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
        join_levels(scores, 0, own, groups[start:stop], levels, parents)
        least_in_set(own, parents[mark], scores, least[start:stop])
        found = np.full(size, np.float32(np.nan), np.float32)
        first = np.full(size, -1, np.int64)
        first_links(parents, levels, found, first)
        for i in range(size):
            cosine[start + i] = found[i]
            to[start + i] = names[start + first[i]] if first[i] >= 0 else names[start + i]
