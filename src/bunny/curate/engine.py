"""Runs the steps: a pool and a plan in, a `Selection` out, which knows of every row why it stays or goes."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.core.recipe import Block
from bunny.core.seeds import stream
from bunny.core.types import BoolArray, Decision, FloatArray, IntArray, Pool, Rejected
from bunny.curate.columns import Rows
from bunny.curate.duplicates import row_cosine
from bunny.curate.memory import peak
from bunny.curate.plan import Planned, changed, plan

OF_THE_ROW = " ("
"""What follows it in a reason is of the row alone, as the row of a benchmark that it equals."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step's outcome. rows: (n,) int64, the rows of the whole pool that it saw; decision: about those n rows;
    memory: the most bytes that this process held meanwhile, 0 if unknown."""

    planned: Planned
    rows: IntArray
    decision: Decision
    seconds: float
    memory: int = 0

    def counts(self) -> dict[str, int]:
        """Reason -> rows dropped for it, most first. What a reason says of the row, in brackets, does not count."""
        import pyarrow as pa  # ten times as fast as numpy at strings, in a tenth of the memory

        counts: Counter[str] = Counter()
        for item in pa.array(self.decision.reason[~self.decision.keep], pa.string()).value_counts().to_pylist():
            counts[item["values"].partition(OF_THE_ROW)[0]] += item["counts"]
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def dropped_for(self, reason: str) -> IntArray:
        """(n,) rows of the whole pool that were dropped for a reason of `counts`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        dropped = np.flatnonzero(~self.decision.keep)
        told = pa.array(self.decision.reason[dropped], pa.string())
        same = pc.or_(pc.equal(told, reason), pc.starts_with(told, pattern=reason + OF_THE_ROW))
        found: IntArray = self.rows[dropped[same.to_numpy(zero_copy_only=False)]]
        return found


