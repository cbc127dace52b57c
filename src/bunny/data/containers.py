"""Encoded pictures out of the files that hold them: a plain file, a Parquet or Arrow row, a tar member.

In: an `ImageRef`. Out: the bytes as they were stored. Thousands of reads from one shard open it once: Parquet files are
memory-mapped and their recent row groups kept (`CACHE_BYTES` per process), Arrow files only memory-mapped, tar members
are found by an index.
Safe with threads and with forked workers. Knows nothing of picture formats.
"""

from __future__ import annotations

import os
import tarfile
import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import ImageRef

CACHE_BYTES = 256 << 20  # decoded row groups kept per process; the latest one is kept whatever its size
ARROW_SUFFIXES = (".arrow",)
MAX_BYTES = 200 << 20  # an encoded picture above this is refused unread

Stamp = tuple[str, int, int, int]
"""A file as it is now, seen from this process: path, modification time in ns, size in bytes, process id."""


class ImageError(UserError):
    """A picture that cannot be used. `reason` is a short code to count by, `where` names the picture.

    reason: missing_file, empty_file, not_a_picture, damaged or too_large.
    """

    def __init__(self, reason: str, where: object, detail: str) -> None:
        super().__init__(f"{where}: {detail}")
        self.reason = reason
        self.where = str(where)
        self.detail = detail


