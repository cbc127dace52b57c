"""Rows of Parquet and Arrow files in batches, with the pictures left where they are.

In: a file, the columns to read, the column with the pictures. Out: batches of the light columns, and for every row
whether its picture has bytes. Raises BadRow (damaged_file) where the file breaks off; what came before is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.types import BoolArray
from bunny.data.containers import ARROW_SUFFIXES, arrow_batches
from bunny.data.sources._rows import BadRow

BATCH_ROWS = 4096


@dataclass(frozen=True)
class Batch:
    """Consecutive rows. first: number of the first in the file. light: the record batch of the asked columns.
    has_bytes: (n,) whether the picture's bytes are there; None: the column holds no bytes."""

    first: int
    light: Any
    has_bytes: BoolArray | None

    def rows(self) -> list[dict[str, Any]]:
        """The rows' cells; a text that is no UTF-8 stays bytes."""
        try:
            found: list[dict[str, Any]] = self.light.to_pylist()
        except UnicodeDecodeError:
            names, columns = self.light.schema.names, [_texts(column) for column in self.light.columns]
            found = [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
        return found


def _texts(column: Any) -> list[Any]:
    """The cells, those of a text column one by one; nothing of a nested column that cannot be read."""
    import pyarrow as pa

    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        if not is_text(column.type) or pa.types.is_dictionary(column.type):
            return [None] * len(column)
        found = [_decoded(cell) for cell in column.view(_bytes_like(column.type)).to_pylist()]
    return found


def _bytes_like(kind: Any) -> Any:
    import pyarrow as pa

    return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return None if cell is None else cell.decode("utf-8")
    except UnicodeDecodeError:
        return cell


def schema(path: Path) -> Any:
    """The file's Arrow schema. Raises BadRow."""
    import pyarrow.parquet as pq

    with _damage(path):
        of_arrow = path.suffix in ARROW_SUFFIXES
        found = arrow_batches(path).schema if of_arrow else pq.read_schema(path, memory_map=True)
        found.names  # noqa: B018  # of a damaged file they may be no text
        return found


def row_count(path: Path) -> int:
    """Number of rows. Raises BadRow."""
    import pyarrow.parquet as pq

    with _damage(path):
        if path.suffix in ARROW_SUFFIXES:
            return sum(batch.num_rows for batch in arrow_batches(path).batches)
        return int(pq.read_metadata(path, memory_map=True).num_rows)


def batches(path: Path, columns: Sequence[str], picture: str | None = None) -> Iterator[Batch]:
    """The named columns in batches. picture: column whose bytes are looked for, not read. Raises BadRow."""
    with _damage(path):
        yield from (_of_arrow if path.suffix in ARROW_SUFFIXES else _of_parquet)(path, columns, picture)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Arrow" if path.suffix in ARROW_SUFFIXES else "Parquet"
        raise BadRow("damaged_file", f"not a whole {kind} file ({one_line(error)})") from None


def _of_parquet(path: Path, columns: Sequence[str], picture: str | None) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        if not columns:
            columns = [name for name in file.schema_arrow.names if name != picture][:1]
        number = 0
        for group in range(file.num_row_groups):
            has = _bytes_in_group(file, group, picture) if picture else None
            start = number
            for light in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
                at = number - start
                yield Batch(number, light, None if has is None else has[at : at + light.num_rows])
                number += light.num_rows


def _bytes_in_group(file: Any, group: int, picture: str) -> BoolArray | None:
    """(n,) whether a row of the group has picture bytes; from the statistics alone where they say that all have."""
    import pyarrow as pa

    kind = file.schema_arrow.field(picture).type
    inside = pa.types.is_struct(kind)
    if not inside and not is_bytes(kind):
        return None
    leaf = f"{picture}.bytes" if inside else picture
    about = file.metadata.row_group(group)
    mine = [about.column(at) for at in range(len(file.schema)) if file.schema.column(at).path == leaf]
    if mine and all(chunk.statistics is not None and chunk.statistics.null_count == 0 for chunk in mine):
        return np.ones(about.num_rows, np.bool_)
    cells = file.read_row_group(group, columns=[leaf], use_threads=False).column(picture)
    found = [_has_bytes(chunk) for chunk in cells.chunks]
    return np.concatenate(found) if found else np.zeros(0, np.bool_)


def _has_bytes(cells: Any) -> BoolArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(cells.type):
        cells = pc.struct_field(cells, "bytes")
    found: BoolArray = cells.is_valid().to_numpy(zero_copy_only=False)
    return found


def _of_arrow(path: Path, columns: Sequence[str], picture: str | None) -> Iterator[Batch]:
    import pyarrow as pa

    file = arrow_batches(path)
    number = 0
    for whole in file.batches:
        for start in range(0, whole.num_rows, BATCH_ROWS):
            part = whole.slice(start, BATCH_ROWS)
            part.validate(full=True)  # Arrow follows damaged offsets blindly
            cells = part.column(picture) if picture else None
            has = _has_bytes(cells) if cells is not None and is_bytes(cells.type, inside=True) else None
            light = [_column(part, name) for name in columns]
            names = [name.split(".")[0] for name in columns]
            yield Batch(number, pa.RecordBatch.from_arrays(light, names) if names else part, has)
            number += part.num_rows
    if file.problem:
        raise OSError(file.problem)


def _column(part: Any, name: str) -> Any:
    """A column, or for `image.path` the struct with only that field, as Parquet reads it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    top, dot, field = name.partition(".")
    if not dot or name in part.schema.names:
        return part.column(name)
    return pa.StructArray.from_arrays([pc.struct_field(part.column(top), field)], [field])


def is_bytes(kind: Any, inside: bool = False) -> bool:
    """Whether a column's type is bytes. inside: or a struct with some."""
    import pyarrow as pa

    if inside and pa.types.is_struct(kind):
        return any(is_bytes(child.type, inside) for child in kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def is_text(kind: Any) -> bool:
    """Whether a column's type is text, dictionary-encoded or not."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_null(kind: Any) -> bool:
    """Whether a column's type is that of a column of nothing but nulls."""
    import pyarrow as pa

    return bool(pa.types.is_null(kind))


def is_struct_with_path(kind: Any) -> bool:
    """Whether a column's type is a struct that may name a file: Hugging Face's `{bytes, path}`."""
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def is_picture(kind: Any) -> bool:
    """Whether a column of this type can hold pictures: bytes, `{bytes, path}`, or paths."""
    import pyarrow as pa

    struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return bool(struct or is_bytes(kind) or is_text(kind) or is_null(kind))