@dataclass(frozen=True, slots=True)
class Why:
    """Why a sample stays or goes. twin: the sample that stands for it at the end of the chain of twins, `twin_fate`
    what became of that one, twin_cosine: the likeness of both pictures (NaN without a twin)."""

    id: str
    kept: bool
    step: str = ""
    reason: str = ""
    twin: str = ""
    twin_cosine: float = float("nan")
    twin_fate: str = ""

    def __str__(self) -> str:
        if self.kept:
            return f"{self.id} is kept"
        twin = f"; {self.twin} (cosine {self.twin_cosine:.3f}, {self.twin_fate}) stands for it" if self.twin else ""
        return f"{self.id} is dropped by {self.step}: {self.reason}{twin}"


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome: the whole pool of N rows in order of ids, what each step said, and who never got that far.

    folder: where it was written, if it was.
    """

    pool: Pool
    runs: tuple[StepRun, ...]
    seed: int
    rejected: tuple[Rejected, ...] = ()
    folder: Path | None = None

    def __repr__(self) -> str:
        """One line, for a notebook; the columns of a pool would fill pages."""
        steps = ", ".join(f"{run.planned.label} -{int((~run.decision.keep).sum())}" for run in self.runs)
        where = f", written to {self.folder}" if self.folder else ""
        return f"<Selection: {int(self.kept().sum())} of {len(self.pool)} stay ({steps}){where}>"

    @property
    def report(self) -> Path:
        """The page about it. Raises UserError if it was not written."""
        if self.folder is None:
            raise UserError("this selection was not written", fix="write it with `bunny.curate.write_outcome`")
        return self.folder / "report.html"

    def ids(self) -> list[str]:
        """Ids of the samples that stay, in order."""
        return [str(id) for id in self.pool["id"][self.kept()]]

    def kept(self) -> BoolArray:
        """(N,) bool."""
        return self.dropped_by() < 0

    def dropped_by(self) -> IntArray:
        """(N,) number of the step that dropped a row, -1 where it stays."""
        by = np.full(len(self.pool), -1, dtype=np.int64)
        for number, run in enumerate(self.runs):
            by[run.rows[~run.decision.keep]] = number
        return by

    def reasons(self) -> npt.NDArray[np.object_]:
        """(N,) str, empty where a row stays."""
        reasons = np.full(len(self.pool), "", dtype=object)
        for run in self.runs:
            dropped = ~run.decision.keep
            reasons[run.rows[dropped]] = run.decision.reason[dropped]
        return reasons

    def twins(self) -> IntArray:
        """(N,) row that stands for a dropped row at the end of its chain of twins, -1 where there is none.

        A chain goes on where a twin was itself dropped later in favour of another; its end may have been dropped for
        a reason of its own (out of a band, not drawn): `kept()[twin]` tells.
        """
        direct = np.full(len(self.pool), -1, dtype=np.int64)
        for run in self.runs:
            has = run.decision.twin >= 0
            direct[run.rows[has]] = run.rows[run.decision.twin[has]]
        twin: IntArray = direct.copy()
        for _ in self.runs:  # each step can lengthen a chain by one
            onward = np.where(twin >= 0, direct[twin], -1)
            twin = np.where(onward >= 0, onward, twin)
        return twin

    def twin_cosines(self) -> FloatArray:
        """(N,) float32 likeness of the picture to its twin's, NaN without a twin."""
        twin = self.twins()
        return row_cosine(Rows.of(self.pool["visual"]), np.flatnonzero(twin >= 0), twin)

    def column(self, name: str) -> tuple[npt.NDArray[Any], BoolArray]:
        """A column of the pool or of the last step that made it: (N,) values, (N,) whether a row has one."""
        for run in reversed(self.runs):
            if name in run.decision.columns:
                made = run.decision.columns[name]
                values = np.zeros((len(self.pool), *made.shape[1:]), dtype=made.dtype)
                values[run.rows] = made
                known = np.zeros(len(self.pool), dtype=bool)
                known[run.rows] = True
                return values, known
        return self.pool[name], np.ones(len(self.pool), dtype=bool)

    def columns(self) -> list[str]:
        """Names of all columns with one value a row."""
        made = [name for run in self.runs for name in run.decision.columns]
        return list(dict.fromkeys([name for name, values in self.pool.columns.items() if values.ndim == 1] + made))

    def why(self, id: str) -> Why:
        """Why one sample stays or goes. Raises UserError for an id that was never in the pool."""
        row = bisect_left(self.pool["id"], id)
        if row >= len(self.pool) or self.pool["id"][row] != id:
            return self._why_rejected(id)
        by, twin = self.dropped_by(), int(self.twins()[row])
        if by[row] < 0:
            return Why(id, True)
        step, reason = self.runs[by[row]].planned.label, str(self.reasons()[row])
        if twin < 0:
            return Why(id, False, step, reason)
        fate = (
            "kept" if by[twin] < 0 else f"dropped later by {self.runs[by[twin]].planned.label}: {self.reasons()[twin]}"
        )
        return Why(id, False, step, reason, str(self.pool["id"][twin]), float(self.twin_cosines()[row]), fate)

    def _why_rejected(self, id: str) -> Why:
        for item in self.rejected:
            if item.id == id:
                return Why(id, False, "reading", f"{item.reason}: {item.detail}" if item.detail else item.reason)
        raise UserError(f"no sample is called `{id}`", fix=nearest(id, map(str, self.pool["id"][:1000])))

    def again(self, **overrides: Mapping[str, Any]) -> Selection:
        """The selection with other settings, on the same vectors: `again(dedup={"above": 0.9})`.

        Steps before the first changed one are not run again. A second step of one name is `band_2`, and so on.
        """
        return _run(
            self.pool, changed([run.planned for run in self.runs], overrides), self.seed, self.rejected, self.runs
        )


def select(
    pool: Pool, steps: Sequence[Block], seed: int, rejected: Sequence[Rejected] = (), folder: Path | None = None
) -> Selection:
    """Run the steps in order, each on what the ones before it left. folder: where their relative paths are seen from
    (default: the working folder)."""
    if not pool.ordered:
        pool = replace(pool.take(np.argsort(np.asarray(pool["id"]), kind="stable")), ordered=True)
    return _run(pool, plan(steps, folder), seed, tuple(rejected), ())


def _run(
    pool: Pool, steps: Sequence[Planned], seed: int, rejected: tuple[Rejected, ...], before: Sequence[StepRun]
) -> Selection:
    """before: an earlier outcome on the same pool; its steps are taken over as long as the settings are equal."""
    left, rows = pool, np.arange(len(pool))
    runs: list[StepRun] = []
    for number, planned in enumerate(steps):
        same = number < len(before) and before[number].planned.block == planned.block and len(runs) == number
        if same and all(run is old for run, old in zip(runs, before, strict=False)):
            run = before[number]
        else:
            start = time.perf_counter()
            with peak() as held:
                found = planned.step.decide(left, stream(f"curate.{planned.label}", seed))
            run = StepRun(planned, rows, found, time.perf_counter() - start, held.bytes)
        log.info("%s: %d of %d stay", planned.label, int(run.decision.keep.sum()), len(rows))
        runs.append(run)
        left = left.with_columns(run.decision.columns)
        if not bool(run.decision.keep.all()):  # else nothing is copied
            left, rows = left.take(run.decision.keep), rows[run.decision.keep]
    return Selection(pool, tuple(runs), seed, rejected)
