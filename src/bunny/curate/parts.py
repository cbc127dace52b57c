"""One part of a pool on disk: the names of its files, how they are written, and how they are opened without reading.

In: samples, facts and vectors of a few hundred to a quarter of a million rows. Out: a folder with `samples.parquet`,
`facts.arrow`, an `.npy` file for each kind of vector (or `vectors.json`, which says where they are), `rejected.jsonl`
and `part.json`. Everything but `part.json` depends on nothing but the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import FloatArray, IntArray, Rejected
from bunny.curate.columns import NpyFile

SAMPLES, FACTS, STORED, REJECTED, PART = (
    "samples.parquet",
    "facts.arrow",
    "vectors.json",
    "rejected.jsonl",
    "part.json",
)
VECTORS = ("image", "text", "visual")
TEXTS = ("id", "source", "caption", "sha256")
NUMBERS = {"phash": "uint64", "width": "int32", "height": "int32", "pair_cosine": "float32"}


def write_facts(path: Path, table: Any) -> None:
    """Write an Arrow table so that it can be memory-mapped as one piece."""
    import pyarrow as pa

    table = table.combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def open_facts(path: Path) -> Any:
    """The facts as an Arrow table that stays on disk. Raises UserError if the file is damaged."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: damaged ({' '.join(str(error).split())})", fix="delete its folder, run again"
        ) from None


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """One JSON object a line."""
    lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in rejected]
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def read_rejected(path: Path) -> list[Rejected]:
    """What `write_rejected` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [Rejected(**json.loads(line)) for line in lines]


def open_vectors(part: Path, name: str) -> NpyFile | None:
    """A part's vectors of one kind, (n, D) rows that stay on disk, or None if it has none.

    Raises UserError if the file is gone or damaged.
    """
    own, stored = part / f"{name}.npy", part / STORED
    try:
        if own.exists():
            return NpyFile(own)
        told: Mapping[str, Any] = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
        if name not in told:
            return None
        path, rows = part / told[name]["path"], told[name].get("rows")
        if rows is not None:
            return NpyFile(path, rows=part / rows)
        return NpyFile(path, told[name].get("first", 0), told[name]["count"])
    except (OSError, ValueError, EOFError) as error:
        fix = "put the vectors back in their place, or curate again"
        raise UserError(f"{part}: its `{name}` vectors cannot be read ({error})", fix=fix) from None


def stored_vectors(path: Path | str, rows: IntArray, part: Path, name: str) -> dict[str, Any]:
    """What `vectors.json` says of vectors in another file; scattered row numbers go into a file of the part.

    rows: (n,) int64 row numbers in the other file, -1 where there is none. A file in the part's pool is seen from the
    part, so that the pool can be moved.
    """
    pool = part.absolute().parent
    path = os.path.relpath(path, part) if Path(path).is_relative_to(pool) else path
    first = int(rows[0]) if len(rows) else 0
    if first >= 0 and bool((np.diff(rows) == 1).all()):
        return {"path": str(path), "first": first, "count": len(rows)}
    np.save(part / f"{name}.rows.npy", rows)
    return {"path": str(path), "rows": f"{name}.rows.npy"}


class Absent:
    """(n, D) rows of NaN: vectors that a part does not have."""

    def __init__(self, rows: int, dim: int) -> None:
        self.shape, self.dtype = (rows, dim), np.dtype(np.float16)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, asked: Any) -> FloatArray:
        count = len(range(*asked.indices(len(self)))) if isinstance(asked, slice) else len(asked)
        return np.full((count, self.shape[1]), np.nan, np.float16)


def is_whole(part: Path) -> bool:
    """Whether a part's files are all there and of one length; a look at their headers."""
    import pyarrow.parquet as pq

    try:
        rows = int(json.loads((part / PART).read_text(encoding="utf-8"))["rows"])
        found = [len(open_facts(part / FACTS)), pq.read_metadata(part / SAMPLES).num_rows]
        vectors = [open_vectors(part, name) for name in VECTORS]
        found += [len(one) for one in vectors if one is not None]
        return (part / REJECTED).exists() and (vectors[0] is not None or not rows) and set(found) == {rows}
    except (UserError, OSError, ValueError, KeyError, TypeError):  # ArrowInvalid is a ValueError
        return False
