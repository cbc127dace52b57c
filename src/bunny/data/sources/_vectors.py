"""Vectors that exist already, wherever they lie: checked before use, and as `.npy` files.

In: `.npy` files, members of `.npz` archives, list columns of Parquet and Arrow files. Out: what a `.npy` file holds, or
the `.npy` file that something was unpacked to, once. Raises BadRow where a file is cut or holds something else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from bunny.core.publishing import publish
from bunny.core.types import IntArray, StoredVectors
from bunny.data.sources._columns import batches, one_line, schema
from bunny.data.sources._rows import BadRow

UNPACKED = ".bunny-vectors"
NOT_AN_ARRAY = (ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError)
"""What numpy raises for a damaged header, which it reads as Python source."""
NOT_AN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Npy:
    """A `.npy` file of vectors: (rows, dims), whole by its size."""

    path: Path
    rows: int
    dims: int


@dataclass(frozen=True)
class ListColumn:
    """A list column, unpacked to `path`. lengths: (N,) of each row's list, -1 where there is none; dims: of the first
    list with numbers. A row whose list has another length has no vector."""

    path: Path
    lengths: IntArray
    dims: int

    def stored(self) -> StoredVectors:
        fits = self.lengths == self.dims
        return StoredVectors(self.path, None if bool(fits.all()) else np.where(fits, np.arange(len(fits)), -1))


def npy(path: Path) -> Npy:
    """What the file holds. Raises BadRow: damaged_file, wrong_dtype, wrong_dims."""
    try:
        with path.open("rb") as file:
            rows, dims, size = _header(path.name, file)
            start, there = file.tell(), path.stat().st_size
    except OSError as error:
        raise BadRow("damaged_file", f"{path.name} cannot be read: {error.strerror or error}") from None
    if there < start + rows * dims * size:
        whole = max(0, there - start) // max(1, dims * size)
        raise BadRow("damaged_file", f"{path.name} breaks off after {whole} of {rows} rows; get it again")
    return Npy(path, rows, dims)


def npz_member(path: Path, member: str, folder: Path) -> Path:
    """The member as a `.npy` file in `folder`, unpacked the first time. Raises BadRow, UserError."""

    def write(file: IO[bytes]) -> None:
        npz_shape(path, member)
        with _zip_damage(path), zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as packed:
            shutil.copyfileobj(packed, file, 1 << 22)

    return _unpacked(path, member, folder, write)


def npz_shape(path: Path, member: str) -> tuple[int, int]:
    """(rows, dims) of a member. Raises BadRow."""
    with _zip_damage(path), zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as packed:
        return _header(f"{path.name}: {member}", packed)[:2]


def key_array(path: Path, member: str | None = None) -> Any:
    """(M,) Arrow strings: the keys in a `.npy` file or in a member of an archive; DataComp's pairs of 64-bit numbers
    become their 32 hexadecimal digits. Raises BadRow."""
    import pyarrow as pa

    try:
        with _zip_damage(path):
            loaded = np.load(path, allow_pickle=False)
            found = loaded if member is None else loaded[member]
    except (*NOT_AN_ARRAY, OSError) as error:
        raise BadRow("damaged_file", f"{path.name} holds no keys ({one_line(error)})") from None
    if found.dtype.names and len(found.dtype.names) == 2:
        return pa.array([f"{int(high):016x}{int(low):016x}" for high, low in found.tolist()], pa.string())
    return pa.array([str(key) for key in found.ravel().tolist()], pa.string())


def npz_members(path: Path) -> list[str]:
    """Names of the arrays in an archive. Raises BadRow."""
    with _zip_damage(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def list_column(path: Path, column: str, folder: Path) -> ListColumn:
    """A column of float lists as a `.npy` file in `folder`, unpacked the first time. Raises BadRow, UserError."""
    found = [list_lengths(batch.light.column(0)) for batch in batches(path, [column])]
    lengths = np.concatenate(found) if found else np.zeros(0, np.int64)
    dims = int(next(iter(lengths[lengths > 0]), 0))

    def write(file: IO[bytes]) -> None:
        import pyarrow as pa

        dtype = np.float16 if _floats(path, column) == np.float16 else np.float32
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (len(lengths), dims)}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches(path, [column]):
            cells = batch.light.column(0)
            block = np.full((len(cells), dims), np.nan, dtype)  # (n, D)
            fits = list_lengths(cells) == dims
            kept = cells.filter(pa.array(fits))
            block[fits] = kept.flatten().to_numpy(zero_copy_only=False).reshape(-1, dims)
            file.write(block.tobytes())

    return ListColumn(_unpacked(path, column, folder, write), lengths, dims)


def list_lengths(cells: Any) -> IntArray:
    """(n,) length of each row's list, -1 where there is none."""
    import pyarrow.compute as pc

    lengths: IntArray = pc.fill_null(pc.list_value_length(cells), -1).to_numpy(zero_copy_only=False)
    return lengths


def is_floats(kind: Any) -> bool:
    """Whether a column's type is a list of floats."""
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _floats(path: Path, column: str) -> Any:
    return np.dtype(schema(path).field(column).type.value_type.to_pandas_dtype())


def _header(name: str, file: IO[bytes] | Any) -> tuple[int, int, int]:
    """(rows, dims, bytes of a number); the file stands at the first number afterwards. Raises BadRow."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"format {version}")
        shape, _, dtype = read(file)
    except (*NOT_AN_ARRAY, EOFError) as error:
        raise BadRow("damaged_file", f"{name} is no .npy file ({one_line(error)})") from None
    if dtype not in (np.dtype("<f2"), np.dtype("<f4")):
        raise BadRow("wrong_dtype", f"{name} holds {dtype}; save it with `.astype('float16')` or `.astype('float32')`")
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
        raise BadRow("wrong_dims", f"{name} has the shape {shape}; vectors are rows of a table (n, D)")
    return int(shape[0]), int(shape[1]), dtype.itemsize


@contextmanager
def _zip_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise BadRow(
            "missing_vectors", f"{path.name}: {error.args[0]}; it holds {', '.join(_names_in(path))}"
        ) from None
    except (*NOT_AN_ARCHIVE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EIO):
            raise  # not of the archive: a full disk, a file that is not there
        raise BadRow(
            "damaged_file", f"{path.name} is no whole .npz archive ({one_line(error)}); get it again"
        ) from None


def _names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _unpacked(origin: Path, part: str, folder: Path, write: Callable[[IO[bytes]], None]) -> Path:
    """The file that `write` fills, whole or not at all; made again only if `origin` has changed since.

    It is as old as `origin`, wherever and whenever it is unpacked.
    """
    stat = origin.stat()
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in part)
    far = folder.parent.resolve() != origin.parent.resolve()  # files of one name may meet there
    whose = f"{hashlib.sha256(os.fsencode(origin.absolute())).hexdigest()[:12]}." if far else ""
    final = folder / f"{whose}{origin.name}.{safe}.{stat.st_size:x}-{stat.st_mtime_ns:x}.npy"
    if final.is_file():
        return final
    with publish(final) as temporary:
        with temporary.open("wb") as file:
            write(file)
        os.utime(temporary, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    return final
