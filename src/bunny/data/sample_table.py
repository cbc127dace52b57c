"""Samples on disk between the stages: one Parquet file, one row a sample, an exact round trip.

In and out: `Sample`s. Pictures are not copied; rows keep where they are. For people who want files they can train on
with other programs there is `bunny.data.llava_export`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Role, Sample, Turn

ROWS_PER_GROUP = 10_000


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write the samples, whole file or nothing; the number of rows. meta must be JSON-able (numpy values are too).

    Raises UserError naming the sample that cannot be stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    schema, rows, count = _schema(), iter(samples), 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while batch := [_row(sample) for sample in islice(rows, ROWS_PER_GROUP)]:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                count += len(batch)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file that `write_samples` wrote, equal and in order. Raises UserError."""
    return list(iterate_samples(path))


def iterate_samples(path: Path) -> Iterator[Sample]:
    """`read_samples` without holding all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path}: no such sample table", fix="run the stage that makes it first")
    try:
        with pq.ParquetFile(path) as file:
            if missing := set(_schema().names) - set(file.schema_arrow.names):
                fix = "read other tables with `{use: table}`"
                raise UserError(f"{path}: not a sample table, no column {', '.join(sorted(missing))}", fix=fix)
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield _sample(row)
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
        row["meta"] = json.dumps(dict(sample.meta), default=json_value)
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


def _sample(row: dict[str, Any]) -> Sample:
    images = tuple(ImageRef(ref["path"], ref["member"], ref["column"]) for ref in row["images"])
    turns = tuple(Turn(cast(Role, turn["role"]), turn["text"]) for turn in row["turns"])
    return Sample(row["id"], images, turns, row["source"], json.loads(row["meta"]))
