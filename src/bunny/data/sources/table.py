"""Parquet tables of image-text pairs, with the pictures inside or as paths, and their vectors if they have some.

In: Parquet files. Out: one pair a row, in file and row order. A picture column may hold encoded bytes, Hugging Face's
`{bytes, path}`, or paths. Picture bytes stay where they are; a sample only points at its row. Columns of float lists
are no facts about a sample: they are read as vectors where `vectors` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bunny.core.errors import UserError, nearest
from bunny.core.types import ImageRef, Sample, StoredVectors
from bunny.data.sources import _columns, _vectors
from bunny.data.sources._rows import BadRow, RowSource, first_caption, is_file, pair, plain
from bunny.data.sources._shards import labels


@dataclass(slots=True)
class Row:
    """A row of a file. file: short name for ids. source: the set's name. has_bytes: whether the picture is inside.
    problem: of its vectors."""

    path: Path
    file: str
    source: str
    number: int
    cells: Mapping[str, Any]
    has_bytes: bool
    problem: str = ""


class Table(RowSource):
    """`{use: table, path: pool/*.parquet, caption: [title, description]}`"""

    image: str | None = "image"  # column with encoded bytes, {bytes, path}, or a path; null: there are no pictures
    caption: tuple[str, ...] | str = ("caption", "text")  # columns; the first that is not empty counts
    id: str = "id"  # column; where there is none, ids are FILE:ROW
    images: str | None = None  # folder that picture paths start from; default: the Parquet file's
    vectors: dict[Literal["image", "text", "visual"], str] = Field(default_factory=dict)  # {image: img_emb, …}
    unpack_to: str | None = None  # folder for the vectors as .npy files; default: .bunny-vectors beside the file
    label: str | None = None  # stands for FILE in ids; default: the file's name, its path where names repeat

    def rows(self) -> Iterator[tuple[str, Any]]:
        for path, label in self.named_files():
            try:
                if not is_file(path):
                    raise BadRow("missing_shard", f"{path.name} is not there; get it again")
                yield from self._rows_of(path, self.label or label)
            except BadRow as bad:
                yield str(path), bad

    def sample(self, where: str, raw: Any) -> Sample:
        row: Row = raw
        known = row.cells.get(self.id)
        id = f"{row.file}:{row.number}" if known is None else str(known)
        try:
            images = () if self.image is None else (self._picture(row),)
            if row.problem:
                raise BadRow(*row.problem.split(": ", 1))
            words = first_caption(self.captions(row.cells), self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        meta = {key: plain(value) for key, value in row.cells.items() if key not in (self.id, self.image)}
        meta = {key: value for key, value in meta.items() if value is not None}
        return pair(id, images, words, row.source, meta)

    def shards(self) -> Sequence[Mapping[str, Any]]:
        named = self.named_files()
        return [self.block(path, name=self.source(path), label=self.label or label) for path, label in named]

    def stored(self) -> Mapping[str, StoredVectors]:
        """The vectors of `vectors`, unpacked into `.npy` files the first time; of a source of one file."""
        if not self.vectors:
            return {}
        path, _ = self.one_piece(self.named_files())
        try:
            self._check_columns(path, _columns.schema(path))
            return {kind: column.stored() for kind, column in self._unpacked(path).items()}
        except BadRow:  # `read` says so
            return {}

    def named_files(self) -> list[tuple[Path, str]]:
        """The files in order, each with its short name for ids. Raises UserError if there are none."""
        files = self.files([".parquet"])
        return list(zip(files, labels(files), strict=True))

    def captions(self, cells: Mapping[str, Any]) -> Iterator[object]:
        """What may be a row's caption, the best first."""
        return (cells.get(column) for column in self._captions())

    def _captions(self) -> tuple[str, ...]:
        return (self.caption,) if isinstance(self.caption, str) else self.caption

    def source(self, path: Path) -> str:
        alone = path.name == Path(self.path).name
        return self.name or (path.stem if alone else path.parent.name)

    def _rows_of(self, path: Path, label: str) -> Iterator[tuple[str, Row]]:
        schema = _columns.schema(path)
        self._check_columns(path, schema)
        columns = [field.name for field in schema if self._is_light(field)]
        if self.image and _columns.is_struct_with_path(schema.field(self.image).type):
            columns.append(f"{self.image}.path")
        source, vectors = self.source(path), self._unpacked(path)
        for batch in _columns.batches(path, columns, self.image):
            rows = batch.rows() if columns else [{}] * batch.light.num_rows
            for at, cells in enumerate(rows):
                number = batch.first + at
                has_bytes = batch.has_bytes is not None and bool(batch.has_bytes[at])
                problem = next((words for one in vectors.values() if (words := _problem(one, number))), "")
                yield f"{path}:{number}", Row(path, label, source, number, cells, has_bytes, problem)

    def _unpacked(self, path: Path) -> dict[str, _vectors.ListColumn]:
        """The vectors of one file. Raises BadRow, UserError."""
        folder = self.located(self.unpack_to) if self.unpack_to else path.parent / _vectors.UNPACKED
        return {kind: _vectors.list_column(path, column, folder) for kind, column in self.vectors.items()}

    def _is_light(self, field: Any) -> bool:
        """Whether a column is read with the rows: not the pictures, other bytes or vectors."""
        if field.name == self.image:
            return _columns.is_text(field.type) or _columns.is_null(field.type)
        return not _columns.is_bytes(field.type, inside=True) and not _vectors.is_floats(field.type)

    def _check_columns(self, path: Path, schema: Any) -> None:
        names = schema.names
        if self.image and self.image not in names:
            fix = "set `image` (null where there are no pictures)"
            raise UserError(f"{path}: no column `{self.image}`; {nearest(self.image, names)}", fix=fix)
        if not set(self._captions()) & set(names):
            wanted = "` or `".join(self._captions())
            raise UserError(f"{path}: no column `{wanted}`; known: {', '.join(names)}", fix="set `caption`")
        for column in self.vectors.values():
            if column not in names:
                raise UserError(f"{path}: no column `{column}`; {nearest(column, names)}", fix="set `vectors`")
            if not _vectors.is_floats(schema.field(column).type):
                kind = schema.field(column).type
                raise UserError(f"{path}: column `{column}` holds {kind}, not lists of floats", fix="set `vectors`")
        if self.image and not _columns.is_picture(schema.field(self.image).type):
            kind = schema.field(self.image).type
            raise UserError(f"{path}: column `{self.image}` holds {kind}, no bytes or paths", fix="set `image`")

    def _picture(self, row: Row) -> ImageRef:
        assert self.image
        if row.has_bytes:
            return ImageRef(str(row.path), str(row.number), self.image)
        written = row.cells.get(self.image)
        written = written.get("path") if isinstance(written, dict) else written
        if not written:
            raise BadRow("no_picture", f"column `{self.image}` is empty")
        path = (self.located(self.images) if self.images else row.path.parent) / written
        if not is_file(path):
            raise BadRow("missing_file", str(path)[:300])
        return ImageRef(str(path))


def _problem(vectors: _vectors.ListColumn, number: int) -> str:
    """`reason: detail` where a row has no vector; else empty."""
    length = int(vectors.lengths[number]) if number < len(vectors.lengths) else -1
    if length == vectors.dims > 0:
        return ""
    return f"wrong_dims: {length} numbers, not {vectors.dims}" if length > 0 else "no_vector: the cell is empty"


USE = Table
