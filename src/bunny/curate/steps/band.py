"""A band of ranks: keeps the rows whose value is neither among the highest nor among the lowest."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, Pool
from bunny.curate.step import OrderedStep, by_rank, decision, numbers


class Band(OrderedStep):
    """Ranks rows by a column from the highest value (0) to the lowest (1) and keeps those from `low` to `high`.

    The published coreset keeps 0.40 to 0.60 of image-text likeness, then 0.15 to 0.35 of likeness to the centre.
    `high: 0.3` alone is DataComp's top 30 % of CLIP scores. Equal values are ranked by id. Adds `{by}_rank`. Of N
    ranked rows, numbers round(low N) to round(high N) - 1 stay.
    """

    by: str  # pair_cosine, centre_cosine, or any other column of numbers, also the source's (clip_score …)
    low: float = Field(0.0, ge=0, le=1, description="share of rows, counted from the highest, that is left out")
    high: float = Field(1.0, ge=0, le=1, description="share, counted from the highest, where the band ends")

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        values = numbers(pool, self.by, "band")
        known = np.isfinite(values)
        count = int(known.sum())
        order = by_rank(np.where(known, values, np.nan))[:count]
        first, last = round(self.low * count), round(self.high * count)
        reasons = np.full(len(pool), "", dtype=object)
        reasons[order[:first]] = f"{self.by} among the highest {self.low:.0%}"
        reasons[order[last:]] = f"{self.by} among the lowest {1 - self.high:.0%}"
        reasons[~known] = f"no {self.by}"
        share = np.full(len(pool), np.nan, np.float32)
        share[order] = np.arange(count) / max(1, count)
        return decision(reasons, None, **{f"{self.by}_rank": share})


USE = Band
