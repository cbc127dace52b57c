"""Diversity: few pictures, as different as can be, that stand for all."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, IntArray, Pool, one_reason
from bunny.curate.budget import shared
from bunny.curate.columns import Rows
from bunny.curate.diversity import Chosen, cover, k_centre
from bunny.curate.step import OrderedStep, column, decision, vectors_of
from bunny.curate.texts import labels


class Diverse(OrderedStep):
    """k_centre keeps a budget of rows, each time the one least like those kept (Sener & Savarese 2018, the core-set
    approach); cover keeps as few as give every row a kept one with a cosine of at least `above`. Adds `cover_cosine`.

    Works within clusters, the budget shared by size: N²D products in all for clusters of N rows. The twin of a dropped
    row is the kept one most like it. Rows that are the same as a kept one are not kept to fill a budget.
    """

    method: Literal["k_centre", "cover"] = "k_centre"
    count: int | None = Field(None, gt=0, description="rows to keep; or give `share`; cover may go without")
    share: float | None = Field(None, gt=0, le=1, description="share of the rows to keep, rounded")
    above: float | None = Field(None, gt=-1, le=1, description="cover: the cosine within which a kept row must be")
    vectors: str = "visual"  # the column to compare
    within: Literal["cluster", "pool"] = "cluster"  # `pool`: for up to some ten thousand rows

    @model_validator(mode="after")
    def _fit_together(self) -> Diverse:
        if self.count is not None and self.share is not None:
            raise ValueError("give either `count` or `share`")
        if self.method == "k_centre" and self.count is None and self.share is None:
            raise ValueError("k_centre needs a budget: give `count` or `share`")
        if (self.method == "cover") != (self.above is not None):
            raise ValueError("`method: cover` and `above` belong together")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        vectors = vectors_of(pool, self.vectors, "diverse")
        twin = np.full(len(pool), -1, np.int64)
        likeness = np.full(len(pool), np.nan, np.float32)
        for rows, budget in self._groups(pool):
            chosen = self._choose(vectors[rows], budget)
            stood = chosen.stands >= 0
            twin[rows[stood]] = rows[chosen.stands[stood]]
            likeness[rows] = chosen.likeness
        if self.method == "cover":
            reason = f"a picture that stays is within a cosine of {self.above:g}"
        else:
            reason = "not among the most different within the budget"
        reasons = one_reason(twin != np.arange(len(pool)), reason)
        reasons[twin < 0] = "outside the budget, and no picture that stays is like it"
        return decision(reasons, twin, cover_cosine=likeness)

    def _groups(self, pool: Pool) -> list[tuple[IntArray, int | None]]:
        """(rows, rows to keep of them) of every group."""
        total = self.count if self.share is None else round(self.share * len(pool))
        if not len(pool):
            return []
        if self.within == "pool":
            return [(np.arange(len(pool)), total)]
        group = labels(column(pool, "cluster", "diverse", made_by="cluster"))
        size = np.bincount(group)
        budgets = [None] * len(size) if total is None else shared(total, size, size).tolist()
        parts = np.split(np.argsort(group, kind="stable"), np.cumsum(size)[:-1])
        return list(zip(parts, budgets, strict=True))

    def _choose(self, vectors: Rows, budget: int | None) -> Chosen:
        if self.method == "cover":
            return cover(vectors, self.above or 0.0, budget)
        return k_centre(vectors, budget or 0)


USE = Diverse
