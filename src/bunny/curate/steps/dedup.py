"""Near duplicates: of pictures linked by a cosine above a threshold, directly or in a chain, one stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.sparse import csr_matrix

from bunny.core.types import Decision, FloatArray, IntArray, Pool
from bunny.curate.neighbours import link, row_cosine
from bunny.curate.step import OrderedStep, column, decision, vectors_of


class Dedup(OrderedStep):
    """Keeps one member of every linked group. Adds `component`, `twin_cosine` and `link_cosine` (threshold curve).

    keep: `median` is the published coreset's rule: members sorted from the centroid outwards, number len // 2 stays;
    `nearest` and `farthest` (SemDeDup's) are its ends; `best` has the highest value of the column `by`.
    """

    above: float = Field(gt=-1, le=1, description="cosine from which two pictures are linked")
    keep: Literal["median", "nearest", "farthest", "best"] = "median"
    by: str | None = None  # the column that says which is best, e.g. pair_cosine
    vectors: str = "visual"  # the column to compare
    within: Literal["cluster", "pool"] = "cluster"  # `pool` compares all with all: exact, N² products
    probes: Literal[1, 2] = 2  # 2: rows near a border are compared in their second cluster too; 1: the paper's way
    curve_from: float = Field(0.8, gt=-1, le=1, description="links from here on are remembered for the curve")

    @model_validator(mode="after")
    def _best_needs_by(self) -> Dedup:
        if (self.keep == "best") != (self.by is not None):
            raise ValueError("`keep: best` and `by: COLUMN` belong together")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        vectors = np.asarray(vectors_of(pool, self.vectors, "dedup"))
        parts = list(self._parts(pool)) if self.within == "cluster" else None
        forest = link(vectors, self.above, self.curve_from, parts)
        component = forest.groups(self.above)
        twin = self._chosen(self._order(pool, vectors, component), component)
        dropped = twin != np.arange(len(pool))
        cosine = row_cosine(vectors, twin)
        reason = f"near duplicate: linked by cosines of at least {self.above:g}; the group's {self.keep} stays"
        return decision(
            np.where(dropped, reason, "").astype(object),
            twin,
            component=component,
            twin_cosine=np.where(dropped, cosine, np.nan).astype(np.float32),
            link_cosine=forest.link_of_row(),
        )

    def _parts(self, pool: Pool) -> Iterator[IntArray]:
        """(n,) rows of each cluster; with two probes also the rows whose second cluster it is and that lie so near to
        the border that a linked picture may be beyond it (unit vectors: distance² = 2 - 2 cos)."""
        home = np.asarray(column(pool, "cluster", "dedup", made_by="cluster"))
        rows, label = np.arange(len(pool)), home
        if self.probes == 2:
            reach = np.sqrt(max(0.0, 2 - 2 * min(self.above, self.curve_from))) + 1e-4
            second, border = (column(pool, name, "dedup", made_by="cluster") for name in ("second_cluster", "border"))
            guests = np.flatnonzero((border <= reach) & (second >= 0))
            rows, label = np.concatenate([rows, guests]), np.concatenate([home, second[guests]])
        order = np.lexsort((rows, label))
        edges = np.flatnonzero(np.diff(label[order])) + 1
        yield from np.split(rows[order], edges) if len(rows) else ()

    def _order(self, pool: Pool, vectors: FloatArray, component: IntArray) -> IntArray:
        """(N,) rows sorted by component, then best first (equal ones by id)."""
        score: FloatArray
        if self.by is not None:
            score = np.asarray(column(pool, self.by, "dedup"), dtype=np.float64)
        elif "centre_cosine" in pool:
            score = np.asarray(pool["centre_cosine"], dtype=np.float64)
        else:
            score = _cosine_to_mean(vectors, component)
        return np.lexsort((np.arange(len(pool)), -np.nan_to_num(score, nan=-np.inf), component))

    def _chosen(self, order: IntArray, component: IntArray) -> IntArray:
        """(N,) the member that stays, for every row. order: rows sorted by component, best first."""
        _, start, size = np.unique(component[order], return_index=True, return_counts=True)
        place = {"median": size // 2, "farthest": size - 1}.get(self.keep, np.zeros_like(size))
        return order[start + place][component] if len(order) else order


def _cosine_to_mean(vectors: FloatArray, component: IntArray) -> FloatArray:
    """(N,) cosine of each row to the mean of its component: the centroid where there are no clusters."""
    size = int(component.max(initial=-1)) + 1
    member = csr_matrix((np.ones(len(component)), (component, np.arange(len(component)))), (size, len(component)))
    sums = member @ vectors.astype(np.float64)  # (components, D)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    cosine: FloatArray = np.einsum("nd,nd->n", vectors, means[component])
    return cosine


USE = Dedup
