"""The pool of a recipe: sources, embedders and pictures are put together here, and the work is cut into tasks.

In: the blocks of a source and an embedder. Out: a pool folder. The functions that tasks name take JSON-able arguments
only, so that any engine can run them, on any machine that sees the same files.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.protocols import Embedder, Engine, HasVectors, Sharded
from bunny.core.recipe import Block, make
from bunny.core.store import fingerprint, fingerprint_files, trouble
from bunny.core.types import Task
from bunny.curate.columns import NpyFile
from bunny.curate.engines import release
from bunny.curate.index import UNREADABLE, write_failed_index, write_index
from bunny.curate.pool import PoolFolder
from bunny.curate.vectors import MANY_SHARDS, PICTURE_ROWS, SHARDED_ROWS, STORED_ROWS, Piece, make_pool

SOURCES, EMBEDDERS = "bunny.data.sources", "bunny.infer.embedders"
UNPACKED = "vectors"  # folder of the pool for vectors out of archives: the data may lie where nothing can be written


def pool_of(
    source: Block,
    base: Path,
    embedder: Block | None,
    folder: Path,
    engine: Engine,
    *,
    part_rows: int | None = None,
    threads: int = 0,
    where: str = "pool.source",
) -> PoolFolder:
    """The pool of everything that the source reads; parts that are there are not made again.

    base: folder that relative paths are seen from. part_rows: samples of a part; default: `PICTURE_ROWS` to embed
    (`SHARDED_ROWS` for a source in more than `MANY_SHARDS` shards), `STORED_ROWS` where vectors exist. threads: of each
    task, for decoding pictures, 0 = all cores. Raises UserError if no row is usable, or if there is nothing to make
    vectors with.
    """
    reader = make(source, SOURCES, where, folder=base)
    shards: Sequence[Mapping[str, Any]] = reader.shards() if isinstance(reader, Sharded) else [source]
    unpack_to = str(folder.absolute() / UNPACKED)
    model = _model(shards, base, embedder, where, unpack_to)
    rows = part_rows or (SHARDED_ROWS if len(shards) > MANY_SHARDS else PICTURE_ROWS)

    def index_task(number: int, output: Path) -> Task:
        arguments = {"source": shards[number], "base": str(base), "where": where, "part_rows": rows}
        arguments |= {"stored_rows": part_rows or STORED_ROWS, "unpack_to": unpack_to}
        return Task("bunny.pipeline.pool_tasks:index_shard", arguments, output)

    def part_task(piece: Piece) -> Task:
        arguments: dict[str, Any] = {"index": str(piece.index), "number": piece.number, "key": piece.key}
        if piece.stored:
            return Task("bunny.curate.part_making:refer_part", arguments, piece.output)
        if piece.rows and embedder is None:
            raise UserError(f"{where}: {piece.rows} rows have no vectors", fix="name an embedder in `curate.embedder`")
        arguments |= {"embedder": embedder and _located(embedder), "threads": threads}
        return Task("bunny.pipeline.pool_tasks:embed_shard", arguments, piece.output)

    made = make_pool(
        folder,
        _marks(shards, base, [rows, part_rows or STORED_ROWS]),
        model,
        read=lambda todo: engine.run("read", [index_task(*one) for one in todo]),
        embed=lambda pieces: engine.run("embed", [part_task(piece) for piece in pieces]),
    )
    if embedder is not None:
        release(engine)  # workers hold the embedder, on the GPU too
    if not len(made):
        out = made.rejected()
        reasons = dict(Counter(item.reason for item in out).most_common())
        told = f"all rejected: {reasons}, first {out[0].where} {out[0].detail}" if out else "it has no rows"
        raise UserError(f"{where}: no usable sample, {told}", fix="check the source's settings")
    log.info("%d pairs, %d rejected", len(made), len(made.rejected()))
    return made


def index_shard(
    source: Mapping[str, Any], base: str, where: str, part_rows: int, stored_rows: int, unpack_to: str, output: Path
) -> None:
    """Task: read one shard and publish its index. A shard that cannot be read is an index with one rejected row.

    unpack_to: folder for vectors that lie in an archive, unless the source's block names one.
    """
    name = str(source.get("path", where))
    try:
        reader = make(dict(source), SOURCES, where, folder=Path(base), unpack_to=unpack_to)
        stored = reader.stored() if isinstance(reader, HasVectors) else {}
        for vectors in stored.values():
            NpyFile(vectors.path)  # it can be read
    except UNREADABLE as error:
        if trouble(error.__cause__ or error, output.parent):
            raise
        write_failed_index(output, name, error)
        return
    stored = stored if "image" in stored else {}
    write_index(reader.read(), stored, output, stored_rows if stored else part_rows, name)


def embed_shard(index: str, number: int, key: str, embedder: Block | None, threads: int, output: Path) -> None:
    """Task: decode and embed one part, and publish it."""
    from bunny.curate.part_making import embed_part
    from bunny.data.images import open_image

    model = _embedder(json.dumps(embedder, sort_keys=True)) if embedder else None
    embed_part(Path(index), number, model, open_image, output, key=key, threads=threads)


def _located(embedder: Block) -> Block:
    """The block with folders seen from this working folder: a task may run in another."""
    folders = {key for key, value in embedder.items() if key != "use" and isinstance(value, str) and value}
    return {k: str(Path(v).absolute()) if k in folders and Path(v).is_dir() else v for k, v in embedder.items()}


@lru_cache(maxsize=1)
def _embedder(block: str) -> Embedder:
    """The embedder of a block, loaded once a process."""
    made: Embedder = make(json.loads(block), EMBEDDERS, "curate.embedder")
    return made


def _model(shards: Sequence[Mapping[str, Any]], base: Path, embedder: Block | None, where: str, unpack_to: str) -> str:
    """What makes the vectors; empty if all of them exist. Raises UserError if nothing does."""
    if embedder is not None:
        return _embedder(json.dumps(embedder, sort_keys=True)).name
    for shard in shards:
        reader = make(dict(shard), SOURCES, where, folder=base, unpack_to=unpack_to)
        if isinstance(reader, HasVectors) and "image" in reader.stored():
            return ""
    raise UserError(f"{where}: it has no vectors, and no embedder is named", fix="add `embedder: {use: clip, …}`")


def _marks(shards: Sequence[Mapping[str, Any]], base: Path, sizes: Sequence[int]) -> list[str]:
    """Of each shard a fingerprint of its block and of the files that it names."""
    beside = lru_cache(maxsize=None)(_by_stem)

    @cache
    def state(path: Path) -> str:
        return fingerprint_files(_files(path, beside))

    found = []
    for shard in shards:
        # `folder` is `base`, runs and all; where vectors are unpacked to says nothing of them
        named = {key: value for key, value in shard.items() if key not in ("folder", "unpack_to")}
        words = [value for value in named.values() if isinstance(value, str) and value]
        files = {str(number): state(base / word) for number, word in enumerate(words)}
        told = {key: value for key, value in shard.items() if key != "unpack_to"}
        found.append(fingerprint("shard", [told, str(base), list(sizes)], files))
    return found


def _files(path: Path, beside: Callable[[Path], Mapping[str, Sequence[Path]]]) -> Sequence[Path]:
    """The file at a path and those beside it of one name (`00000.tar`, `00000.parquet`); all files below a folder but
    hidden ones; or those that match a pattern."""
    try:
        if path.is_file():
            return beside(path.parent)[path.name.split(".")[0]]
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            return [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not set("*?[") & set(str(path)):
            return []
        return [file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file()]
    except (OSError, ValueError):  # a word that is no path
        return []


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by what their names begin with, up to the first dot."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in folder.iterdir():
        if file.is_file():
            found[file.name.split(".")[0]].append(file)
    return found
