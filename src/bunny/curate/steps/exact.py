"""Exact duplicates: of pictures with the same pixels, one stays."""

from __future__ import annotations

import numpy as np

from bunny.core.types import Decision, Pool
from bunny.curate.step import OrderedStep, column, decision


class Exact(OrderedStep):
    """Keeps the first row, in order of the ids, of every group with equal values in a column."""

    by: str = "sha256"  # digest of the decoded pixels; `caption` finds repeated texts. Empty values are no duplicates

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        values = np.array([str(value) for value in column(pool, self.by, "exact")], dtype=object)  # no fixed width
        _, first, group = np.unique(values, return_index=True, return_inverse=True)
        twin = first[group].astype(np.int64)
        again = (twin != np.arange(len(pool))) & (values != "")
        what = "the same pixels as" if self.by == "sha256" else f"the same {self.by} as"
        return decision(np.where(again, f"{what} a picture that stays", "").astype(object), twin)


USE = Exact
