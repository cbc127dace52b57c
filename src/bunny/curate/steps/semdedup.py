"""SemDeDup's rule: a picture goes if one before it, in the order of its cluster, is too much like it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from bunny.core.types import Decision, FloatArray, IntArray, Pool, one_reason
from bunny.curate.earlier import likest_earlier
from bunny.curate.step import OrderedStep, column, decision, numbers, vectors_of
from bunny.curate.texts import labels


class Semdedup(OrderedStep):
    """Abbas et al. 2023 (arXiv:2303.09540): within each cluster, rows in order of their likeness to the centroid, a row
    goes if its highest cosine to an earlier row is above 1 - eps. Adds `link_cosine`, that cosine, and `link_to`.

    Unlike `dedup` it follows no chains both ways: an earlier row counts even if it goes itself, and what is kept may be
    alike through it. The twin is the row at the end of the chain. Counting `link_cosine` > 1 - eps gives the rows that
    go at any eps.
    """

    eps: float = Field(gt=0, lt=2, description="rows with a cosine above 1 - eps to an earlier one go")
    keep: Literal["hard", "easy", "random"] = "hard"  # hard: farthest from the centroid first (the released default)
    vectors: str = "visual"  # the column to compare

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        vectors = vectors_of(pool, self.vectors, "semdedup")
        group = labels(column(pool, "cluster", "semdedup", made_by="cluster"))
        order = np.lexsort((np.arange(len(pool)), self._rank(pool, rng), group))
        cosine = np.full(len(pool), np.nan)
        earlier = np.full(len(pool), -1, np.int64)
        sizes = np.bincount(group)
        for rows in np.split(order, np.cumsum(sizes)[:-1]) if len(pool) else ():
            cosine[rows], place = likest_earlier(vectors[rows])
            earlier[rows] = np.where(place >= 0, rows[place], -1)
        goes = cosine > 1 - self.eps  # NaN, the first of a cluster, stays
        reason = f"semantic duplicate: a cosine above {1 - self.eps:g} to an earlier picture of its cluster"
        return decision(
            one_reason(goes, reason),
            _ends(np.where(goes, earlier, np.arange(len(pool)))),
            link_cosine=cosine.astype(np.float32),
            link_to=earlier,
        )

    def _rank(self, pool: Pool, rng: np.random.Generator) -> FloatArray:
        """(N,) what rows are sorted by within their cluster, lowest first."""
        if self.keep == "random":
            return rng.random(len(pool))
        likeness = numbers(pool, "centre_cosine", "semdedup")
        return likeness if self.keep == "hard" else -likeness


def _ends(onward: IntArray) -> IntArray:
    """(N,) where each row arrives that goes on and on; kept rows stay where they are."""
    while True:
        further: IntArray = onward[onward]
        if bool((further == onward).all()):
            return onward
        onward = further


USE = Semdedup
