"""Near duplicates: unit vectors in, the strongest links between them out, exact, blockwise.

A `Forest` holds, of all pairs at or above a cosine, only the links that join groups first (a maximum spanning
forest): at most N - 1 of them, and enough to give the linked groups at every higher threshold without new products.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from bunny.core.types import FloatArray, IntArray

TILE = 2048  # rows of one product tile: 2048 x 2048 float32 = 16 MB
KEEP_LINKS = 4_000_000  # links held before they are thinned to a forest again (64 MB)
DOUBT = 1e-5  # float32 products this near to the threshold are done again in float64


@dataclass(frozen=True, slots=True)
class Forest:
    """Links between `size` rows. first, second: (E,) int64; cosine: (E,) float64; E < size."""

    size: int
    first: IntArray
    second: IntArray
    cosine: FloatArray

    def groups(self, above: float) -> IntArray:
        """(N,) int32 group of every row: rows linked, directly or in a chain, by cosines of at least `above`."""
        strong = self.cosine >= above
        graph = _graph(self.size, self.first[strong], self.second[strong], np.ones(int(strong.sum())))
        return connected_components(graph, directed=False)[1].astype(np.int32)  # type: ignore[no-any-return]  # scipy

    def removed(self, above: float) -> int:
        """How many rows go if one of each group stays: the number of links at or above the threshold."""
        return int((self.cosine >= above).sum())

    def link_of_row(self) -> FloatArray:
        """(N,) float32: each link's cosine stands at one row of its own, NaN at rows without; a forest in one column.

        So `(column >= t).sum()` is `removed(t)`, also from a table on disk."""
        cosine = np.full(self.size + 1, np.nan, dtype=np.float32)
        roots = np.unique(self.groups(-1.0), return_index=True)[1]
        first = np.concatenate([self.first, roots])
        second = np.concatenate([self.second, np.full(len(roots), self.size)])  # a root above all groups
        graph = _graph(self.size + 1, first, second, np.ones(len(first)))
        _, parent = breadth_first_order(graph, self.size, directed=False)
        second_is_child = parent[self.second] == self.first
        cosine[np.where(second_is_child, self.second, self.first)] = self.cosine
        return cosine[:-1]


def link(
    vectors: FloatArray, above: float, lowest: float | None = None, parts: Iterable[IntArray] | None = None
) -> Forest:
    """The forest of all pairs with cosine >= lowest, groups exact (float64) at `above`.

    vectors: (N, D) unit rows, float16 or float32. lowest: default `above`; smaller remembers weaker links too.
    parts: (n,) row numbers to compare among themselves, e.g. the clusters; default: all rows with all.
    """
    lowest = above if lowest is None else min(lowest, above)
    held: list[tuple[IntArray, IntArray, FloatArray]] = []
    count = 0
    for rows in parts if parts is not None else [np.arange(len(vectors))]:
        for links in _links_of_part(vectors, np.asarray(rows, dtype=np.int64), above, lowest):
            held.append(links)
            count += len(links[0])
            if count > KEEP_LINKS:
                held = [_thin(len(vectors), held)]
                count = len(held[0][0])
    return Forest(len(vectors), *_thin(len(vectors), held))


def row_cosine(vectors: FloatArray, other: IntArray) -> FloatArray:
    """(N,) float32 cosine of every row to row `other[n]`, block by block."""
    cosine = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), TILE):
        rows = slice(start, start + TILE)
        cosine[rows] = np.einsum("nd,nd->n", vectors[rows], vectors[other[rows]], dtype=np.float32)
    return cosine


def _links_of_part(
    vectors: FloatArray, rows: IntArray, above: float, lowest: float
) -> Iterable[tuple[IntArray, IntArray, FloatArray]]:
    """All links among the given rows, tile by tile of the upper triangle."""
    for start in range(0, len(rows), TILE):
        left = np.asarray(vectors[rows[start : start + TILE]], dtype=np.float32)
        for other in range(start, len(rows), TILE):
            right = left if other == start else np.asarray(vectors[rows[other : other + TILE]], dtype=np.float32)
            likeness = left @ right.T  # (tile, tile)
            i, j = np.nonzero(likeness >= lowest - DOUBT)
            if other == start:
                i, j = i[i < j], j[i < j]
            first, second = rows[start + i], rows[other + j]
            cosine = likeness[i, j].astype(np.float64)
            _settle(vectors, first, second, cosine, above)
            _settle(vectors, first, second, cosine, lowest)
            sure = cosine >= lowest
            yield first[sure], second[sure], cosine[sure]


def _settle(vectors: FloatArray, first: IntArray, second: IntArray, cosine: FloatArray, threshold: float) -> None:
    """Replace, in place, the cosines that float32 cannot tell from the threshold by float64 ones."""
    doubtful = np.flatnonzero(np.abs(cosine - threshold) <= DOUBT)
    for start in range(0, len(doubtful), TILE):
        some = doubtful[start : start + TILE]
        left = np.asarray(vectors[first[some]], dtype=np.float64)
        cosine[some] = np.einsum("nd,nd->n", left, np.asarray(vectors[second[some]], dtype=np.float64))


def _thin(size: int, held: list[tuple[IntArray, IntArray, FloatArray]]) -> tuple[IntArray, IntArray, FloatArray]:
    """The maximum spanning forest of the links held."""
    if not held:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    first, second, cosine = (np.concatenate([part[column] for part in held]) for column in range(3))
    keys = np.minimum(first, second) * np.int64(size) + np.maximum(first, second)
    keys, once = np.unique(keys, return_index=True)  # a pair may be met in two parts
    cosine = cosine[once]
    tree = minimum_spanning_tree(_graph(size, keys // size, keys % size, 2.0 - cosine)).tocoo()  # weights > 0
    first, second = np.minimum(tree.row, tree.col).astype(np.int64), np.maximum(tree.row, tree.col).astype(np.int64)
    return first, second, cosine[np.searchsorted(keys, first * np.int64(size) + second)]


def _graph(size: int, first: IntArray, second: IntArray, weight: FloatArray) -> csr_matrix:
    return coo_matrix((weight, (first, second)), shape=(size, size)).tocsr()
