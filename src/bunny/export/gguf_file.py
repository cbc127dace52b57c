"""A table of tensors becomes one GGUF file, tensor by tensor: at most one of them is in memory, in its final form.

In: settings by key, a `TensorTable` under GGUF's names, a kind of numbers per tensor. Out: the file. Formats and
quantisers are those of the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bunny.core.errors import UserError
from bunny.core.log import meter
from bunny.model.tensor_writing import check_room
from bunny.model.tensors import TensorInfo, TensorTable

PIECE_BYTES = 16 << 20  # of float32 that are quantised at once
MB = 1_000_000
FILE_TYPES: Mapping[str, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}
"""Kinds that are written here, and the number by which a file names the kind of most of its tensors."""

LARGEST_F16 = 65504.0


def gguf() -> ModuleType:
    """The `gguf` package. Raises UserError that says how to install it."""
    try:
        import gguf as package
    except ImportError:
        raise UserError("GGUF files need the package `gguf`", fix="pip install 'bunny-vlm[gguf]'") from None
    return package


def write_gguf(
    path: Path, arch: str, settings: Mapping[str, Any], table: TensorTable, kinds: Mapping[str, str], words: str
) -> None:
    """Write the file `path`. arch: its `general.architecture`. kinds: tensor -> f32, f16, q8_0 or q4_0.

    words: before the progress bar. Raises UserError for a number that f16 cannot hold, and where the disk is too full.
    """
    package = gguf()
    sizes = {name: _nbytes(info, kinds[name]) for name, info in table.info.items()}
    check_room(path.parent, sum(sizes.values()))
    with closing(package.GGUFWriter(path, arch)) as writer:
        for key, value in settings.items():
            _add(writer, key, value)
        for name, info in table.info.items():
            kind = getattr(package.GGMLQuantizationType, kinds[name].upper())
            writer.add_tensor_info(name, info.shape, np.dtype(np.float32), sizes[name], kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with meter(words, -(-sum(sizes.values()) // MB)) as bar:
            written = 0
            for name in table.info:
                writer.write_tensor_data(_final(table, name, kinds[name], sizes[name]))
                written += sizes[name]
                if step := -(-written // MB) - bar.done:
                    bar.advance(step)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def kind_of(info: TensorInfo, wanted: str) -> str:
    """The kind a tensor gets: vectors stay float32, and rows that do not divide into blocks of 32 become f16."""
    if len(info.shape) < 2:
        return "f32"
    return "f16" if wanted.startswith("q") and info.shape[-1] % 32 else wanted


def _nbytes(info: TensorInfo, kind: str) -> int:
    package = gguf()
    block, size = package.GGML_QUANT_SIZES[getattr(package.GGMLQuantizationType, kind.upper())]
    return int(np.prod(info.shape, dtype=np.int64)) // int(block) * int(size)


def _final(table: TensorTable, name: str, kind: str, nbytes: int) -> npt.NDArray[np.uint8]:
    """The tensor's bytes, filled piece by piece (nbytes,)."""
    out = np.empty(nbytes, dtype=np.uint8)
    begin = 0
    for piece in _pieces(table, name):
        raw = _bytes(piece, name, kind)
        out[begin : begin + len(raw)] = raw
        begin += len(raw)
    assert begin == nbytes, name
    return out


def _pieces(table: TensorTable, name: str) -> Iterator[npt.NDArray[np.float32]]:
    info = table.info[name]
    rows = max(1, PIECE_BYTES // max(1, 4 * info.row_elements))
    for start in range(0, info.rows, rows):
        yield table.read(name, start, min(start + rows, info.rows)).to(torch.float32).numpy()


def _bytes(piece: npt.NDArray[np.float32], name: str, kind: str) -> npt.NDArray[np.uint8]:
    if kind != "f32" and not np.abs(piece).max(initial=0) <= LARGEST_F16:
        largest = float(np.abs(piece).max())
        raise UserError(f"{name}: {largest:.4g} does not fit f16", fix="write --type f32")
    if kind in ("f32", "f16"):
        return piece.astype("<f4" if kind == "f32" else "<f2").reshape(-1).view(np.uint8)
    package = gguf()
    kind_number = getattr(package.GGMLQuantizationType, kind.upper())
    return package.quants.quantize(piece, kind_number).reshape(-1)  # type: ignore[no-any-return]
