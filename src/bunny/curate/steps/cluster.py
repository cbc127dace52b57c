"""Groups pictures by likeness; drops nothing. Later steps work within the groups and rank by likeness to the centre."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from bunny.core.types import Decision, Pool
from bunny.curate.grouping import group_rows
from bunny.curate.step import OrderedStep, decision, vectors_of
from bunny.curate.work import place_of


class Cluster(OrderedStep):
    """Spherical k-means. Adds `cluster`, `centre_cosine`, `border` (distance to the border of the next group), and
    `second_cluster` and `third_cluster`: the next groups, of rows near enough to be compared there too; else -1."""

    groups: int | None = Field(None, gt=0, description="how many; or give rows_per_group")
    rows_per_group: int | None = Field(None, gt=0, description="mean size, instead of `groups`")
    vectors: str = "visual"  # the column to group by: visual, image or text
    iterations: int = Field(20, gt=0)
    start: Literal["spread", "random"] = "spread"  # spread = k-means++; random for very many groups
    reach: float = Field(0.04, ge=0, description="distance to a border up to which a row is compared beyond it too")

    @model_validator(mode="after")
    def _one_of_both(self) -> Cluster:
        if (self.groups is None) == (self.rows_per_group is None):
            raise ValueError("give either `groups` or `rows_per_group`")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        vectors = vectors_of(pool, self.vectors, "cluster")
        groups = self.groups or max(1, round(len(pool) / (self.rows_per_group or 1)))
        with place_of(pool) as place:
            found = group_rows(
                vectors, groups, rng, iterations=self.iterations, start=self.start, reach=self.reach, place=place
            )
        return decision(
            np.full(len(pool), "", dtype=object),
            cluster=found.groups[:, 0],
            centre_cosine=found.cosine,
            second_cluster=found.groups[:, 1],
            third_cluster=found.groups[:, 2],
            border=found.border,
        )


USE = Cluster
