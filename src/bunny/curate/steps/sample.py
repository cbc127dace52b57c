"""A uniform sample: so many rows, or such a share, each as likely as any other."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, Pool
from bunny.curate.step import OrderedStep, decision


class Sample(OrderedStep):
    """Draws without replacement; a pool that is no larger than `count` stays whole."""

    count: int | None = Field(None, gt=0, description="rows to keep; or give `share`")
    share: float | None = Field(None, gt=0, le=1, description="share of the rows to keep, rounded")

    @model_validator(mode="after")
    def _one_of_both(self) -> Sample:
        if (self.count is None) == (self.share is None):
            raise ValueError("give either `count` or `share`")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        wanted = self.count if self.count is not None else round((self.share or 0.0) * len(pool))
        drawn = rng.choice(len(pool), size=min(wanted, len(pool)), replace=False)
        reasons = np.full(len(pool), f"not among the {len(drawn)} of {len(pool)} drawn", dtype=object)
        reasons[drawn] = ""
        return decision(reasons)


USE = Sample
