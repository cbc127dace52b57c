"""Columns too large for memory: vectors and texts that stay in their files until a block of rows is asked for.

In: arrays (mostly memory-mapped) or Arrow string arrays, each the rows of one file. Out: `Rows` and `Texts`, which are
indexed like numpy arrays (an index, a mask or a slice gives the same kind of column and reads nothing).
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bunny.core.types import FloatArray, IntArray

BLOCK = 8192  # rows read at a time
SPARSE = 8  # times as many rows between the first and the last as are asked for: then their pages alone are read
LEAST_HELD, MOST_HELD = 1 << 20, 1 << 22  # numbers that a thread keeps memory for

Self = TypeVar("Self", bound="_Pieces")


class _Pieces:
    """N rows of several pieces. index: (N,) int64 into their concatenation; None: all rows in order."""

    def __init__(self, pieces: Sequence[Any], index: IntArray | None = None) -> None:
        self.pieces = tuple(pieces)
        self.offsets: IntArray = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
        self.index = index

    def __len__(self) -> int:
        return int(self.offsets[-1]) if self.index is None else len(self.index)

    def _at(self, rows: Any) -> IntArray:
        """Places in the concatenation of the asked rows."""
        if self.index is not None:
            at: IntArray = self.index[rows]
            return at
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)), dtype=np.int64)
        rows = np.asarray(rows)
        return np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)

    def whole(self) -> bool:
        """Whether these are all rows of the pieces, in order."""
        if self.index is None:
            return True
        return len(self.index) == self.offsets[-1] and bool((np.diff(self.index) == 1).all())

    def take(self: Self, rows: Any, known: dict[int, IntArray] | None = None) -> Self:
        """The column of the given rows: indices, mask or slice.

        known: new indices by the old ones they were made from, so that columns with one index go on sharing one.
        """
        known = {} if known is None else known
        at = known.get(id(self.index))
        if at is None:
            at = known[id(self.index)] = self._at(rows)
        return type(self)(self.pieces, at)

    def _by_piece(self, at: IntArray) -> Iterator[tuple[Any, IntArray, IntArray]]:
        """(piece, rows in it in ascending order, their places in `at`) for every piece that is touched."""
        order = np.argsort(at, kind="stable") if len(at) > 1 and bool((np.diff(at) < 0).any()) else np.arange(len(at))
        edges = np.searchsorted(at[order], self.offsets)
        for number in np.flatnonzero(np.diff(edges)):
            places = order[edges[number] : edges[number + 1]]
            yield self.pieces[number], at[places] - self.offsets[number], places


class NpyFile:
    """Rows of the (M, D) array in a `.npy` file, mapped only while in use: thousands of them need no thousands of open
    files. first, count: a run of rows (default: all); rows: or a `.npy` file of row numbers, -1 for a row of NaN."""

    def __init__(
        self, path: Path | str, first: int = 0, count: int | None = None, rows: Path | str | None = None
    ) -> None:
        self.path, self.first, self.rows = str(path), first, None if rows is None else str(rows)
        mapped = _mapped(self.path)
        there = len(mapped) - first if self.rows is None else len(_mapped(self.rows))
        self.shape, self.dtype = (there if count is None else count, int(mapped.shape[1])), mapped.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, asked: Any) -> npt.NDArray[Any]:
        if self.rows is None:
            if isinstance(asked, slice):
                run: npt.NDArray[Any] = _mapped(self.path)[self.first : self.first + len(self)][asked]
                return run
            some: npt.NDArray[Any] = _mapped(self.path, scattered=True)[np.asarray(asked) + self.first]
            return some
        rows = np.asarray(_mapped(self.rows)[asked])
        found: npt.NDArray[Any] = _mapped(self.path, scattered=True)[np.maximum(rows, 0)]
        found[rows < 0] = np.nan
        return found

    def block(self) -> dict[str, Any]:
        """JSON-able arguments that make it again, in another process."""
        return {"path": str(Path(self.path).absolute()), "first": self.first, "count": len(self)} | (
            {} if self.rows is None else {"rows": str(Path(self.rows).absolute())}
        )

    def files(self) -> list[Path]:
        """The files it reads."""
        return [Path(path) for path in (self.path, self.rows) if path is not None]


def _mapped(path: str, scattered: bool = False) -> npt.NDArray[Any]:
    stat = os.stat(path)  # noqa: PTH116  # asked for every block: a Path takes longer than the block
    return _mapped_once(path, scattered, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _mapped_once(path: str, scattered: bool, *version: int) -> npt.NDArray[Any]:
    """version: what changes with the file, so that a file made again is mapped again. scattered: for single rows here
    and there, so that the system reads no pages around them."""
    mapped: Any = np.load(path, mmap_mode="r")
    if scattered and hasattr(mmap, "MADV_RANDOM"):
        mapped._mmap.madvise(mmap.MADV_RANDOM)
    found: npt.NDArray[Any] = mapped.view(np.ndarray)
    return found


class Rows(_Pieces):
    """(N, D) vectors of float16 or float32; `read` gives them as float32 rows of length one."""

    @staticmethod
    def files(paths: Sequence[Path | str], index: IntArray | None = None) -> Rows:
        """The rows of `.npy` files, one after the other."""
        return Rows([NpyFile(path) for path in paths], index)

    @staticmethod
    def of(vectors: Any) -> Rows:
        """Any array of vectors as `Rows`."""
        return vectors if isinstance(vectors, Rows) else Rows([np.asarray(vectors)])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), int(self.pieces[0].shape[1]) if self.pieces else 0

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> Any:
        return np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> Rows:
        return self.take(rows)

    def read(self, rows: Any = slice(None)) -> FloatArray:
        """(n, D) float32 rows of length one (NaN rows stay NaN), in the order asked for."""
        at = self._at(rows)
        return self._read_into(np.empty((len(at), self.shape[1]), np.float32), at)

    def glance(self, rows: Any = slice(None)) -> FloatArray:
        """As `read`, but good until this thread's next glance only: fresh memory takes as long as reading into it."""
        at = self._at(rows)
        return self._read_into(_held(len(at), self.shape[1]), at)

    def _read_into(self, found: FloatArray, at: IntArray) -> FloatArray:
        from bunny.curate.kernels import unit_rows

        for piece, inside, places in self._by_piece(at):
            _widen(*_source(piece, inside), found, places)
        unit_rows(found)
        return found

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, FloatArray]]:
        """(first row, (n, D) float32 unit rows) of consecutive blocks."""
        for start in range(0, len(self), size):
            yield start, self.read(slice(start, start + size))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.read().astype(dtype or np.float32, copy=False)


