"""Weight files as tables of named tensors: opened by their headers, read by rows, never held whole.

In: a model folder or a weight file. Out: a `TensorTable`, which says what there is and reads the rows asked for.
Views over tables (`tensor_views.py`) rename, join and average without reading; `tensor_writing.py` streams a table to
disk.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from bunny.core.errors import UserError

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""Names of the safetensors format, in its own order (a file holds its tensors from the last kind to the first)."""

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    *ADAPTER_FILES,
)
"""What a folder is looked through for; the first one found is taken, as transformers does."""

PICKLED = (".bin", ".pt", ".pth")
MAPPED_BYTES = 32 << 20  # of a pickled file that are read through one mapping; mapping a shard takes some 20 ms
TORN = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error)
"""What PyTorch's reader raises, beside its own error, on a file that is cut or overwritten."""
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
AGAIN = "copy or download it again (a git-lfs pointer becomes the file with `git lfs pull`)"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Length of the first axis; a scalar counts as one row."""
        return self.shape[0] if self.shape else 1

    @property
    def row_elements(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorTable(Protocol):
    """Named tensors that are read when they are asked for."""

    @property
    def info(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of the first axis, in the dtype that `info` says. Scalars come whole."""
        ...


def open_tensors(path: Path) -> TensorTable:
    """The tensors of a model folder, a LoRA folder or one weight file. Raises UserError for what is not whole.

    Headers are read and checked; of the weights nothing is read yet. Pickled files are opened with PyTorch's
    `weights_only` reader and nothing else.
    """
    path = Path(path)
    if path.is_dir():
        path = _main_file(path)
    elif not path.exists():
        raise UserError(f"{path}: no such weight file or folder", fix="check the path")
    return _sharded(path) if path.name.endswith(".index.json") else _open_file(path)


def _main_file(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: no weights there", fix=f"it should hold {WEIGHT_FILES[0]} or {WEIGHT_FILES[1]}")


def _open_file(path: Path) -> TensorTable:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix in PICKLED:
        return PickledFile(path)
    raise UserError(f"{path}: not a weight file", fix=f"known endings: .safetensors, {', '.join(PICKLED)}")


def _sharded(index: Path) -> TensorTable:
    """All shards that an index names. What they hold beyond the index is kept, as transformers does."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index}: damaged (no `weight_map`)", fix=AGAIN) from None
    for shard in shards:
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise UserError(f"{index}: it names the shard {shard}, which is not there", fix=AGAIN)
    table = Joined([_open_file(index.parent / shard) for shard in shards])
    for name, shard in places.items():
        if name not in table.info:
            raise UserError(f"{index.parent / shard}: it should hold {name} and does not", fix=AGAIN)
    return table


class SafetensorsFile:
    """A safetensors file, read by seeking: mapped into memory, its pages would count as this process's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info, self._begin = _read_header(path)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        info = self.info[name]
        begin, shape = self._begin[name], info.shape
        if shape:
            start, stop, _ = slice(start, stop).indices(shape[0])
            begin += start * info.row_elements * info.dtype.itemsize
            shape = (max(0, stop - start), *shape[1:])
        raw = torch.empty(TensorInfo(shape, info.dtype).nbytes, dtype=torch.uint8)
        with self.path.open("rb") as file:
            file.seek(begin)
            if file.readinto(raw.numpy().data) != len(raw):
                raise UserError(f"{self.path}: it became shorter while it was read", fix=AGAIN)
        return raw.view(info.dtype).reshape(shape)


def _read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """(what is in the file, where in it each tensor begins). Raises UserError if the file is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise _damaged(path, "cut off, or not a safetensors file")
        try:
            header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_unique)
            header.pop("__metadata__", None)
            entries = [(name, *_entry(entry)) for name, entry in header.items()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, f"its header cannot be read: {error}") from None
    position = 0
    for name, info, begin, end in sorted(entries, key=lambda entry: entry[2:]):
        if begin != position or end - begin != info.nbytes:
            raise _damaged(path, f"{name} does not lie where its shape and its neighbours say")
        position = end
    if position != size - 8 - length:
        found = size - 8 - length
        raise _damaged(path, f"{position} bytes of weights are announced, {found} are there")
    return {name: info for name, info, _, _ in entries}, {name: 8 + length + begin for name, _, begin, _ in entries}


def _entry(entry: dict[str, Any]) -> tuple[TensorInfo, int, int]:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"numbers of the kind {entry['dtype']}")
    shape = tuple(entry["shape"])
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("a size that is no size")
    return TensorInfo(shape, DTYPES[entry["dtype"]]), begin, end


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why})", fix=AGAIN)


class PickledFile:
    """A `.bin`, `.pt` or `.pth` file of tensors, mapped into memory.

    It is mapped anew after each MAPPED_BYTES, so that its pages, which count as this process's own, are let go again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = self._mapped()
        self._bytes = 0
        self.info = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in self._state.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        if self._bytes > MAPPED_BYTES:
            self._state = {}  # the old mapping goes before the new one comes
            self._state, self._bytes = self._mapped(), 0
        tensor = self._state[name].detach()
        piece = (tensor[start:stop] if tensor.dim() else tensor).clone()
        self._bytes += piece.nbytes
        return piece

    def _mapped(self) -> Mapping[str, torch.Tensor]:
        try:
            state = torch.load(self.path, weights_only=True, mmap=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{self.path}: it holds more than tensors, which is not safe to open",
                fix="have its maker save it as safetensors",
            ) from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})", fix=AGAIN) from error
        except TORN as error:
            first = (str(error).strip().splitlines() or ["empty"])[0].partition(". ")[0]  # the rest is general advice
            raise UserError(f"{self.path}: damaged, or of a kind before PyTorch 1.6 ({first})", fix=AGAIN) from error
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
        ):
            raise UserError(f"{self.path}: not a table of named tensors", fix="give the file that holds the weights")
        return state


class Joined:
    """Tables side by side. Raises UserError if two of them hold a tensor of the same name."""

    def __init__(self, tables: Sequence[TensorTable]) -> None:
        self._home: dict[str, TensorTable] = {}
        for table in tables:
            for name in table.info:
                if name in self._home:
                    first, second = (getattr(each, "path", "a table") for each in (self._home[name], table))
                    raise UserError(f"{name}: it is in both {first} and {second}", fix="remove the file that is stale")
                self._home[name] = table
        self.info = {name: table.info[name] for name, table in self._home.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return self._home[name].read(name, start, stop)
