"""What every step shares: it sees the pool in the order of the ids, so the order of the rows never matters.

In: a `Pool` in any order. Out: a `Decision` for its rows in that order.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Section
from bunny.core.types import BoolArray, Decision, FloatArray, IntArray, Pool
from bunny.curate.columns import NpyFile, Rows

ROW_NUMBERS = ("link_to",)
"""Columns that hold row numbers of the pool, -1 for none."""


class OrderedStep(Section):
    """A step whose outcome cannot depend on row order: subclasses write `look`, which sees rows sorted by id."""

    def decide(self, pool: Pool, rng: np.random.Generator) -> Decision:
        """What to keep and why. Raises UserError if the pool lacks a column that the settings name."""
        if pool.ordered:
            return self.look(pool, rng)
        ids = np.asarray(pool["id"])
        if bool((ids[:-1] < ids[1:]).all()):
            return self.look(pool, rng)
        order = np.argsort(ids, kind="stable")
        return _put_back(self.look(pool.take(order), rng), order)

    @abstractmethod
    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        """The decision for a pool whose rows are sorted by id."""


def column(pool: Pool, name: str, step: str, made_by: str = "") -> Any:
    """A column that a step's settings name. Raises UserError with the nearest name, or the step that makes it."""
    if name not in pool:
        hint = f"put {{use: {made_by}}} before it" if made_by else nearest(name, pool.columns)
        raise UserError(f"{step}: the pool has no column `{name}`", fix=hint)
    return pool[name]


def numbers(pool: Pool, name: str, step: str) -> FloatArray:
    """(N,) float64 values of a column that a step's settings name. Raises UserError if they are no numbers."""
    try:
        return np.asarray(column(pool, name, step), dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{step}: the column `{name}` does not hold numbers", fix="name one that does") from None


def vectors_of(pool: Pool, name: str, step: str) -> Rows:
    """(N, D) vectors to compare. Raises UserError if a row has none (texts without words)."""
    vectors = Rows.of(column(pool, name, step))
    on_disk = all(isinstance(piece, NpyFile) for piece in vectors.pieces)
    if not on_disk or name not in ("image", "visual"):  # these every row of a pool folder has
        missing = sum(int(np.isnan(block[:, 0]).sum()) for _, block in vectors.blocks())
        if missing:
            fix = "drop them first, e.g. with {use: rules}"
            raise UserError(f"{step}: {missing} rows have no `{name}` vector", fix=fix)
    return vectors


def by_rank(values: FloatArray) -> IntArray:
    """Row numbers from the highest value to the lowest; equal values in row order, NaN last."""
    return np.argsort(-values, kind="stable")


def decision(
    reasons: npt.NDArray[np.object_], twin: IntArray | None = None, /, **columns: npt.NDArray[Any]
) -> Decision:
    """Keeps the rows whose reason is empty."""
    keep: BoolArray = reasons == ""
    twin = np.full(len(reasons), -1, np.int64) if twin is None else np.where(keep, -1, twin)
    return Decision(keep, reasons, twin, columns)


def _put_back(sorted_decision: Decision, order: IntArray) -> Decision:
    """The decision for the unsorted rows. order: (N,) row of the unsorted pool at each sorted place."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Decision(
        sorted_decision.keep[place],
        sorted_decision.reason[place],
        _rows_back(sorted_decision.twin[place], order),
        {
            name: _rows_back(values[place], order) if name in ROW_NUMBERS else values[place]
            for name, values in sorted_decision.columns.items()
        },
        sorted_decision.notes,
    )


def _rows_back(rows: IntArray, order: IntArray) -> IntArray:
    return np.where(rows >= 0, order[rows], -1) if len(order) else rows