class Texts(_Pieces):
    """(N,) strings in Arrow arrays."""

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        import pyarrow as pa

        return Texts([pa.array([str(text) for text in texts], pa.string())])

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    @property
    def ndim(self) -> int:
        return 1

    @property
    def dtype(self) -> Any:
        return np.dtype(object)

    def __getitem__(self, rows: Any) -> Any:
        """One string for an int, else the column of those rows."""
        if isinstance(rows, int | np.integer):
            return self._read(self._at(np.array([rows])))[0]
        return self.take(rows)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._read(self._at(slice(start, start + BLOCK)))

    def tolist(self) -> list[str]:
        return list(self)

    def arrow(self) -> Any:
        """One Arrow array of the rows, in order."""
        import pyarrow as pa

        if self.index is None and len(self.pieces) == 1:
            return self.pieces[0]
        blocks = [self._block(self._at(slice(start, start + BLOCK))) for start in range(0, len(self), BLOCK)]
        return pa.concat_arrays(blocks) if blocks else pa.array([], pa.string())

    def _block(self, at: IntArray) -> Any:
        import pyarrow as pa

        found = list(self._by_piece(at))
        parts = [piece.take(pa.array(inside)) for piece, inside, _ in found]
        if not parts:
            return pa.array([], pa.string())
        back = np.empty(len(at), np.int64)
        back[np.concatenate([places for _, _, places in found])] = np.arange(len(at))
        return pa.concat_arrays([part.cast(pa.string()) for part in parts]).take(pa.array(back))

    def _read(self, at: IntArray) -> list[str]:
        return ["" if text is None else text for text in self._block(at).to_pylist()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        found = np.empty(len(self), dtype=object)
        found[:] = list(self)
        return found if dtype in (None, object, np.dtype(object)) else found.astype(dtype)


_own = threading.local()


def _held(rows: int, columns: int) -> FloatArray:
    """(rows, columns) of this thread's memory, unless that are very many."""
    wanted = rows * columns
    if wanted > MOST_HELD:
        return np.empty((rows, columns), np.float32)
    held: FloatArray | None = getattr(_own, "held", None)
    if held is None or len(held) < wanted:
        held = _own.held = np.empty(max(wanted, LEAST_HELD), np.float32)
    return held[:wanted].reshape(rows, columns)


def _source(piece: Any, inside: IntArray) -> tuple[npt.NDArray[Any], IntArray]:
    """An array, and which rows of it are the piece's rows `inside` (ascending). Files stay where they are."""
    if isinstance(piece, NpyFile) and piece.rows is None:
        sparse = int(inside[-1]) - int(inside[0]) > SPARSE * len(inside)
        return _mapped(piece.path, scattered=sparse), inside + piece.first
    if isinstance(piece, NpyFile):
        return piece[inside], np.arange(len(inside))
    return piece, inside


def _widen(narrow: npt.NDArray[Any], rows: IntArray, wide: FloatArray, places: IntArray) -> None:
    """Row rows[n] of `narrow`, as float32, becomes row places[n] of `wide`."""
    if narrow.dtype == np.float16 and narrow.flags.c_contiguous:
        from bunny.curate.kernels import widen

        widen(narrow.view(np.uint16), rows, wide, places)
    else:
        wide[places] = narrow[rows]
