"""A table of tensors becomes a Hugging Face folder's weight files, streamed: no more than a few pieces are in memory.

In: a `TensorTable`. Out: `model.safetensors`, or shards and `model.safetensors.index.json`, byte for byte what
safetensors and transformers would write. Files get their names when all of them are complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from bunny.core.errors import UserError
from bunny.core.log import meter
from bunny.core.store import write_atomic
from bunny.model.tensor_views import Cast
from bunny.model.tensors import DTYPES, WEIGHT_FILES, TensorInfo, TensorTable

SHARD_BYTES = 5_000_000_000
PIECE_BYTES = 2 << 20  # of rows in float32: short enough for a core's cache
METADATA: Mapping[str, str] = {"format": "pt"}
MB = 1_000_000
KINDS = list(DTYPES.values())
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(
    table: TensorTable,
    folder: Path,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] = METADATA,
    description: str = "writing weights (MB)",
) -> list[Path]:
    """The weight files written to `folder`, which must not hold any yet.

    dtype: what floating-point tensors become; None: each as the table says. Integers and truth values stay.
    shard_bytes: a file is not longer than this unless one tensor is. description: words before the progress bar.
    Raises UserError if the disk is too full, before anything is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if held := [name for name in WEIGHT_FILES if (folder / name).exists()]:
        raise UserError(f"{folder}: it holds weights already ({held[0]})", fix="choose another folder")
    if dtype is not None:
        table = Cast(table, {name: dtype for name, info in table.info.items() if info.dtype.is_floating_point})
    total = sum(info.nbytes for info in table.info.values())
    check_room(folder, total)
    split = split_state_dict_into_shards_factory(
        dict(table.info),
        get_storage_size=lambda info: info.nbytes,
        get_storage_id=lambda info: None,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    shards: dict[str, list[str]] = split.filename_to_tensors or {"model.safetensors": []}
    with meter(description, -(-total // MB)) as bar:
        written = 0

        def count(size: int) -> None:
            nonlocal written
            written += size
            if step := -(-written // MB) - bar.done:
                bar.advance(step)

        _write_shards(table, folder, shards, metadata, count)
    if split.is_sharded:
        index = {"metadata": {"total_size": total}, "weight_map": split.tensor_to_filename}
        write_atomic(folder / "model.safetensors.index.json", json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [folder / name for name in shards]


def check_room(folder: Path, needed: int) -> None:
    """Raise UserError if so many bytes are not free where the folder is."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            fix="make room there or choose another folder",
        )


def _write_shards(
    table: TensorTable,
    folder: Path,
    shards: Mapping[str, Sequence[str]],
    metadata: Mapping[str, str],
    count: Callable[[int], None],
) -> None:
    """All shards under passing names, then all of them under their own; after an error nothing is left."""
    parts = {folder / name: folder / f".{name}.part" for name in shards}
    # freed at once: glibc then keeps blocks up to this size for the next piece, instead of asking for new pages
    torch.empty(8 * PIECE_BYTES, dtype=torch.uint8)
    try:
        for (path, part), names in zip(parts.items(), shards.values(), strict=True):
            try:
                _write_file(table, part, names, metadata, count)
            except OSError as error:
                error.filename = error.filename or str(path)  # a full disk does not say where
                raise
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise
    for path, part in parts.items():
        part.replace(path)


def _write_file(
    table: TensorTable, path: Path, names: Sequence[str], metadata: Mapping[str, str], count: Callable[[int], None]
) -> None:
    # widest kinds first, so that every tensor begins at a multiple of its element's size
    order = sorted(names, key=lambda name: (-KINDS.index(_kind(name, table.info[name])), name))
    with path.open("wb") as file:
        file.write(_header({name: table.info[name] for name in order}, metadata))
        for name in order:
            for piece in _pieces(table, name):
                raw = piece.contiguous().reshape(-1).view(torch.uint8)
                file.write(raw.numpy().data)
                count(len(raw))
        file.flush()
        os.fsync(file.fileno())


def _kind(name: str, info: TensorInfo) -> torch.dtype:
    if info.dtype not in NAMES:
        raise UserError(f"{name}: numbers of the kind {info.dtype} cannot be written", fix="convert them first")
    return info.dtype


def _header(infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """Length and header of a safetensors file whose tensors lie one after the other in this order."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, info in infos.items():
        end = begin + info.nbytes
        entries[name] = {"dtype": NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(table: TensorTable, name: str) -> Iterator[torch.Tensor]:
    """The tensor in runs of rows of about PIECE_BYTES."""
    info = table.info[name]
    row_bytes = info.row_elements * max(4, info.dtype.itemsize)
    rows = max(1, PIECE_BYTES // max(1, row_bytes))
    for start in range(0, info.rows, rows):
        yield table.read(name, start, min(start + rows, info.rows))
