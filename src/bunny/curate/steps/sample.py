"""A random sample: so many rows, or such a share, of the whole pool or of every group."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, IntArray, Pool
from bunny.curate.budget import best_of_each, shared
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import labels


class Sample(OrderedStep):
    """Draws without replacement; what is no larger than asked for stays whole.

    With `per`, rows are drawn in groups of equal values: `allot: each` gives every group `count` rows or `share` of
    its rows; the others divide the total among the groups by their sizes or by the square roots of them (which lifts
    rare groups, as in the sampling of multilingual corpora).
    """

    count: int | None = Field(None, gt=0, description="rows to keep; or give `share`")
    share: float | None = Field(None, gt=0, le=1, description="share of the rows to keep, rounded")
    per: str | None = None  # a column whose equal values make groups, e.g. cluster or source
    allot: Literal["each", "proportional", "square_root"] = "each"

    @model_validator(mode="after")
    def _fit_together(self) -> Sample:
        if (self.count is None) == (self.share is None):
            raise ValueError("give either `count` or `share`")
        if self.allot != "each" and self.per is None:
            raise ValueError("`allot` divides rows among groups: say which with `per: COLUMN`")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        if self.per is not None:
            group = labels(column(pool, self.per, "sample"))
            size = np.bincount(group)
            drawn = best_of_each(group, rng.random(len(pool)), self._wanted(size))
            reasons = np.full(len(pool), f"not among those drawn of its {self.per}", dtype=object)
        else:
            wanted = self.count if self.count is not None else round((self.share or 0.0) * len(pool))
            drawn = rng.choice(len(pool), size=min(wanted, len(pool)), replace=False)
            reasons = np.full(len(pool), f"not among the {len(drawn)} of {len(pool)} drawn", dtype=object)
        reasons[drawn] = ""
        return decision(reasons)

    def _wanted(self, size: IntArray) -> IntArray:
        """(groups,) rows to keep of each group."""
        if self.allot == "each":
            each = np.full(len(size), self.count) if self.count else np.rint((self.share or 0.0) * size).astype(int)
            some: IntArray = np.minimum(size, each)
            return some
        total = self.count if self.count is not None else round((self.share or 0.0) * int(size.sum()))
        return shared(total, size, size if self.allot == "proportional" else np.sqrt(size))


USE = Sample
