"""What each selection chose and what it left: pictures for the report's page, drawn by seed, not picked.

In: what the cells share, their results. Out: a wall of thumbnails for each arm, and those of single rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bunny.core.seeds import stream
from bunny.core.types import BoolArray, ImageRef, IntArray
from bunny.study.cells import Cell
from bunny.study.findings import Result, by_arm
from bunny.study.shared import Shared

SHOWN = 18
SIDE = 72


@dataclass(frozen=True)
class Fates:
    """What became of each row of the pool. kept: (N,) bool; step, reason: (N,) why it went, empty where it stays."""

    kept: BoolArray
    step: list[str]
    reason: list[str]

    @property
    def rows(self) -> IntArray:
        """Those that stay."""
        return np.flatnonzero(self.kept)


def fates_of(shared: Shared, cell: Cell) -> Fates:
    """Of the rows of the pool, in its order, by the decision table of the cell's selection."""
    import pyarrow.parquet as pq

    path = shared.selection(cell).path / "decisions.parquet"
    table = pq.read_table(path, columns=["kept", "step", "reason"]).slice(0, len(shared.pool))
    return Fates(
        np.array(table["kept"].to_pylist(), dtype=bool), table["step"].to_pylist(), table["reason"].to_pylist()
    )


def walls(shared: Shared, results: Sequence[Result]) -> list[dict[str, Any]]:
    """For each selection, at the first share that is there: pictures that it chose, and some that it left, with why."""
    found, done = [], set()
    for arm, some in by_arm(results).items():
        if arm.selection in done:
            continue
        done.add(arm.selection)
        fates = fates_of(shared, some[0].cell)
        rng = stream("study.walls", 0)
        dropped = np.flatnonzero(~fates.kept)
        found.append(
            {
                "arm": arm.title,
                "kept": int(fates.kept.sum()),
                "pool": len(fates.kept),
                "chosen": _cards(shared, rng.permutation(fates.rows)[:SHOWN], None),
                "dropped": _cards(shared, rng.permutation(dropped)[:SHOWN], fates),
            }
        )
    return found


def thumbs(shared: Shared, rows: Sequence[int]) -> dict[str, str]:
    """Id -> thumbnail of rows of the pool."""
    wanted = sorted(set(rows))
    return {one.id: _thumb(one.images[0]) for one in shared.pool.samples(wanted) if one.images}


def held_out(pictures: Mapping[str, ImageRef], groups: Sequence[str]) -> dict[str, str]:
    """Group -> thumbnail of held-out pictures."""
    return {group: _thumb(pictures[group]) for group in dict.fromkeys(groups) if group in pictures}


def _cards(shared: Shared, rows: IntArray, fates: Fates | None) -> list[dict[str, str]]:
    samples = shared.pool.samples(rows)
    return [
        {
            "picture": _thumb(sample.images[0]) if sample.images else "",
            "caption": sample.text,
            "why": f"{fates.step[row]}: {fates.reason[row]}" if fates else "",
        }
        for row, sample in zip(rows.tolist(), samples, strict=True)
    ]


def _thumb(ref: ImageRef) -> str:
    from bunny.data.containers import ImageError
    from bunny.pipeline.thumbnail import thumbnail

    try:
        return thumbnail(ref, SIDE)
    except ImageError:
        return ""
