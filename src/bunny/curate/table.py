"""A `Selection` in, `decisions.parquet` out: one row for every sample that was ever seen, with its fate and scores.

Written one row group after the other: nothing is held of all rows but a few numbers each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import BoolArray, FloatArray, IntArray, Rejected
from bunny.curate.columns import Texts
from bunny.curate.engine import Selection, StepRun

ROWS_PER_GROUP = 100_000
FATES = ("id", "kept", "step", "reason", "twin", "twin_kept", "twin_cosine")


def write_table(selection: Selection, path: Path, rows_per_group: int = ROWS_PER_GROUP) -> None:
    """Write the decision table, whole or not at all; the same selection gives the same bytes.

    Columns: id, kept, step, reason, twin, twin_kept, twin_cosine; then every single-valued column of the pool and of
    the steps (source, caption, sha256, width, height, pair_cosine, cluster, centre_cosine, component, ranks …), null
    where a row never got as far. Rejected rows stand at the end, with step `reading`.
    """
    import pyarrow.parquet as pq

    fates, columns = _Fates.of(selection), _columns(selection)
    schema = _schema(columns)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for start in range(0, len(selection.pool), rows_per_group):
                stop = min(start + rows_per_group, len(selection.pool))
                block = {**fates.block(start, stop), **{name: one.block(start, stop) for name, one in columns.items()}}
                writer.write_table(_table(block, schema))
            out = iter(selection.rejected)
            while some := list(islice(out, rows_per_group)):
                writer.write_table(_table(_rejected(some), schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Fates:
    """What became of the N rows. reason: (N,) int32 place in `reasons` (first the empty one)."""

    selection: Selection
    by: IntArray
    reason: IntArray
    reasons: Sequence[str]
    twin: IntArray
    twin_cosine: FloatArray

    @staticmethod
    def of(selection: Selection) -> _Fates:
        reason, reasons = _reason_codes(selection)
        return _Fates(selection, selection.dropped_by(), reason, reasons, selection.twins(), selection.twin_cosines())

    def block(self, start: int, stop: int) -> Mapping[str, Any]:
        import pyarrow as pa

        rows = slice(start, stop)
        by, twin = self.by[rows], self.twin[rows]
        has = twin >= 0
        labels = ["", *(run.planned.label for run in self.selection.runs)]
        return {
            "id": _strings(self.selection.pool["id"], rows),
            "kept": pa.array(by < 0),
            "step": pa.array(labels, pa.string()).take(pa.array(by + 1)),
            "reason": pa.array(self.reasons, pa.string()).take(pa.array(self.reason[rows])),
            "twin": _named(self.selection.pool["id"], twin),
            "twin_kept": pa.array(self.by[np.where(has, twin, 0)] < 0, mask=~has),
            "twin_cosine": _numbers(self.twin_cosine[rows], has),
        }


def _reason_codes(selection: Selection) -> tuple[IntArray, list[str]]:
    """(N,) int32 number of each row's reason, and the reasons, in order of steps and first rows."""
    import pyarrow as pa

    codes = np.zeros(len(selection.pool), np.int32)
    reasons = [""]
    for run in selection.runs:
        dropped = np.flatnonzero(~run.decision.keep)
        found = pa.array(run.decision.reason[dropped], pa.string()).dictionary_encode()
        codes[run.rows[dropped]] = found.indices.to_numpy() + len(reasons)
        reasons += found.dictionary.to_pylist()
    return codes, reasons


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the pool (run is None), or of the rows that a step saw. values: (n,), aligned with `run.rows`.

    names: ids of the whole pool where the values are rows of the step's pool, to be told by their ids."""

    values: Any
    run: StepRun | None = None
    names: Any = None

    def block(self, start: int, stop: int) -> Any:
        """Arrow array of the pool's rows from start to stop; null where the row never came to the step."""
        import pyarrow as pa

        if self.run is None:
            return _any(self.values, slice(start, stop))
        first, last = np.searchsorted(self.run.rows, [start, stop])  # rows ascend: the pool is ordered
        seen = self.run.rows[first:last] - start
        known: BoolArray = np.zeros(stop - start, dtype=bool)
        known[seen] = True
        made = self.values[first:last]
        if self.names is not None:
            row = np.full(stop - start, -1, np.int64)
            row[seen] = np.where(made >= 0, self.run.rows[made], -1)
            return _named(self.names, row)
        values = np.zeros(stop - start, dtype=made.dtype)
        values[seen] = made
        return _numbers(values, known) if values.dtype.kind not in "OUS" else pa.array(values, pa.string(), mask=~known)

    @property
    def kind(self) -> Any:
        import pyarrow as pa

        if self.names is not None or isinstance(self.values, Texts) or self.values.dtype.kind in "OUS":
            return pa.string()
        return pa.from_numpy_dtype(self.values.dtype)


def _columns(selection: Selection) -> dict[str, _Column]:
    """Every column with one value a row, besides the fates; a step's column hides the pool's of the same name."""
    pool = selection.pool
    found = {name: _Column(values) for name, values in pool.columns.items() if values.ndim == 1}
    for run in selection.runs:
        for name, values in run.decision.columns.items():
            if values.ndim == 1:
                found[name] = _Column(values, run, pool["id"] if name == "link_to" else None)
    return {name: column for name, column in found.items() if name not in FATES}


def _schema(columns: Mapping[str, _Column]) -> Any:
    import pyarrow as pa

    kinds = {"kept": pa.bool_(), "twin_kept": pa.bool_(), "twin_cosine": pa.float32()}
    fates = [(name, kinds.get(name, pa.string())) for name in FATES]
    return pa.schema([*fates, *((name, column.kind) for name, column in columns.items())])


def _table(block: Mapping[str, Any], schema: Any) -> Any:
    import pyarrow as pa

    length = len(block["id"])
    return pa.table([block.get(field.name, pa.nulls(length, field.type)) for field in schema], schema=schema)


def _rejected(items: Sequence[Rejected]) -> Mapping[str, Any]:
    import pyarrow as pa

    return {
        "id": pa.array([item.id for item in items], pa.string()),
        "kept": pa.array(np.zeros(len(items), dtype=bool)),
        "step": pa.array(["reading"] * len(items), pa.string()),
        "reason": pa.array([item.reason for item in items], pa.string()),
    }


def _any(values: Any, rows: slice) -> Any:
    if isinstance(values, Texts) or values.dtype.kind in "OUS":
        return _strings(values, rows)
    return _numbers(values[rows], np.ones(len(values[rows]), dtype=bool))


def _strings(values: Any, rows: Any) -> Any:
    """Arrow strings of the asked rows."""
    import pyarrow as pa

    some = values[rows]
    if isinstance(some, Texts):
        found = some.arrow()
        return pa.concat_arrays(found.chunks).cast(pa.string()) if hasattr(found, "chunks") else found.cast(pa.string())
    return pa.array(some, pa.string(), from_pandas=False)


def _named(ids: Any, rows: IntArray) -> Any:
    """Ids of the given rows of the pool, null for -1."""
    import pyarrow as pa

    has = rows >= 0
    place = np.where(has, np.cumsum(has) - 1, 0)  # of a row's id among those read
    return _strings(ids, rows[has]).take(pa.array(place, mask=~has))


def _numbers(values: npt.NDArray[Any], known: BoolArray) -> Any:
    """Null where a value is not known, or no number."""
    import pyarrow as pa

    if np.issubdtype(values.dtype, np.floating):
        known = known & np.isfinite(values)
    return pa.array(values, mask=~known)
