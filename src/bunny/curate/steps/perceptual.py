"""Near-identical pictures: of those whose perceptual hashes differ in a few bits, one stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from bunny.core.types import BoolArray, Decision, IntArray, Pool, one_reason
from bunny.curate.phash import FLAT
from bunny.curate.step import OrderedStep, column, decision, numbers


class Perceptual(OrderedStep):
    """Links pictures by their 64-bit pHash (column `phash`); of each linked group one stays. Adds `phash_bits`: how
    many bits lie between a dropped picture and the one that stands for it.

    Finds what other sizes, formats and slight edits make of one photograph; the hash is grey and coarse, so it takes a
    recoloured drawing for the same, and small things on a white page. Pictures without a hash (not decoded) stay, and
    those of one grey, whose hash says nothing.
    """

    bits: int = Field(4, ge=0, le=8, description="of 64 that may differ; 0 = equal hashes only")
    keep: Literal["first", "best"] = "first"  # by id, or the highest value of the column `by`
    by: str | None = None  # e.g. width: the larger copy stays

    @model_validator(mode="after")
    def _best_needs_by(self) -> Perceptual:
        if (self.keep == "best") != (self.by is not None):
            raise ValueError("`keep: best` and `by: COLUMN` belong together")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        from bunny.curate.hamming import groups

        hashes, known = hashes_of(column(pool, "phash", "perceptual"))
        rows = np.flatnonzero(known)
        linked = np.arange(len(pool))
        linked[rows] = rows[groups(hashes[rows], self.bits)]
        twin = self._chosen(pool, linked)
        dropped = twin != np.arange(len(pool))
        apart = np.full(len(pool), np.nan, np.float32)
        apart[dropped] = ones(hashes[dropped] ^ hashes[twin[dropped]])
        reason = f"near-identical picture: perceptual hashes linked by at most {self.bits} of 64 bits"
        found = decision(one_reason(dropped, reason), twin, phash_bits=apart)
        return replace(found, notes={"without_a_hash": len(pool) - len(rows)})

    def _chosen(self, pool: Pool, linked: IntArray) -> IntArray:
        """(N,) the member that stays, for every row. linked: (N,) first row of each row's group."""
        if self.by is None:
            return linked
        score = numbers(pool, self.by, "perceptual")
        order = np.lexsort((np.arange(len(pool)), -np.where(np.isnan(score), -np.inf, score), linked))
        best = np.arange(len(pool))
        best[linked[order[::-1]]] = order[::-1]  # the group's first in this order is written last
        chosen: IntArray = best[linked]
        return chosen


def hashes_of(values: Any) -> tuple[npt.NDArray[np.uint64], BoolArray]:
    """(N,) hashes; (N,) whether they say something: 0 is also what stands where there is none."""
    hashes = np.asarray(values, dtype=np.uint64)
    return hashes, ~np.isin(hashes, np.array(FLAT, np.uint64))


def ones(values: npt.NDArray[np.uint64]) -> IntArray:
    """(n,) how many bits are set in each value."""
    counts: IntArray = np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1).sum(axis=1, dtype=np.int64)
    return counts


USE = Perceptual
