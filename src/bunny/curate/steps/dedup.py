"""Near duplicates: of pictures linked by a cosine above a threshold, directly or in a chain, one stays."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.sparse import csr_matrix

from bunny.core.types import Decision, FloatArray, IntArray, Pool, one_reason
from bunny.curate.columns import Rows
from bunny.curate.duplicates import find_duplicates, row_cosine
from bunny.curate.stars import Preference, split_into_stars
from bunny.curate.step import OrderedStep, column, decision, vectors_of
from bunny.curate.work import place_of

FEW = 200_000  # rows up to which the curve goes below the threshold by itself
BELOW = 0.06


class Dedup(OrderedStep):
    """Keeps one member of every linked group. Adds `component`, `twin_cosine`, `least_cosine` (the lowest cosine within
    the group: how far a chain stretches), `link_cosine` and `link_to` (the groups at every threshold of the curve).

    keep: `median` is the published coreset's rule: members sorted from the centroid outwards, number len // 2 stays;
    `nearest` and `farthest` are its ends; `best` has the highest value of the column `by`. Notes: an estimate of the
    removable duplicates that were not found, from rows compared with all rows.
    """

    above: float = Field(gt=-1, le=1, description="cosine from which two pictures are linked")
    keep: Literal["median", "nearest", "farthest", "best"] = "median"
    by: str | None = None  # the column that says which is best, e.g. pair_cosine
    linking: Literal["chain", "star"] = "chain"  # star: every row that goes is itself linked to the one that stays
    least_cosine: float | None = Field(None, ge=-1, le=1, description="star: of any two members; the widest diameter")
    vectors: str = "visual"  # the column to compare
    within: Literal["cluster", "pool"] = "cluster"  # `pool` compares all with all: exact, N² products
    probes: Literal[1, 2, 3] = 3  # clusters in which a row near borders is compared, if known; 1: the paper's way
    curve_from: float | None = Field(None, gt=-1, le=1, description="lowest threshold of the curve")

    @model_validator(mode="after")
    def _fits(self) -> Dedup:
        if (self.keep == "best") != (self.by is not None):
            raise ValueError("`keep: best` and `by: COLUMN` belong together")
        if self.least_cosine is not None and self.linking != "star":
            raise ValueError("`least_cosine` needs `linking: star`")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        vectors = vectors_of(pool, self.vectors, "dedup")
        with place_of(pool) as place:
            found = find_duplicates(vectors, self._groups(pool), self.above, self._lowest(len(pool)), rng, place)
        component = _numbered(found.sets)
        score = self._score(pool, vectors, component)
        if self.linking == "star":
            prefer: Preference = "middle" if self.keep == "median" else "last" if self.keep == "farthest" else "first"
            twin = split_into_stars(vectors, component, score, prefer, self.above, self.least_cosine)
        else:
            twin = self._chosen(np.lexsort((np.arange(len(pool)), -score, component)), component)
        dropped = twin != np.arange(len(pool))
        likeness = np.where(dropped, row_cosine(vectors, np.flatnonzero(dropped), twin), np.nan).astype(np.float32)
        how = "linked" if self.linking == "chain" else "each linked to the one that stays"
        reason = f"near duplicate: {how} by cosines of at least {self.above:g}; the group's {self.keep} stays"
        columns = {"component": component, "twin_cosine": likeness, "least_cosine": found.links.least}
        columns |= {"link_cosine": found.links.cosine, "link_to": found.links.to}
        made = decision(one_reason(dropped, reason), twin, **columns)
        return Decision(made.keep, made.reason, made.twin, made.columns, found.notes)

    def _lowest(self, rows: int) -> float:
        """The curve's lowest threshold."""
        if self.curve_from is not None:
            return min(self.curve_from, self.above)
        return self.above - BELOW if rows <= FEW else self.above

    def _groups(self, pool: Pool) -> IntArray:
        """(N, P) int32 groups of every row: compared are rows that share one."""
        if self.within == "pool":
            return np.zeros((len(pool), 1), np.int32)
        names = ["cluster", "second_cluster", "third_cluster"][: self.probes]
        if names[-1] == "third_cluster" and "third_cluster" not in pool:  # grouped by something that knows two
            names.pop()
        found: IntArray = np.stack([column(pool, name, "dedup", made_by="cluster") for name in names], 1)
        return found.astype(np.int32, copy=False)

    def _score(self, pool: Pool, vectors: Rows, component: IntArray) -> FloatArray:
        """(N,) float64, what the members are ranked by: a column, else the cosine to the centroid."""
        score: FloatArray
        if self.by is not None:
            score = np.asarray(column(pool, self.by, "dedup"), dtype=np.float64)
        elif "centre_cosine" in pool:
            score = np.asarray(pool["centre_cosine"], dtype=np.float64)
        else:
            score = _cosine_to_mean(vectors, component)
        return np.nan_to_num(score, nan=-np.inf)

    def _chosen(self, order: IntArray, component: IntArray) -> IntArray:
        """(N,) the member that stays, for every row. order: rows sorted by component, best first."""
        _, start, size = np.unique(component[order], return_index=True, return_counts=True)
        place = {"median": size // 2, "farthest": size - 1}.get(self.keep, np.zeros_like(size))
        return order[start + place][component] if len(order) else order


def _numbered(sets: IntArray) -> IntArray:
    """(N,) int32: sets named by their lowest row become 0, 1, 2 …"""
    first = sets == np.arange(len(sets))
    number = np.cumsum(first, dtype=np.int32) - 1
    return number[sets]


def _cosine_to_mean(vectors: Rows, component: IntArray) -> FloatArray:
    """(N,) cosine of each row to the mean of its component: the centroid where there are no clusters."""
    size = int(component.max(initial=-1)) + 1
    sums = np.zeros((size, vectors.shape[1]))
    for start, block in vectors.blocks():
        here = component[start : start + len(block)]
        member = csr_matrix((np.ones(len(here)), (here, np.arange(len(here)))), (size, len(here)))
        sums += member @ block.astype(np.float64)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    cosine = np.empty(len(component))
    for start, block in vectors.blocks():
        cosine[start : start + len(block)] = np.einsum("nd,nd->n", block, means[component[start : start + len(block)]])
    return cosine


USE = Dedup
