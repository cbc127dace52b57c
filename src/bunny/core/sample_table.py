"""Samples on disk between the stages: one Parquet file, one row a sample, an exact round trip.

In and out: `Sample`s. Pictures are not copied; rows keep where they are. For people who want files they can train on
with other programs there is `bunny.data.writers`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import BoolArray, ImageRef, IntArray, Role, Sample, Turn

ROWS_PER_GROUP = 10_000


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write the samples, whole file or nothing; the number of rows. meta must be JSON-able (numpy values are too).

    Raises UserError naming the sample that cannot be stored.
    """
    rows = iter(samples)

    def tables() -> Iterator[Any]:
        while batch := list(islice(rows, ROWS_PER_GROUP)):
            yield table_of(batch)

    return _write(path, tables())


def table_of(samples: Iterable[Sample]) -> Any:
    """The samples as an Arrow table. Raises UserError naming the sample that cannot be stored."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(sample) for sample in samples], schema=_schema())


def samples_of(table: Any) -> list[Sample]:
    """The samples that `table_of` made a table of."""
    return [_sample(row) for row in table.to_pylist()]


def rows_of(path: Path, rows: IntArray) -> Any:
    """Arrow table of single rows of a sample file, in the order asked for; reads only the row groups they are in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, places = [_schema().empty_table()], []
    with _opened(path), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        group_of = np.searchsorted(edges, rows, side="right") - 1
        for group in np.unique(group_of):
            mine = np.flatnonzero(group_of == group)
            table = file.read_row_group(int(group), columns=_schema().names, use_threads=False)
            tables.append(table.take(pa.array(rows[mine] - edges[group])).cast(_schema()))
            places.append(mine)
    back = np.argsort(np.concatenate(places)) if places else np.empty(0, np.int64)
    return pa.concat_tables(tables).take(pa.array(back))


def copy_rows(parts: Sequence[tuple[Path, BoolArray]], order: IntArray | None, path: Path) -> int:
    """Write a sample file of chosen rows of others, whole file or nothing, without holding them; the number of rows.

    parts: files with the rows wanted of each. order: (n,) order of the n wanted rows of all parts together; None: as
    they come, which saves a detour over a second file.
    """
    import pyarrow as pa

    if order is None:
        return _write(path, _regrouped(_wanted(parts)))
    heap = path.with_name(f".{path.name}.{os.getpid()}.arrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(heap), "wb") as sink, pa.ipc.new_file(sink, _schema()) as writer:
            for table in _wanted(parts):
                writer.write_table(table)
        with pa.memory_map(str(heap)) as mapped:
            rows = pa.ipc.open_file(mapped).read_all()
            starts = range(0, len(order), ROWS_PER_GROUP)
            return _write(path, (rows.take(pa.array(order[start : start + ROWS_PER_GROUP])) for start in starts))
    finally:
        heap.unlink(missing_ok=True)


def _wanted(parts: Sequence[tuple[Path, BoolArray]]) -> Iterator[Any]:
    """Tables of the wanted rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path, wanted in parts:
        if not wanted.any():
            continue
        with _opened(path), pq.ParquetFile(path) as file:
            start = 0
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=_schema().names):
                table = pa.Table.from_batches([batch]).cast(_schema())
                yield table.filter(pa.array(wanted[start : start + len(batch)]))
                start += len(batch)


def _regrouped(tables: Iterable[Any]) -> Iterator[Any]:
    """The same rows, `ROWS_PER_GROUP` at a time."""
    import pyarrow as pa

    held = _schema().empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= ROWS_PER_GROUP:
            yield held.slice(0, ROWS_PER_GROUP)
            held = held.slice(ROWS_PER_GROUP)
    if len(held):
        yield held


def _write(path: Path, tables: Iterable[Any]) -> int:
    """One row group a table, whole file or nothing; the number of rows."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    try:
        with pq.ParquetWriter(temporary, _schema(), compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.combine_chunks())
                count += len(table)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file that `write_samples` wrote, equal and in order. Raises UserError."""
    return list(iterate_samples(path))


def iterate_samples(path: Path) -> Iterator[Sample]:
    """`read_samples` without holding all of them."""
    import pyarrow.parquet as pq

    with _opened(path), pq.ParquetFile(path) as file:
        if missing := set(_schema().names) - set(file.schema_arrow.names):
            fix = "read other tables with `{use: table}`"
            raise UserError(f"{path}: not a sample table, no column {', '.join(sorted(missing))}", fix=fix)
        for batch in file.iter_batches(batch_size=4096):
            yield from map(_sample, batch.to_pylist())


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """Raises UserError for a file that is missing or damaged."""
    import pyarrow as pa

    if not path.is_file():
        raise UserError(f"{path}: no such sample table", fix="run the stage that makes it first")
    try:
        yield
    except (pa.ArrowException, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())})", fix="make it again") from None


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    image = pa.struct([("path", text), ("member", text), ("column", text)])
    turn = pa.struct([("role", text), ("text", text)])
    fields = [("id", text), ("images", pa.list_(image)), ("turns", pa.list_(turn)), ("source", text), ("meta", text)]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def _row(sample: Sample) -> dict[str, Any]:
    row = {
        "id": sample.id,
        "images": [{"path": ref.path, "member": ref.member, "column": ref.column} for ref in sample.images],
        "turns": [{"role": turn.role, "text": turn.text} for turn in sample.turns],
        "source": sample.source,
    }
    try:
        row["meta"] = _ENCODER.encode(dict(sample.meta))
        for text in (sample.id, sample.source, *(turn.text for turn in sample.turns)):
            text.encode("utf-8")
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise UserError(f"sample {sample.id!r} cannot be stored: {error}", fix="keep text and numbers only") from None
    return row


def json_value(value: Any) -> Any:
    """`json.dumps(default=…)` for numpy values. Raises TypeError for anything else."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"meta holds a {type(value).__name__}")


_ENCODER = json.JSONEncoder(default=json_value)


def _sample(row: dict[str, Any]) -> Sample:
    images = tuple(ImageRef(ref["path"], ref["member"], ref["column"]) for ref in row["images"])
    turns = tuple(Turn(cast(Role, turn["role"]), turn["text"]) for turn in row["turns"])
    return Sample(row["id"], images, turns, row["source"], json.loads(row["meta"]))
