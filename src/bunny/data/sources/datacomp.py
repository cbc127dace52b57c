"""DataComp's metadata: Parquet files with uid and text, and beside each an `.npz` archive with CLIP vectors.

In: `X.parquet` (uid, text, url, original_width, clip_l14_similarity_score, sha256 …) and `X.npz` (b32_img, b32_txt,
l14_img, l14_txt). Out: one pair a row, its id the uid; its picture if `images` says where the tars are (joined by uid).
The vectors are unpacked once: an archive cannot be memory-mapped row by row. Their cosine must be the stored score.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from bunny.core.errors import UserError
from bunny.data.sources import _vectors
from bunny.data.sources._aligned import Aligned, Piece
from bunny.data.sources._rows import find_files
from bunny.data.sources._shards import labels, warn_of_gaps

KEY_MEMBERS = ("uid", "uids", "key", "keys")


class DataComp(Aligned):
    """`{use: datacomp, path: metadata/, model: l14}`"""

    model: str = "l14"  # whose vectors: `l14` or `b32`

    def all_pieces(self) -> list[Piece]:
        path = self.located(self.path)
        if path.is_file():  # one piece: the others are looked at too, their vectors must be as long
            with os.scandir(path.parent) as entries:
                found = sorted(path.parent / entry.name for entry in entries if entry.name[0] != ".")
        else:
            found = find_files(path, (".parquet", ".npz"))
        files = [file for file in found if file.suffix == ".parquet"]
        if not path.is_file():
            warn_of_gaps(files)
        there = set(found)
        pieces = []
        for file, label in zip(files, labels(files), strict=True):
            archive = file.with_suffix(".npz")
            pieces.append(Piece(label, file, dict.fromkeys(("image", "text"), archive) if archive in there else {}))
        if not pieces:
            raise UserError(f"{path}: no metadata (*.parquet) there", fix="check the source's `path`")
        return pieces

    def open(self, piece: Piece, kind: str) -> _vectors.Npy:
        archive = piece.vectors[kind]
        folder = self.located(self.unpack_to) if self.unpack_to else archive.parent / _vectors.UNPACKED
        return _vectors.npy(_vectors.npz_member(archive, self._member(kind), folder))

    def dims(self, piece: Piece, kind: str) -> int:
        return _vectors.npz_shape(piece.vectors[kind], self._member(kind))[1]

    def vector_keys(self, piece: Piece) -> Any | None:
        archive = piece.vectors["image"]
        member = next((name for name in KEY_MEMBERS if name in _vectors.npz_members(archive)), None)
        return None if member is None else _vectors.key_array(archive, member)

    def likeness(self, names: Sequence[str]) -> tuple[str, bool] | None:
        column = f"clip_{self.model}_similarity_score"
        return (column, True) if column in names else None

    def key_columns(self) -> Sequence[str]:
        return ("uid",)

    def by(self) -> Literal["key", "uid"]:
        return "uid"

    def _member(self, kind: str) -> str:
        return f"{self.model}_{'img' if kind == 'image' else 'txt'}"


USE = DataComp
