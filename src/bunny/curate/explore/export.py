"""The decision table and second thoughts in, a decision table out, one row group after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bunny.curate.explore.overrides import Override


def write_overridden(table: Path, path: Path, thoughts: Mapping[int, Override]) -> None:
    """The same table with `kept` as overridden (by row), and two more columns: `kept_by_run`, `note` (null where
    nobody had second thoughts)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetFile(table) as file:
            added = [pa.field("kept_by_run", pa.bool_()), pa.field("note", pa.string())]
            schema = pa.schema([*file.schema_arrow.remove_metadata(), *added])
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                start = 0
                for number in range(file.num_row_groups):
                    block = file.read_row_group(number).replace_schema_metadata()
                    here = {row - start: said for row, said in thoughts.items() if start <= row < start + len(block)}
                    before = block.column("kept")
                    kept = before.to_numpy().astype(bool)
                    note = np.full(len(block), None, dtype=object)
                    for row, said in here.items():
                        kept[row], note[row] = said.keep, said.note
                    block = block.set_column(block.schema.get_field_index("kept"), "kept", pa.array(kept))
                    block = block.append_column(added[0], before).append_column(added[1], pa.array(note, pa.string()))
                    writer.write_table(block.cast(schema))
                    start += len(block)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
