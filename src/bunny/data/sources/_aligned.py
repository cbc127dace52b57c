"""Metadata tables and vectors in files of their own, one row of the one for each row of the other.

In: pieces, each a Parquet file and the vector files that go with it. Out: a sample or a reason for every row of the
metadata. A piece whose files do not fit together is rejected as a whole. Which vector belongs to which row is found by
key where the vectors carry keys, checked against a stored likeness where there is one, and else known by count alone:
that is said once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.core.types import FloatArray, ImageRef, IntArray, Sample, StoredVectors
from bunny.data.sources import _columns, _vectors
from bunny.data.sources._pictures import Pictures
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, RowSource, first_caption, is_file, pair, plain

SAMPLED_ROWS = 256  # of a piece, whose likeness is compared with the stored one
SAME_COSINE = 0.01  # float16 vectors and a rounded score differ by less


@dataclass(frozen=True)
class Piece:
    """One metadata file and what goes with it. vectors: kind -> `.npy` or `.npz`; keys: file with the vectors' keys."""

    label: str
    metadata: Path | None
    vectors: Mapping[str, Path] = field(default_factory=dict)
    keys: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Its files, the metadata first."""
        return [
            *([self.metadata] if self.metadata else []),
            *self.vectors.values(),
            *([self.keys] if self.keys else []),
        ]

    @property
    def where(self) -> str:
        return str(self.files[0])


@dataclass(frozen=True)
class Fitted:
    """A piece whose files fit together. rows: (N,) vector row of each metadata row, -1 for none; None: 0 .. N-1."""

    vectors: Mapping[str, _vectors.Npy]
    rows: IntArray | None


class Aligned(RowSource):
    """A layout whose metadata and vectors are row-aligned files. Subclasses find the pieces."""

    caption: tuple[str, ...] | str = ("caption", "text", "TEXT")  # columns; the first that is not empty counts
    id: str | None = None  # column; default: the key's, else FILE:ROW
    key: str | None = None  # column that says which picture and which vector is a row's; default: by the layout
    images: str | None = None  # folder of the tars, or of the picture files, that the keys stand for
    unpack_to: str | None = None  # folder for vectors out of archives; default: .bunny-vectors beside the file
    label: str | None = None  # stands for FILE in ids; default: the metadata file's name, its path where names repeat
    image_file: str | None = None  # the vectors of the one piece that `path` names; `shards` says it, so that what
    text_file: str | None = None  # is made from a shard is made again when they change

    @abstractmethod
    def all_pieces(self) -> list[Piece]:
        """All pieces in order. Raises UserError if there are none."""

    @abstractmethod
    def likeness(self, names: Sequence[str]) -> tuple[str, bool] | None:
        """Of the metadata's columns, the one with the cosine of image and text, and whether it is of these vectors for
        sure (else of another model, perhaps)."""

    @abstractmethod
    def key_columns(self) -> Sequence[str]:
        """Columns that name a row, the best first."""

    def by(self) -> Literal["key", "uid"]:
        """What `key_columns` hold."""
        return "key"

    def renamed(self) -> Mapping[str, str]:
        """Columns whose names in the samples' meta differ."""
        return {}

    def chosen(self, every: Sequence[Piece]) -> list[Piece]:
        """The pieces to read: all, or the one of the file that `path` names."""
        path = self.located(self.path)
        return [piece for piece in every if path in piece.files] if path.is_file() else list(every)

    def rows(self) -> Iterator[tuple[str, Any]]:
        pictures = Pictures(self.located(self.images), self.by()) if self.images else None
        source = self._source()
        every = self.all_pieces()
        for piece in self.chosen(every):
            try:
                fitted = self._fitted(piece, every)
                assert piece.metadata
                key = self._key(_columns.schema(piece.metadata).names)
                for number, row in self._metadata_rows(piece.metadata):
                    has_vector = fitted.rows is None or bool(fitted.rows[number] >= 0)
                    yield (
                        f"{piece.metadata}:{number}",
                        (self.label or piece.label, source, number, row, key, has_vector, pictures),
                    )
            except BadRow as bad:
                yield piece.where, bad

    def sample(self, where: str, raw: Any) -> Sample:
        label, source, number, row, key, has_vector, pictures = raw
        known = row.get(self.id or key)
        id = f"{label}:{number}" if known is None else str(known)
        try:
            if not has_vector:
                raise BadRow("no_vector", "none of the vectors has its key")
            names = (self.caption,) if isinstance(self.caption, str) else self.caption
            words = first_caption((row.get(name) for name in names), self.max_caption_chars)
            images = self._images(row.get(key) if key else None, pictures)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        renamed = self.renamed()
        meta = {renamed.get(name, name): plain(value) for name, value in row.items() if value is not None}
        return pair(id, images, words, source, meta)

    def shards(self) -> Sequence[Mapping[str, Any]]:
        return [self._shard(piece) for piece in self.chosen(self.all_pieces())]

    def _shard(self, piece: Piece) -> dict[str, Any]:
        vectors = {f"{kind}_file": str(path.absolute()) for kind, path in piece.vectors.items()}
        label = self.label or piece.label
        return self.block(Path(piece.where), name=self._source(), label=label, **vectors)

    def stored(self) -> Mapping[str, StoredVectors]:
        """The vectors of a source of one piece; none for a piece that is rejected as a whole."""
        every = self.all_pieces()
        piece = self.one_piece(self.chosen(every))
        try:
            fitted = self._fitted(piece, every)
        except BadRow:  # `read` says so
            return {}
        return {kind: StoredVectors(npy.path, fitted.rows) for kind, npy in fitted.vectors.items()}

    def open(self, piece: Piece, kind: str) -> _vectors.Npy:
        """The vectors of one kind. Raises BadRow."""
        return _vectors.npy(piece.vectors[kind])

    def dims(self, piece: Piece, kind: str) -> int:
        """Numbers of a vector of one kind. Raises BadRow."""
        return self.open(piece, kind).dims

    def vector_keys(self, piece: Piece) -> Any | None:
        """(M,) Arrow strings, the keys that the vectors carry; None if they carry none. Raises BadRow."""
        return _vectors.key_array(piece.keys) if piece.keys else None

    def _source(self) -> str:
        path = self.located(self.path).resolve()
        return self.name or (path.stem if path.is_file() else path.name)

    def _key(self, names: Sequence[str]) -> str | None:
        wanted = [self.key] if self.key else self.key_columns()
        found = next((name for name in wanted if name in names), None)
        if found is None and self.key:
            raise UserError(f"{self.path}: no column `{self.key}`; {nearest(self.key, names)}", fix="set `key`")
        return found

    def _images(self, key: object, pictures: Pictures | None) -> tuple[ImageRef, ...]:
        if pictures is None:  # clip-retrieval names picture files by their path, if it read files
            named = isinstance(key, str) and key.lower().endswith(tuple(PICTURE_SUFFIXES))
            return (ImageRef(str(key)),) if named and is_file(Path(str(key))) else ()
        if key is None:
            raise BadRow("no_picture", "the row has no key to look for in `images`")
        return (pictures.find(str(key)),)

    def _metadata_rows(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        schema = _columns.schema(path)
        light = [one for one in schema if not _columns.is_bytes(one.type, inside=True)]
        columns = [one.name for one in light if not _vectors.is_floats(one.type)]
        for batch in _columns.batches(path, columns):
            for at, row in enumerate(batch.rows()):
                yield batch.first + at, row

    def _fitted(self, piece: Piece, every: Sequence[Piece]) -> Fitted:
        """The piece's vectors, checked against each other, the other pieces and the metadata. Raises BadRow."""
        kinds = sorted({kind for one in every for kind in one.vectors})
        if piece.metadata is None:
            raise BadRow("missing_shard", f"no metadata for {Path(piece.where).name}; get the file again")
        if lacking := [kind for kind in kinds if kind not in piece.vectors]:
            raise BadRow("missing_shard", f"no {lacking[0]} vectors for {piece.metadata.name}; get the file again")
        vectors = {kind: self.open(piece, kind) for kind in kinds}
        self._check_dims(vectors, every)
        count = _columns.row_count(piece.metadata)
        key = self._key(_columns.schema(piece.metadata).names)
        carried = self.vector_keys(piece) if vectors and key else None
        for npy in vectors.values():
            wanted = count if carried is None else len(carried)
            if npy.rows != wanted:
                whose = piece.metadata.name if carried is None else "the keys of the vectors"
                raise BadRow("wrong_count", f"{npy.path.name} has {npy.rows} rows, {whose} {wanted}: they do not pair")
        rows = None if carried is None or key is None else _joined(piece.metadata, key, carried)
        if vectors and carried is None:
            self._check_order(piece.metadata, vectors)
        return Fitted(vectors, rows)

    def _check_dims(self, vectors: Mapping[str, _vectors.Npy], every: Sequence[Piece]) -> None:
        dims = {kind: npy.dims for kind, npy in vectors.items()}
        if len(set(dims.values())) > 1:
            raise BadRow("wrong_dims", f"image and text vectors of {dims} numbers are of two models")
        for kind, npy in vectors.items():
            first = self._first_dims(every, kind)
            if npy.dims != first:
                raise BadRow("wrong_dims", f"{npy.path.name} has {npy.dims} columns, the first shard {first}")

    def _first_dims(self, every: Sequence[Piece], kind: str) -> int | None:
        """Numbers of a vector in the first piece that can be read."""
        for piece in every:
            try:
                if kind in piece.vectors:
                    return self.dims(piece, kind)
            except BadRow:
                continue
        return None

    def _check_order(self, metadata: Path, vectors: Mapping[str, _vectors.Npy]) -> None:
        """That row n of the vectors is row n of the metadata, as far as can be told without keys. Raises BadRow."""
        told = self.likeness(_columns.schema(metadata).names)
        if told and {"image", "text"} <= vectors.keys():
            column, sure = told
            differ = _likeness_differs(metadata, column, vectors["image"], vectors["text"])
            if differ is not None and differ <= SAME_COSINE:
                return
            if differ is not None and sure:
                detail = f"the vectors' cosines are not those of `{column}` (typically {differ:.2f} apart)"
                raise BadRow("wrong_order", f"{detail}: {metadata.name} has another order; get both again")
            if differ is not None:
                _say_once(
                    f"{metadata.parent}: `{column}` is not the cosine of these vectors ({differ:.2f} apart): it is of "
                    "another model, or the rows stand in another order; only the number of rows could be compared"
                )
                return
        _say_once(f"{metadata.parent}: the vectors carry no keys; only the number of rows could be compared")


def _joined(metadata: Path, key: str, carried: Any) -> IntArray | None:
    """(N,) row of the vectors for every row of the metadata, by key; -1 for none, None if the order is the same."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [batch.light.column(0).cast(pa.string()) for batch in _columns.batches(metadata, [key])]
    wanted = pa.chunked_array(columns, pa.string()).combine_chunks()
    rows: IntArray = pc.fill_null(pc.index_in(wanted, value_set=carried), -1).to_numpy(zero_copy_only=False)
    rows = rows.astype(np.int64)
    return None if bool((rows == np.arange(len(rows))).all()) else rows


def _likeness_differs(metadata: Path, column: str, image: _vectors.Npy, text: _vectors.Npy) -> float | None:
    """Typical difference of the stored likeness and the vectors' cosine on sampled rows; None if it cannot be told."""
    rows = np.unique(np.linspace(0, image.rows - 1, min(image.rows, SAMPLED_ROWS)).astype(np.int64))
    if not len(rows):
        return None
    stored = np.concatenate([_numbers(batch.light.column(0)) for batch in _columns.batches(metadata, [column])])[rows]
    one, other = (_unit(np.load(npy.path, mmap_mode="r")[rows]) for npy in (image, text))
    apart = np.abs((one * other).sum(axis=1) - stored)
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if len(apart) else None


def _numbers(cells: Any) -> FloatArray:
    import pyarrow as pa

    try:
        found: FloatArray = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return np.full(len(cells), np.nan)
    return found


def _unit(vectors: Any) -> FloatArray:
    wide = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit: FloatArray = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


@lru_cache(maxsize=64)
def _say_once(words: str) -> None:
    log.warning("%s", words)
