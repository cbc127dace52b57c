"""Parquet tables of image-text pairs, with the pictures inside or as paths.

In: Parquet files. Out: one pair a row, in file and row order. A picture column may hold encoded bytes, Hugging Face's
`{bytes, path}`, or paths. Picture bytes stay where they are; a sample only points at its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.types import ImageRef, Sample
from bunny.data.sources._rows import BadRow, RowSource, first_caption, pair, plain


class Table(RowSource):
    """`{use: table, path: pool/*.parquet, caption: [title, description]}`"""

    image: str = "image"  # column with encoded bytes, {bytes, path}, or a path
    caption: tuple[str, ...] | str = ("caption", "text")  # columns; the first that is not empty counts
    id: str = "id"  # column; where there is none, ids are FILE:ROW
    images: str | None = None  # folder that picture paths start from; default: the Parquet file's

    def rows(self) -> Iterator[tuple[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.files([".parquet"]):
            try:
                with pq.ParquetFile(path, memory_map=True) as file:
                    yield from self._rows_of(path, file)
            except (pa.ArrowException, OSError) as error:
                detail = " ".join(str(error).split())
                yield str(path), BadRow("damaged_file", f"not a whole Parquet file ({detail})")

    def sample(self, where: str, raw: Any) -> Sample:
        path, number, row, has_bytes, no_picture = raw
        id = str(row[self.id]) if row.get(self.id) is not None else f"{path.stem}:{number}"
        if no_picture:
            raise BadRow("no_picture", f"column `{self.image}` is empty", id)
        try:
            words = first_caption((row.get(column) for column in self._captions()), self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        image = ImageRef(str(path), str(number), self.image) if has_bytes else self._file(path, row[self.image], id)
        meta = {key: plain(value) for key, value in row.items() if key not in (self.id, self.image)}
        alone = path.name == Path(self.path).name
        source = self.name or (path.stem if alone else path.parent.name)
        return pair(id, image, words, source, {key: value for key, value in meta.items() if value is not None})

    def _captions(self) -> tuple[str, ...]:
        return (self.caption,) if isinstance(self.caption, str) else self.caption

    def _rows_of(self, path: Path, file: Any) -> Iterator[tuple[str, Any]]:
        import pyarrow as pa

        schema = file.schema_arrow
        self._check_columns(path, schema.names)
        is_path = pa.types.is_string(schema.field(self.image).type)
        is_path = is_path or pa.types.is_large_string(schema.field(self.image).type)
        columns = [field.name for field in schema if (field.name != self.image or is_path) and not _is_binary(field)]
        number = 0
        for group in range(file.num_row_groups):
            empty = _empty_cells(file, group, self.image)
            table = file.read_row_group(group, columns=columns, use_threads=False)
            for at, row in enumerate(_records(table)):
                yield f"{path}:{number}", (path, number, row, not is_path, at in empty)
                number += 1

    def _check_columns(self, path: Path, names: list[str]) -> None:
        if self.image not in names:
            raise UserError(f"{path}: no column `{self.image}`; {nearest(self.image, names)}", fix="set `image`")
        if not set(self._captions()) & set(names):
            wanted = "` or `".join(self._captions())
            raise UserError(f"{path}: no column `{wanted}`; known: {', '.join(names)}", fix="set `caption`")

    def _file(self, table: Path, written: str, id: str) -> ImageRef:
        path = (self.located(self.images) if self.images else table.parent) / written
        if not path.is_file():
            raise BadRow("missing_file", str(path), id)
        return ImageRef(str(path))


def _records(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _is_binary(field: Any) -> bool:
    import pyarrow as pa

    kind = field.type
    if pa.types.is_struct(kind):
        return any(_is_binary(child) for child in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _empty_cells(file: Any, group: int, column: str) -> set[int]:
    """Rows of the group whose picture cell is null; found from the statistics alone where they say there is none."""
    import pyarrow.compute as pc

    chunks = (file.metadata.row_group(group).column(at) for at in range(file.metadata.num_columns))
    mine = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column]
    if all(chunk.statistics is not None and chunk.statistics.null_count == 0 for chunk in mine):
        return set()
    cells = file.read_row_group(group, columns=[column], use_threads=False).column(column)
    return {int(row) for row in pc.is_null(cells).to_numpy().nonzero()[0]}


USE = Table
