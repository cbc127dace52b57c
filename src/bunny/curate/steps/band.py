"""A band of ranks: keeps the rows whose value is neither among the highest nor among the lowest."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, Pool
from bunny.curate.step import OrderedStep, by_rank, column, decision


class Band(OrderedStep):
    """Ranks rows by a column from the highest value (0) to the lowest (1) and keeps those from `low` to `high`.

    The published coreset keeps 0.40 to 0.60 of image-text likeness, then 0.15 to 0.35 of likeness to the centre.
    Equal values are ranked by id. Adds `{by}_rank`. Of N ranked rows, numbers round(low N) to round(high N) - 1 stay.
    """

    by: str  # pair_cosine, centre_cosine, or any other column of numbers
    low: float = Field(0.0, ge=0, le=1, description="share of rows, counted from the highest, that is left out")
    high: float = Field(1.0, ge=0, le=1, description="share, counted from the highest, where the band ends")

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        values = np.asarray(column(pool, self.by, "band"), dtype=np.float64)
        known = np.isfinite(values)
        count = int(known.sum())
        rank = np.full(len(pool), -1, dtype=np.int64)
        rank[by_rank(np.where(known, values, np.nan))[:count]] = np.arange(count)
        reasons = np.full(len(pool), "", dtype=object)
        reasons[known & (rank < round(self.low * count))] = f"{self.by} among the highest {self.low:.0%}"
        reasons[known & (rank >= round(self.high * count))] = f"{self.by} among the lowest {1 - self.high:.0%}"
        reasons[~known] = f"no {self.by}"
        share = np.where(known, rank / max(1, count), np.nan).astype(np.float32)
        return decision(reasons, None, **{f"{self.by}_rank": share})


USE = Band
