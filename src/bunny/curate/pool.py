"""A pool folder in, the `Pool` that the steps look at out; and the samples behind its rows.

In: the parts that `bunny.curate.vectors` wrote. Out: columns in order of the ids, of which vectors and texts stay on
disk until they are asked for, and everything that was rejected on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.sample_table import copy_rows, rows_of, samples_of
from bunny.core.types import BoolArray, IntArray, Place, Pool, Rejected, Sample
from bunny.curate.columns import Rows, Texts
from bunny.curate.order import order_of
from bunny.curate.parts import (
    FACTS,
    NUMBERS,
    REJECTED,
    SAMPLES,
    TEXTS,
    VECTORS,
    Absent,
    open_facts,
    open_vectors,
    read_rejected,
)

POOL = "pool.json"


def open_pool(folder: str | Path, place: Place | None = None) -> tuple[Pool, tuple[Rejected, ...]]:
    """The pool of a folder, rows in order of their ids, and the rows that were rejected, in order of theirs.

    Columns: id, source, caption (N,) `Texts`; image (N, D) and visual (N, V) `Rows` (`visual` is `image` where there
    are no vectors of its own for it), text (N, D) `Rows` unless no part has any; pair_cosine (N,) float32, NaN without
    text; width, height (N,) int32, 0 where unknown. Unless no row has one: sha256 (N,) `Texts`, empty where unknown,
    and phash (N,) uint64, 0 where the picture was not decoded. Then whatever else the source knows: numbers as float64
    (NaN where a row has none) or int64, words as `Texts`.
    """
    found = PoolFolder(Path(folder))
    return found.pool(place), found.rejected()


class PoolFolder:
    """A finished pool folder. parts: the folders of its parts in reading order; model: what made the vectors.

    Raises UserError if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.info: Mapping[str, Any] = json.loads((path / POOL).read_text(encoding="utf-8"))
            self.parts = tuple(path / name for name in self.info["parts"])
            self.model = str(self.info["model"])
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{path}: no finished pool there (no {POOL})", fix="curate first") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / POOL}: damaged ({error})", fix="delete the folder and run again") from None
        _allow_many_files()
        self._parts = _Parts(self.parts)

    def __len__(self) -> int:
        """Rows of the pool."""
        return len(self._parts) if self._order is None else len(self._order)

    def pool(self, place: Place | None = None) -> Pool:
        """See `open_pool`."""
        return Pool(self._parts.columns(self._order), ordered=True, place=place)

    def rejected(self) -> tuple[Rejected, ...]:
        """Everything that could not become a row, in order of id and place."""
        found = [item for part in self.parts for item in read_rejected(part / REJECTED)]
        return tuple(sorted([*found, *self._sorted[1]], key=lambda one: (one.id, one.where, one.reason, one.detail)))

    def samples(self, rows: Sequence[int] | IntArray) -> list[Sample]:
        """The samples of a few rows of the ordered pool, in the order asked for; only their parts are read."""
        return self._parts.samples(self._places(np.asarray(rows, dtype=np.int64)))

    def write_samples(self, rows: IntArray | BoolArray, path: Path) -> int:
        """Write the samples of rows of the ordered pool, in that order, without holding them; the number of rows."""
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        return self._parts.write_samples(self._places(numbers), path)

    @cached_property
    def _sorted(self) -> tuple[IntArray | None, tuple[Rejected, ...]]:
        return order_of(self._parts.pieces("id"), self._parts.marks)

    @property
    def _order(self) -> IntArray | None:
        """(N,) row of the parts, one after the other, at each place of the pool; None: the same."""
        return self._sorted[0]

    def _places(self, rows: IntArray) -> IntArray:
        return rows if self._order is None else self._order[rows]


