"""What a recipe's curation will take: its source is counted, cheaply, and the estimate computed.

In: a recipe. Out: what `bunny curate run … --dry-run` prints. Headers and sizes of files are read, and the first
megabytes of a tar or a JSON file whose rows cannot be counted otherwise.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bunny.core.recipe import Block, Recipe, make
from bunny.curate.estimate import HEADER, Cluster, Job, as_dict, as_rows, estimate, measured_rate

SOURCES = "bunny.data.sources"
PEEK_BYTES = 16 << 20  # of a tar or JSON file, looked at to guess its rows
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg"})
EMBEDDED_DIMS = {"lite0_minilm": {"image": 384, "text": 384, "visual": 1280}}
CLIP_DIMS = {"image": 768, "text": 768}


@dataclass(frozen=True, slots=True)
class Counted:
    """rows: of all files. exact: read from headers, not guessed from sizes. picture_bytes: of one encoded picture."""

    rows: int
    exact: bool
    picture_bytes: float = 0.0


def estimate_recipe(recipe: Recipe) -> dict[str, Any]:
    """The estimate as `as_dict` gives it, for the machines that the recipe's engine names."""
    assert recipe.pool and recipe.curate
    job = job_of(recipe)
    engine = dict(recipe.curate.engine or {})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = cores if engine.get("use") == "ray" else min(cores, int(engine.get("workers", 1)) or cores)
    nodes = int(engine.get("world") or 1) if engine.get("use") == "ranks" else 1
    cluster = Cluster(nodes=nodes, cores=used, rate=measured_rate(job.alike))
    return as_dict(job, cluster, estimate(job, cluster))


def table(content: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of what `estimate_recipe` found."""
    return HEADER, as_rows([*content["stages"], content["total"]])


def job_of(recipe: Recipe) -> Job:
    """The recipe's curation as figures."""
    from bunny.pipeline.curating import steps_of

    assert recipe.pool and recipe.curate
    section = recipe.curate
    steps = steps_of(section)
    path = recipe.locate(str(recipe.pool.source.get("path", ".")))
    counted = count_rows(path, str(recipe.pool.source["use"]))
    stored = vector_lengths(recipe.pool.source, recipe.locate("."))
    block: Mapping[str, Any] = section.embedder or {}
    embedder = str(block.get("model") or block.get("use") or "")
    dims = stored or EMBEDDED_DIMS.get(embedder, CLIP_DIMS)
    return Job(counted.rows, dims, bool(stored), steps, counted.picture_bytes, embedder, exact_rows=counted.exact)


def vector_lengths(source: Block, base: Path) -> dict[str, int]:
    """Column -> length of the vectors that the source has; empty if it has none. Only its first shard is looked at."""
    import numpy as np

    from bunny.core.protocols import HasVectors, Sharded

    reader = make(source, SOURCES, "pool.source", folder=base)
    shards = reader.shards() if isinstance(reader, Sharded) else []
    with TemporaryDirectory() as unpack_to:  # an estimate leaves nothing behind
        reader = make(dict(shards[0]) if shards else source, SOURCES, "pool.source", folder=base, unpack_to=unpack_to)
        found = reader.stored() if isinstance(reader, HasVectors) else {}
        return {name: int(np.load(one.path, mmap_mode="r").shape[1]) for name, one in found.items()}


def count_rows(path: Path, use: str = "") -> Counted:
    """The rows of a source's files. use: the source's name, which tells what a row is where a folder has several."""
    files = sorted(_files(path))
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix.lower(), []).append(file)
    tars, tables = by_suffix.get(".tar", []), by_suffix.get(".parquet", [])
    if tars:
        return _of_tars(tars, tables if use == "img2dataset" else [])
    if tables:
        return _of_tables(tables)
    if arrows := by_suffix.get(".arrow"):
        return Counted(sum(_arrow_rows(file) for file in arrows), True)
    texts = [*by_suffix.get(".json", []), *by_suffix.get(".jsonl", [])]
    if texts and (use == "llava_json" or path.is_file()):
        return _of_json(texts, [file for file in files if file.suffix.lower() in PICTURES])
    if vectors := by_suffix.get(".npy"):
        return Counted(_npy_rows(vectors), True)
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    return Counted(len(pictures), True, _mean_size(pictures))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, inside, names in os.walk(path):
            inside[:] = [name for name in inside if not name.startswith(".")]
            yield from (Path(folder) / name for name in names if not name.startswith("."))
    elif path.exists():
        yield path
    else:  # a pattern such as shards/{00..99}.tar or *.tar
        yield from Path(path.anchor).glob(str(path.relative_to(path.anchor))) if "*" in str(path) else ()


def _mean_size(files: Sequence[Path], looked_at: int = 1000) -> float:
    some = files[:: max(1, len(files) // looked_at)]
    return sum(file.stat().st_size for file in some) / len(some) if some else 0.0


def _of_tars(tars: Sequence[Path], tables: Sequence[Path]) -> Counted:
    """Pairs a byte of the first megabytes, times the bytes of all; exact where img2dataset's tables count them."""
    count, size, end = 0, 0, 0
    with tarfile.open(tars[0], "r:") as tar:
        for member in tar:
            if Path(member.name).suffix.lower() in PICTURES:
                count, size = count + 1, size + member.size
            end = tar.offset
            if end > PEEK_BYTES:
                break
    picture = size / count if count else 0.0
    if tables:
        return Counted(_of_tables(tables).rows, True, picture)
    total = sum(tar.stat().st_size for tar in tars)
    return Counted(round(total * count / end) if end else 0, False, picture)


def _of_tables(tables: Sequence[Path]) -> Counted:
    """Rows by the footers; bytes a picture from the largest column of binary values."""
    import pyarrow.parquet as pq

    rows, picture = 0, 0.0
    for number, table in enumerate(tables):
        metadata = pq.read_metadata(table)
        rows += metadata.num_rows
        if number == 0 and metadata.num_row_groups:
            group = metadata.row_group(0)
            columns = [group.column(place) for place in range(group.num_columns)]
            binary = [one.total_uncompressed_size for one in columns if one.physical_type == "BYTE_ARRAY"]
            wide = max(binary, default=0) / max(1, group.num_rows)
            picture = wide if wide > 1000 else 0.0  # shorter values are texts
    return Counted(rows, True, picture)


def _arrow_rows(file: Path) -> int:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return sum(batch.num_rows for batch in pa.ipc.open_stream(source))


def _of_json(texts: Sequence[Path], pictures: Sequence[Path]) -> Counted:
    """Rows by their `conversations` in the first megabytes."""
    with texts[0].open("rb") as file:
        head = file.read(PEEK_BYTES)
    count = head.count(b'"conversations"')
    whole = len(texts) == 1 and len(head) == texts[0].stat().st_size
    rows = count if whole else round(sum(text.stat().st_size for text in texts) * count / max(1, len(head)))
    return Counted(rows, whole, _mean_size(pictures))


def _npy_rows(files: Sequence[Path]) -> int:
    import numpy as np

    images = [file for file in files if "text" not in file.name and "key" not in file.name]
    return sum(int(np.load(file, mmap_mode="r").shape[0]) for file in images)
