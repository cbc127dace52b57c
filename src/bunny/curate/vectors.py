"""A pool folder made of shards: each is read once, then each part gets its vectors, in tasks that survive a kill.

In: shards (who reads them is the caller's business), an `Embedder` and a picture opener, or vectors that exist.
Out: a folder for `bunny.curate.pool`. A part that is there and was made from the same rows is not made again. A sample
without a readable picture or a usable vector is not lost: it is listed in its part as rejected.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log, track
from bunny.core.protocols import Embedder
from bunny.core.store import fingerprint, trouble, write_atomic
from bunny.core.types import Rejected, Sample
from bunny.curate.index import Indexed, file_age, identity, read_index, write_index
from bunny.curate.part_making import OpenImage, embed_part
from bunny.curate.parts import PART, VECTORS, is_whole, open_vectors
from bunny.curate.pool import POOL, PoolFolder

PICTURE_ROWS = 512  # pictures of a part: a kill loses the work on one
MANY_SHARDS, SHARDED_ROWS = 100, 4096  # of a source in more shards than this; parts are files, and files are counted
STORED_ROWS = 262_144  # rows of a part whose vectors exist
INDEX_FOLDER = ".index"
STORED_MODEL = "vectors of the source"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part to be made. index: the shard's index; number: of the part in it; rows: its samples; stored: whether their
    vectors exist; key: fingerprint of all that it is made from; output: where it goes."""

    index: Path
    number: int
    rows: int
    stored: bool
    key: str
    output: Path


