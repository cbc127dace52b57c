"""A `Selection` in, `decisions.parquet` out: one row for every sample that was ever seen, with its fate and scores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import BoolArray
from bunny.curate.engine import Selection


def write_table(selection: Selection, path: Path) -> None:
    """Write the decision table, whole or not at all.

    Columns: id, kept, step, reason, twin, twin_kept, twin_cosine; then every single-valued column of the pool and of
    the steps (source, caption, sha256, width, height, pair_cosine, cluster, centre_cosine, component, ranks …), null
    where a row never got as far. Rejected rows stand at the end, with step `reading`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({**_fates(selection), **_scores(selection)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _fates(selection: Selection) -> Mapping[str, Any]:
    import pyarrow as pa

    ids, twin, kept = selection.pool["id"].astype(str), selection.twins(), selection.kept()
    labels = np.array([run.planned.label for run in selection.runs] + [""], dtype=object)  # the last one: index -1
    has, out = twin >= 0, selection.rejected
    none = [None] * len(out)
    return {
        "id": pa.array([*ids.tolist(), *(item.id for item in out)], pa.string()),
        "kept": pa.array([*kept.tolist(), *(False for _ in out)], pa.bool_()),
        "step": pa.array([*labels[selection.dropped_by()].tolist(), *("reading" for _ in out)], pa.string()),
        "reason": pa.array([*selection.reasons().tolist(), *(item.reason for item in out)], pa.string()),
        "twin": pa.array([*_null(ids[twin], has), *none] if len(ids) else none, pa.string()),
        "twin_kept": pa.array([*_null(kept[twin], has), *none] if len(ids) else none, pa.bool_()),
        "twin_cosine": pa.array([*_null(selection.twin_cosines(), has), *none], pa.float32()),
    }


def _scores(selection: Selection) -> Mapping[str, Any]:
    import pyarrow as pa

    columns = {}
    for name in selection.columns():
        if name not in ("id", "twin_cosine"):
            values, known = selection.column(name)
            if np.issubdtype(values.dtype, np.floating):
                known = known & np.isfinite(values)
            kind = pa.string() if values.dtype.kind in "OU" else pa.from_numpy_dtype(values.dtype)
            columns[name] = pa.array([*_null(values, known), *([None] * len(selection.rejected))], kind)
    return columns


def _null(values: npt.NDArray[Any], known: BoolArray) -> list[Any]:
    return [value if there else None for value, there in zip(values.tolist(), known.tolist(), strict=True)]