class _Parts:
    """The rows of all parts, one after the other, as they were read."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.facts = [open_facts(folder / FACTS) for folder in folders]
        self.offsets: IntArray = np.concatenate([[0], np.cumsum([len(one) for one in self.facts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def columns(self, order: IntArray | None) -> dict[str, Any]:
        """All columns of a pool, its rows in that order."""
        found: dict[str, Any] = {name: Texts(self.pieces(name), order) for name in TEXTS if name != "sha256"}
        if self._knows("sha256"):
            found["sha256"] = Texts(self.pieces("sha256"), order)
        for name, kind in NUMBERS.items():
            if name != "phash" or self._knows(name):
                found[name] = self.numbers(name, order, np.dtype(kind))
        for name in VECTORS:
            if (vectors := self.vectors(name, order)) is not None:
                found[name] = vectors
        found.setdefault("visual", found["image"])
        for name, text in self._further().items():
            found[name] = Texts(self.pieces(name), order) if text else self.numbers(name, order)
        return found

    def pieces(self, name: str) -> list[Any]:
        """Arrow string arrays of a column; null where a part does not know it."""
        import pyarrow as pa

        found: list[Any] = []
        for facts in self.facts:
            column = facts.column(name).cast(pa.string()) if name in facts.column_names else None
            found += [pa.nulls(len(facts), pa.string())] if column is None else column.chunks
        return found

    def numbers(self, name: str, order: IntArray | None, kind: Any = None) -> npt.NDArray[Any]:
        """(N,) numbers of that kind, 0 or NaN where there is none; by default int64, or float64 if there are gaps."""
        import pyarrow.compute as pc

        gaps = any(name not in facts.column_names or facts.column(name).null_count for facts in self.facts)
        if kind is None:
            whole = all(
                _is_integer(facts.schema.field(name).type) for facts in self.facts if name in facts.column_names
            )
            kind = np.int64 if whole and not gaps else np.float64
        empty = np.nan if np.issubdtype(kind, np.floating) else 0
        found = np.full(len(self), empty, kind)
        for facts, start in zip(self.facts, self.offsets, strict=False):
            for chunk in facts.column(name).chunks if name in facts.column_names else ():
                filled = pc.fill_null(chunk.cast("float64"), np.nan) if empty != 0 and chunk.null_count else chunk
                filled = pc.fill_null(filled, 0) if filled.null_count else filled
                found[start : start + len(chunk)] = filled.to_numpy(zero_copy_only=False)
                start += len(chunk)
        return found if order is None else found[order]

    def vectors(self, name: str, order: IntArray | None) -> Rows | None:
        """Vectors of one kind, or None if no part has any. Raises UserError if the parts' vectors differ in length."""
        pieces = [open_vectors(folder, name) for folder in self.folders]
        dims = {piece.shape[1] for piece in pieces if piece is not None and len(piece)}
        if len(dims) > 1:
            raise UserError(
                f"`{name}` vectors of {' and '.join(map(str, sorted(dims)))} numbers in one pool",
                fix="curate data of different models apart",
            )
        if not dims and name != "image":
            return None
        dim = dims.pop() if dims else 1  # no rows at all
        whole = [
            piece if piece is not None and len(piece) else Absent(len(facts), dim)
            for piece, facts in zip(pieces, self.facts, strict=True)
        ]
        return Rows(whole or [np.empty((0, dim), np.float16)], order)

    def samples(self, at: IntArray) -> list[Sample]:
        """The samples of single rows, in the order asked for."""
        part_of = np.searchsorted(self.offsets, at, side="right") - 1
        found: list[Any] = [None] * len(at)
        for number in np.unique(part_of):
            mine = np.flatnonzero(part_of == number)
            table = rows_of(self.folders[number] / SAMPLES, at[mine] - self.offsets[number])
            for place, sample in zip(mine, samples_of(table), strict=True):
                found[place] = sample
        return found

    def write_samples(self, at: IntArray, path: Path) -> int:
        """Write the samples of different rows, in the order asked for; the number of rows."""
        wanted = np.zeros(len(self), dtype=bool)
        wanted[at] = True
        edges = zip(self.offsets[:-1], self.offsets[1:], strict=True)
        parts = [
            (folder / SAMPLES, wanted[first:last]) for folder, (first, last) in zip(self.folders, edges, strict=True)
        ]
        ascending = bool((at[1:] > at[:-1]).all())
        return copy_rows(parts, None if ascending else (np.cumsum(wanted) - 1)[at], path)

    def marks(self, at: IntArray) -> Iterator[tuple[str, bytes]]:
        """Of each row its place and what it is made of: first what it shows, last where it lies."""
        image, digests = self.vectors("image", None), Texts(self.pieces("sha256"))
        for start in range(0, len(at), 1024):
            some = at[start : start + 1024]
            seen = np.zeros((len(some), 0), np.float32) if image is None else image.read(some)
            for sample, digest, row in zip(self.samples(some), digests[some], seen, strict=True):
                shows = f"{digest}\0{sample.text}\0{sample.source}".encode("utf-8", "replace") + row.tobytes()
                where = str(sample.images[0]) if sample.images else sample.source
                yield where, hashlib.sha256(shows).digest() + repr(sample).encode("utf-8", "replace")

    def _further(self) -> dict[str, bool]:
        """Names of the columns that only some sources have, in order of their names -> whether they hold words."""
        import pyarrow as pa

        known = {*TEXTS, *NUMBERS, *VECTORS}
        kinds: dict[str, bool] = {}
        for facts in self.facts:
            for field in facts.schema:
                if field.name not in known:
                    kinds[field.name] = kinds.get(field.name, False) or pa.types.is_string(field.type)
        return dict(sorted(kinds.items()))

    def _knows(self, name: str) -> bool:
        """Whether any row has a value there, or there are no rows."""
        import pyarrow.compute as pc

        columns = [facts.column(name) for facts in self.facts]
        if name == "sha256":
            return not len(self) or any(pc.any(pc.not_equal(column, "")).as_py() for column in columns)
        return not len(self) or any(column.null_count < len(column) for column in columns)


def _is_integer(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may: each memory-mapped file counts."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