def make_pool(
    folder: Path,
    shards: Sequence[str],
    model: str,
    *,
    read: Callable[[Sequence[tuple[int, Path]]], None],
    embed: Callable[[Sequence[Piece]], None],
) -> PoolFolder:
    """The pool of all shards. Raises UserError if none can be read, or if nothing can be written.

    shards: of each a fingerprint of what it reads. model: what makes the vectors, empty if they exist. read: publishes
    the index of shards, given as (number, where it goes). embed: publishes parts.
    """
    key = fingerprint("pool", model, {str(number): mark for number, mark in enumerate(shards)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (made := _finished(folder, key)) is None:
            made = _make(folder, shards, model, key, read, embed)
        _clear(folder, made)
    except OSError as error:
        if told := trouble(error, folder):
            raise UserError(told, fix="make room there or choose another folder; finished parts are kept") from error
        raise
    return made


def _finished(folder: Path, key: str) -> PoolFolder | None:
    """The pool if it is there, whole, and made from the same."""
    try:
        made = PoolFolder(folder)
    except UserError:
        return None
    if made.info.get("key") != key or not all(is_whole(part) for part in made.parts):
        return None
    log.info("pool: done before, kept (%s)", folder)
    return made


def _make(
    folder: Path,
    shards: Sequence[str],
    model: str,
    key: str,
    read: Callable[[Sequence[tuple[int, Path]]], None],
    embed: Callable[[Sequence[Piece]], None],
) -> PoolFolder:
    outputs = [folder / INDEX_FOLDER / f"{number:05d}-{mark[:12]}" for number, mark in enumerate(shards)]
    read([(number, output) for number, output in enumerate(outputs)])
    told = [read_index(output) for output in outputs]
    failed = [one.failed for one in told if one.failed]
    if failed and len(failed) == len(told):  # a source that is empty is not one that failed
        raise UserError(f"nothing could be read: {failed[0]}", fix="check the source's `path` and settings")
    if failed:
        log.warning("%d of %d shards cannot be read, the first: %s", len(failed), len(told), failed[0])
    pieces = _pieces(folder, outputs, told, model)
    for piece in pieces:
        if piece.output.exists() and not is_whole(piece.output):
            log.warning("%s: damaged, made again", piece.output.name)
            shutil.rmtree(piece.output)
    embed(pieces)
    embedded = any(piece.rows and not piece.stored for piece in pieces)
    info = {
        "parts": [piece.output.name for piece in pieces],
        "model": STORED_MODEL if any(piece.stored for piece in pieces) and not embedded else model,
        "dims": _dims([piece.output for piece in pieces]),
        "key": key,
    }
    write_atomic(folder / POOL, json.dumps(info, indent=1))
    return PoolFolder(folder)


def _pieces(folder: Path, outputs: Sequence[Path], told: Sequence[Indexed], model: str) -> list[Piece]:
    """All parts, in reading order. They are named by what they are made from, so that they are found again."""
    found: list[Piece] = []
    times: Counter[str] = Counter()
    for output, shard in zip(outputs, told, strict=True):
        for number, digest in enumerate(shard.parts):
            stored = "image" in shard.stored
            files = {kind: _within(folder, file) for kind, file in shard.stored.items()}
            mark = fingerprint("part", files if stored else model, {"rows": digest})
            times[mark] += 1
            name = f"part-{mark}" if times[mark] == 1 else f"part-{mark}-{times[mark]}"
            found.append(Piece(output, number, shard.rows[number], stored, mark, folder / name))
    return found


def _within(folder: Path, file: str) -> str:
    """A file's path, seen from the pool's folder if it lies there: a pool that is made elsewhere is the same pool."""
    path = Path(file)
    return path.relative_to(folder.absolute()).as_posix() if path.is_relative_to(folder.absolute()) else file


def _dims(parts: Sequence[Path]) -> dict[str, int]:
    """Length of each kind of vector."""
    found: dict[str, int] = {}
    for part in parts:
        for name in VECTORS:
            vectors: Any = open_vectors(part, name) if name not in found else None
            if vectors is not None:
                found[name] = int(vectors.shape[1])
    return found


def _clear(folder: Path, made: PoolFolder) -> None:
    """Take away what the pool no longer needs: the index, and parts of earlier ones."""
    wanted = {part.name for part in made.parts}
    for entry in folder.iterdir():
        stale = entry.name.startswith(("part-", ".part-")) and entry.name not in wanted
        if entry.is_dir() and (stale or entry.name == INDEX_FOLDER):
            shutil.rmtree(entry, ignore_errors=True)


def embed_pool(
    samples: Sequence[Sample],
    rejected: Sequence[Rejected],
    embedder: Embedder,
    folder: Path,
    *,
    open_image: OpenImage,
    threads: int = 0,
    part_rows: int = 0,
) -> PoolFolder:
    """The pool of samples at hand, in this process; their order does not matter.

    rejected: rows that the samples' source could not read. threads: for decoding, 0 = all cores. part_rows: samples of
    a part, 0 = `PICTURE_ROWS`. Raises nothing for single bad samples.
    """
    rows: list[Sample | Rejected] = [*sorted(samples, key=lambda sample: sample.id), *rejected]
    size = part_rows or PICTURE_ROWS
    digest = hashlib.sha256(f"{size}\0".encode())
    for row in rows:
        digest.update(identity(row, file_age) if isinstance(row, Sample) else repr(row).encode("utf-8", "replace"))

    def read(shards: Sequence[tuple[int, Path]]) -> None:
        for _, output in shards:
            if not output.exists():
                write_index(iter(rows), {}, output, size, "samples")

    def embed(pieces: Sequence[Piece]) -> None:
        for piece in track(pieces, "embed", len(pieces)):
            if not piece.output.exists():
                embed_part(
                    piece.index, piece.number, embedder, open_image, piece.output, key=piece.key, threads=threads
                )

    return make_pool(folder, [digest.hexdigest()], embedder.name, read=read, embed=embed)


def seconds_of(folder: PoolFolder) -> float:
    """Work that went into the parts, over all attempts and processes."""
    return float(sum(json.loads((part / PART).read_text(encoding="utf-8"))["seconds"] for part in folder.parts))


def memory_of(folder: PoolFolder) -> int:
    """The most bytes that a process held while it made one of the parts; 0 if unknown."""
    told = (json.loads((part / PART).read_text(encoding="utf-8")) for part in folder.parts)
    return max((int(one.get("memory", 0)) for one in told), default=0)
