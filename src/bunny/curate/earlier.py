"""For each row the likest of the rows before it: unit vectors in an order in, cosines and places out.

Float32 products find the candidates, float64 decides among those within 1e-5 of the highest: of equal ones the first.
So neither the tiles nor the machine show in the outcome.
"""

from __future__ import annotations

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.curate.columns import Rows

TILE = 2048
DOUBT = 1e-5
CANDIDATES = 64  # of one row in one tile; more are copies of each other, of which the first is wanted anyway


def likest_earlier(vectors: Rows) -> tuple[FloatArray, IntArray]:
    """(n,) float64 highest cosine of each row to one before it, NaN for the first; (n,) the place of that one, -1.

    >>> likest_earlier(Rows.of(np.array([[1, 0], [0, 1], [1, 0]], np.float32)))
    (array([nan,  0.,  1.]), array([-1,  0,  0]))
    """
    best = np.full(len(vectors), -np.inf)
    place = np.full(len(vectors), -1, np.int64)
    for start in range(0, len(vectors), TILE):
        left = vectors.read(slice(start, start + TILE))
        for other in range(0, start + 1, TILE):
            right = left if other == start else vectors.read(slice(other, other + TILE))
            likeness = left @ right.T  # (tile, tile)
            if other == start:
                likeness[np.triu_indices(len(left))] = -np.inf
            row, which, cosine = _likest(left, right, likeness)
            better = cosine > best[start + row]  # of equal ones the tile before has the first
            best[start + row[better]], place[start + row[better]] = cosine[better], other + which[better]
    return np.where(place < 0, np.nan, best), place


def _likest(left: FloatArray, right: FloatArray, likeness: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """(row, place on the right, exact cosine) of the likest of one tile, for the rows that have any."""
    top = likeness.max(axis=1, initial=-np.inf, keepdims=True)
    near = (likeness >= top - DOUBT) & (likeness > -np.inf)
    near &= np.cumsum(near, axis=1, dtype=np.int32) <= CANDIDATES
    i, j = np.nonzero(near)
    cosine = np.empty(len(i))
    for start in range(0, len(i), TILE):
        some = slice(start, start + TILE)
        cosine[some] = np.einsum("nd,nd->n", left[i[some]].astype(np.float64), right[j[some]].astype(np.float64))
    cosine = np.round(cosine, 9)  # copies have equal cosines on every machine
    order = np.lexsort((j, -cosine, i))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(i[order]) > 0
    chosen = order[first]
    return i[chosen], j[chosen], cosine[chosen]