def image_bytes(ref: ImageRef) -> bytes:
    """The encoded picture as stored. Raises ImageError (missing_file, empty_file, too_large, damaged)."""
    try:
        data = _read(ref)
    except FileNotFoundError:
        raise ImageError("missing_file", ref, "no such file") from None
    except OSError as error:
        raise ImageError("damaged", ref, f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise ImageError("empty_file", ref, "holds no bytes")
    return data


@dataclass(frozen=True)
class TarIndex:
    """What an uncompressed tar holds, without its data.

    members: regular files in the tar's order, name -> (offset, size) in bytes; of two with one name the first.
    repeated: names that come again later. problem: where and how the tar breaks off, "" if it is whole; the members
    before that place are listed and readable all the same.
    """

    members: dict[str, tuple[int, int]]
    repeated: list[str]
    problem: str


def tar_index(path: Path) -> TarIndex:
    """The tar's index, made once as long as the file does not change."""
    return _tar_index(_stamp(path))


def _read(ref: ImageRef) -> bytes:
    path = Path(ref.path)
    if not ref.member:
        _refuse_above(MAX_BYTES, path.stat().st_size, ref)
        return path.read_bytes()
    if path.suffix == ".tar":
        return _tar_member(path, _tar_index(_stamp(path)).members, ref)
    return _cell(_stamp(path), ref)


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return (str(path), stat.st_mtime_ns, stat.st_size, os.getpid())


def _refuse_above(limit: int, size: int, ref: ImageRef) -> None:
    if size > limit:
        raise ImageError("too_large", ref, f"{size / 1e6:.0f} MB encoded, the limit is {limit / 1e6:.0f} MB")


def _tar_member(path: Path, members: dict[str, tuple[int, int]], ref: ImageRef) -> bytes:
    if ref.member not in members:
        raise ImageError("missing_file", ref, "no such member in the tar")
    offset, size = members[ref.member]
    _refuse_above(MAX_BYTES, size, ref)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


@lru_cache(maxsize=64)
def _tar_index(stamp: Stamp) -> TarIndex:
    path, _, size, _ = stamp
    members: dict[str, tuple[int, int]] = {}
    repeated: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    return TarIndex(members, repeated, f"breaks off inside `{member.name}`")
                if member.isfile() and member.name in members:
                    repeated.append(member.name)
                elif member.isfile():
                    members[member.name] = (member.offset_data, member.size)
            end = tar.offset
    except tarfile.TarError as error:
        return TarIndex(members, repeated, f"not a whole uncompressed tar ({error})")
    with Path(path).open("rb") as file:  # Python's tarfile takes a header that is cut or damaged for the end
        file.seek(end)
        whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    last = next(reversed(members), "nothing")
    return TarIndex(members, repeated, "" if whole else f"breaks off after `{last}`: no end-of-archive mark")


def _cell(stamp: Stamp, ref: ImageRef) -> bytes:
    import pyarrow as pa

    try:
        if ref.path.endswith(ARROW_SUFFIXES):
            cell = _arrow_batches(stamp).cell(int(ref.member), ref.column)
        else:
            cell = _shard(stamp).cell(int(ref.member), ref.column)
    except (IndexError, ValueError, KeyError) as error:  # ArrowInvalid is a ValueError
        raise ImageError("damaged", ref, f"no such row or column `{ref.column}` ({error})") from None
    except pa.ArrowException as error:
        raise ImageError("damaged", ref, f"the file is damaged ({error})") from None
    if isinstance(cell, dict):  # as Hugging Face datasets store pictures: {bytes, path}
        cell = cell.get("bytes")
    if cell is None:
        raise ImageError("missing_file", ref, "the cell is empty (null)")
    if not isinstance(cell, bytes):
        raise ImageError("not_a_picture", ref, f"column `{ref.column}` holds no bytes")
    _refuse_above(MAX_BYTES, len(cell), ref)
    return cell


class ArrowBatches:
    """An Arrow file or stream, memory-mapped. batches: the whole ones; problem: where it breaks off, "" if whole."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        with path.open("rb") as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(max(0, path.stat().st_size - 8))
            ended = file.read() == b"\xff\xff\xff\xff\0\0\0\0"
        source = pa.memory_map(str(path))
        self.batches: list[Any] = []
        self.problem = "" if is_file or ended else "it breaks off: no end of stream"
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        self.schema = reader.schema
        try:
            if is_file:
                self.batches += [reader.get_batch(at) for at in range(reader.num_record_batches)]
            else:
                self.batches += iter(reader)
        except (pa.ArrowException, OSError) as error:
            self.problem = f"it breaks off after {len(self.batches)} batches: {error}"
        self._starts = list(accumulate((batch.num_rows for batch in self.batches), initial=0))

    def cell(self, row: int, column: str) -> Any:
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} of {self._starts[-1]}")
        at = bisect_right(self._starts, row) - 1
        cell = self.batches[at].column(column).slice(row - self._starts[at], 1)
        cell.validate(full=True)  # Arrow follows damaged offsets blindly
        return cell[0].as_py()


def arrow_batches(path: Path) -> ArrowBatches:
    """The file's batches, opened once as long as it does not change. Raises OSError, pyarrow's ArrowException."""
    return _arrow_batches(_stamp(path))


@lru_cache(maxsize=64)
def _arrow_batches(stamp: Stamp) -> ArrowBatches:
    return ArrowBatches(Path(stamp[0]))


@lru_cache(maxsize=64)
def _shard(stamp: Stamp) -> _Shard:
    return _Shard(stamp)


class _Shard:
    """One open Parquet file. Reads whole row groups of one column and leaves them in the process's cache."""

    def __init__(self, stamp: Stamp) -> None:
        import pyarrow.parquet as pq

        self._stamp = stamp
        self._file = pq.ParquetFile(stamp[0], memory_map=True, pre_buffer=False)
        meta = self._file.metadata
        sizes = (meta.row_group(group).num_rows for group in range(meta.num_row_groups))
        self._starts = list(accumulate(sizes, initial=0))  # (groups + 1,) first row of each group
        self._lock = threading.Lock()

    def cell(self, row: int, column: str) -> Any:
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} of {self._starts[-1]}")
        group = bisect_right(self._starts, row) - 1
        return self._column(group, column)[row - self._starts[group]].as_py()

    def _column(self, group: int, column: str) -> Any:
        key = (self._stamp, group, column)
        with self._lock:  # readers of one file wait for each other, so a group is read once
            cells = _groups(self._stamp[3]).get(key)
            if cells is None:
                cells = self._file.read_row_group(group, columns=[column], use_threads=False).column(column)
                _groups(self._stamp[3]).put(key, cells)
        return cells


class _RecentGroups:
    """Arrow columns by key, least recently used out first, bounded by their bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._columns: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Any:
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
            return self._columns.get(key)

    def put(self, key: Any, column: Any) -> None:
        with self._lock:
            self._columns[key] = column
            self._bytes += column.nbytes
            while self._bytes > self._limit and len(self._columns) > 1:
                _, oldest = self._columns.popitem(last=False)
                self._bytes -= oldest.nbytes


@lru_cache(maxsize=2)
def _groups(process: int) -> _RecentGroups:
    """The cache of one process: a forked worker starts its own, with its own locks."""
    return _RecentGroups(CACHE_BYTES)
