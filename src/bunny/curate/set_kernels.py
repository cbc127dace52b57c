"""The inner loops over sets of linked rows: union-find and what decides which rows are joined. As in
`bunny.curate.kernels`, nothing depends on blocks, threads or machines. The lowest row of a set is its root."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from bunny.curate.kernels import LEAST, RUN, most_of


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
def put_rows(rows: Any, chosen: Any, found: Any, places: Any) -> None:
    """Row chosen[n] of (M, D) int8 rows becomes row places[n] of `found`."""
    for n in range(chosen.shape[0]):
        row, to = rows[chosen[n]], found[places[n]]
        for j in range(row.shape[0]):
            to[j] = row[j]


@njit(cache=True, nogil=True)
def scan(scores: Any, span: Any, along: Any, bound: Any, threshold: int, parent: Any, doubtful: Any, count: int) -> int:
    """Go through one tile of int32 products of codes: sure links are joined, doubtful pairs listed.

    span: first row, last + 1, first column, last + 1, in local numbers (`scores` may be larger); where rows and columns
    begin with one number, only the upper triangle counts. A pair's likeness in code units is
    score + along[i] + along[j], off by at most bound[i] + bound[j] (int32 each). doubtful: (M, 2) int64, filled from
    `count` on; the new count (which may be larger than M: the tile must then be scanned again with room).
    """
    first, last, column, last_column = span
    columns = last_column - column
    most = LEAST  # that a column adds to a score
    for j in range(column, last_column):
        most = max(most, along[j] + bound[j])
    for one in range(first, last):
        line = scores[one - first]
        low = np.int32(threshold - along[one] - bound[one] - most - 1)  # no score up to this can reach the threshold
        start = one - first + 1 if first == column else 0
        while start < columns:
            stop = min(columns, start + RUN)
            if most_of(line[start:stop]) > low:
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
def _sure_dot(one: Any, other: Any, levels: Any) -> Any:
    """The likeness of two rows: exact if it is close to one of (L,) ascending levels."""
    likeness = _quick_dot(one, other)
    for level in levels:
        if abs(likeness - level) < np.float32(1e-5):
            return exact_dot(one, other)
    return likeness


@njit(cache=True, nogil=True)
def join_levels(
    scores: Any, start: int, along: Any, bound: Any, cuts: Any, rows: Any, groups: Any, levels: Any, parents: Any
) -> None:
    """Join, in (L, n) parents, the rows that are linked at each of (L,) ascending levels.

    scores: of rows start, start + 1, … with the rows from `start` on; only later rows count. A pair's likeness is
    score + along[i] + along[j], off by at most bound[i] + bound[j], in units in which the levels are `cuts`; where that
    leaves a doubt, (n, D) rows decide. groups: (n, P); compared are rows that share one.
    """
    last = parents.shape[1] - start
    most = along[start] + bound[start]  # that a row adds to a score
    for other in range(start, parents.shape[1]):
        most = max(most, along[other] + bound[other])
    for i in range(min(scores.shape[0], last)):
        one = start + i
        for begin in range(i + 1, last, RUN):
            line = scores[i, begin : min(begin + RUN, last)]
            if line.shape[0] == RUN:
                reach = most_of(line) + along[one] + bound[one] + most
                if _known_together(reach, one, start + begin, cuts, parents):
                    continue
            _join_run(line, one, start + begin, along, bound, cuts, rows, groups, levels, parents)


@njit(cache=True, nogil=True)
def _known_together(reach: Any, one: int, other: int, cuts: Any, parents: Any) -> bool:
    """Whether a row and RUN others are in one set already at every level up to `reach`; True if it lies below all."""
    if reach < cuts[0]:
        return True
    known = parents[_level_of(reach, cuts, 0)]
    root = known[one]
    apart = 0
    for parent in known[other : other + RUN]:
        apart += parent != root
    return apart == 0


@njit(cache=True, nogil=True)
def _level_of(likeness: Any, cuts: Any, level: int) -> int:
    """The highest level at or below a likeness, which is no lower than the lowest; the search begins at `level`."""
    while level < cuts.shape[0] - 1 and cuts[level + 1] <= likeness:
        level += 1
    while cuts[level] > likeness:
        level -= 1
    return level


@njit(cache=True, nogil=True)
def _join_run(
    line: Any, one: int, first: int, along: Any, bound: Any, cuts: Any, rows: Any, groups: Any, levels: Any,
    parents: Any,
) -> None:  # fmt: skip
    """`join_levels` for one row and those from `first` on."""
    level = 0  # scores in a row are alike: the search begins where the last one ended
    for j in range(line.shape[0]):
        other = first + j
        slack = bound[one] + bound[other]
        most = line[j] + along[one] + along[other] + slack
        if most < cuts[0]:
            continue
        level = _level_of(most, cuts, level)
        known = parents[level]
        if known[one] == known[other] or find(known, one) == find(known, other):
            continue
        if not meet(groups[one], groups[other]):
            continue
        reached = level
        if most - 2 * slack <= cuts[level]:
            likeness = _sure_dot(rows[one], rows[other], levels)
            while reached >= 0 and levels[reached] > likeness:
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
def least_in_set(rows: Any, parent: Any, scores: Any, along: Any, bound: Any, least: Any) -> None:
    """The lowest likeness of two rows of each row's set; scores, along, bound: as in `join_levels`, of all pairs."""
    size = rows.shape[0]
    reach = np.full(size, 2**30, scores.dtype)  # of each set's root: surely no less than its lowest likeness
    for i in range(size):
        root = find(parent, i)
        for j in range(i + 1, size):
            if find(parent, j) == root:
                reach[root] = min(reach[root], scores[i, j] + along[i] + along[j] + bound[i] + bound[j])
    lowest = np.full(size, np.float32(2))
    for i in range(size):
        root = find(parent, i)
        for j in range(i + 1, size):
            if find(parent, j) == root and scores[i, j] + along[i] + along[j] - bound[i] - bound[j] <= reach[root]:
                lowest[root] = min(lowest[root], _quick_dot(rows[i], rows[j]))
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
    along, bound = np.zeros(most, np.float32), np.full(most, np.float32(5e-6))
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
        join_levels(scores, 0, along, bound, levels, own, groups[start:stop], levels, parents)
        least_in_set(own, parents[mark], scores, along, bound, least[start:stop])
        found = np.full(size, np.float32(np.nan), np.float32)
        first = np.full(size, -1, np.int64)
        first_links(parents, levels, found, first)
        for i in range(size):
            cosine[start + i] = found[i]
            to[start + i] = names[start + first[i]] if first[i] >= 0 else names[start + i]
