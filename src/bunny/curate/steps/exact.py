"""Exact duplicates: of pictures with the same pixels, or texts with the same words, one stays."""

from __future__ import annotations

import numpy as np

from bunny.core.types import Decision, Pool, one_reason
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import digests, first_equal, plain


class Exact(OrderedStep):
    """Keeps the first row, in order of the ids, of every group with equal values in a column."""

    by: str = "sha256"  # digest of the decoded pixels; `caption` finds repeated texts. Empty values are no duplicates
    normalise: bool = False  # texts equal but for case, white space and Unicode form (NFKC) count as equal

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        keys = digests(column(pool, self.by, "exact"), plain if self.normalise else str)
        twin = first_equal(keys)
        again = (twin != np.arange(len(pool))) & keys.any(axis=1)
        what = "the same pixels as" if self.by == "sha256" else f"the same {self.by} as"
        return decision(one_reason(again, f"{what} a picture that stays"), twin)


USE = Exact
