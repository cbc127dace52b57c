"""One part of a pool on disk: the names of its files, how they are written, and how they are opened without reading.

In: samples, facts and vectors of a few hundred to a quarter of a million rows. Out: a folder with `samples.parquet`,
`facts.arrow`, an `.npy` file for each kind of vector (or `vectors.json`, which says where they are), `rejected.jsonl`
and `part.json`. Everything but `part.json` depends on nothing but the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.types import FloatArray, IntArray, Rejected

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


def open_vectors(part: Path, name: str) -> Any:
    """A part's vectors of one kind: an array of (n, D) that stays on disk, or None if it has none.

    Raises UserError if the file is gone or damaged.
    """
    own, stored = part / f"{name}.npy", part / STORED
    if own.exists():
        return _mapped(own)
    told: Mapping[str, Any] = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    if name not in told:
        return None
    vectors = _mapped(Path(told[name]["path"]))
    if "rows" in told[name]:
        return picked(vectors, _mapped(part / told[name]["rows"]))
    return vectors[: json.loads((part / PART).read_text(encoding="utf-8"))["rows"]]


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: vectors cannot be read ({error})", fix="put the file back, or curate again") from None
    return found


def picked(vectors: Any, rows: IntArray) -> Any:
    """Rows of vectors as a view: a slice where they follow each other, else read as they are asked for."""
    if not len(rows):
        return vectors[:0]
    first = int(rows[0])
    if first >= 0 and int(rows[-1]) - first == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return vectors[first : first + len(rows)]
    return Picked(vectors, rows)


class Picked:
    """(n, D) rows of an array on disk by their numbers; -1 stands for a row of NaN."""

    def __init__(self, vectors: Any, rows: IntArray) -> None:
        self.vectors, self.rows = vectors, rows
        self.shape, self.dtype = (len(rows), int(vectors.shape[1])), vectors.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, asked: Any) -> FloatArray:
        rows = np.asarray(self.rows[asked])
        found: FloatArray = self.vectors[np.maximum(rows, 0)]
        found[rows < 0] = np.nan
        return found


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
        return (part / REJECTED).exists() and vectors[0] is not None and set(found) == {rows}
    except (UserError, OSError, ValueError, KeyError, TypeError):  # ArrowInvalid is a ValueError
        return False
