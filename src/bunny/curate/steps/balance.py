"""Balance: no group, such as a cluster or a source, may outweigh the others."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, Pool
from bunny.curate.budget import best_of_each, level
from bunny.curate.step import OrderedStep, column, decision, numbers
from bunny.curate.texts import labels


class Balance(OrderedStep):
    """Cuts the large groups of rows with equal values in a column; small ones stay whole.

    Capping the head was MetaCLIP's way to a balanced set (Xu et al. 2023, arXiv:2309.16671: 20,000 pairs for each of
    its entries). `total` finds the height at which to cut.
    """

    per: str = "cluster"  # the column: equal values make a group; a missing value is a value, too
    most: int | None = Field(None, gt=0, description="rows that a group may keep; or give `total`")
    total: int | None = Field(None, gt=0, description="rows to keep in all")
    keep: Literal["random", "best"] = "random"
    by: str | None = None  # the column of numbers that says which are best; the highest stay, missing values go first

    @model_validator(mode="after")
    def _fit_together(self) -> Balance:
        if (self.most is None) == (self.total is None):
            raise ValueError("give either `most` or `total`")
        if (self.keep == "best") != (self.by is not None):
            raise ValueError("`keep: best` and `by: COLUMN` belong together")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        group = labels(column(pool, self.per, "balance", made_by="cluster" if self.per == "cluster" else ""))
        size = np.bincount(group)
        wanted = np.minimum(size, self.most) if self.most is not None else level(self.total or 0, size)
        score = numbers(pool, self.by, "balance") if self.by is not None else rng.random(len(pool))
        height = int(wanted.max(initial=0))
        which = f"highest {self.by}" if self.by is not None else "drawn"
        reasons = np.full(len(pool), f"not among the {height} {which} of its {self.per}", dtype=object)
        reasons[best_of_each(group, score, wanted)] = ""
        return decision(reasons)


USE = Balance
