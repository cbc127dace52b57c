"""What clip-retrieval writes: `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`.

In: such a folder, or one with all files side by side; files of one number belong together. Out: one pair a metadata
row, with its picture if `images` says where the pictures are (joined by key), and with its vectors. A file
`keys_0.npy` with the vectors' keys, if somebody kept them, decides which vector is whose.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bunny.core.errors import UserError
from bunny.data.sources._aligned import Aligned, Piece
from bunny.data.sources._shards import warn_of_gaps

KINDS = {"img_emb": "image", "image_emb": "image", "text_emb": "text", "metadata": "metadata", "keys": "keys"}
_NAME = re.compile(rf"^({'|'.join(KINDS)})_(\d+)\.(npy|parquet)$")


class ClipRetrieval(Aligned):
    """`{use: clip_retrieval, path: embeddings/, images: shards/}`"""

    def all_pieces(self) -> list[Piece]:
        root = self.located(self.path)
        alone = root.is_file()
        if alone:  # one piece: the others are looked at too, their vectors must be as long
            beside = clip_files(root.parent)
            kinds = {kind for files in beside.values() for kind in files}
            root = root.parent if len(kinds) > 1 else root.parent.parent
        found = clip_files(root)
        if not found:
            what = f"{root}: no such folder, or no img_emb_*.npy, text_emb_*.npy, metadata_*.parquet"
            raise UserError(f"{what} there", fix="check the source's `path`")
        for kind in sorted({kind for files in found.values() for kind in files} if not alone else ()):
            warn_of_gaps([files[kind] for files in found.values() if kind in files])
        return [_piece(files) for _, files in sorted(found.items())]

    def likeness(self, names: Sequence[str]) -> tuple[str, bool] | None:
        return ("similarity", False) if "similarity" in names else None

    def key_columns(self) -> Sequence[str]:
        return ("key", "image_path")


def clip_files(folder: Path) -> dict[int, dict[str, Path]]:
    """Number -> kind -> file, of the folder and the folders in it. Raises UserError where two files claim one place."""
    found: dict[int, dict[str, Path]] = defaultdict(dict)
    if not folder.is_dir():
        return {}
    inside = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    deeper = [file for entry in inside if entry.is_dir() for file in sorted(entry.iterdir())]
    for file in [*inside, *deeper]:
        named = _NAME.match(file.name)
        if named is None or not file.is_file():
            continue
        kind, number = KINDS[named[1]], int(named[2])
        if kind in found[number]:
            raise UserError(f"{file} and {found[number][kind]} have the same number", fix="keep one of them there")
        found[number][kind] = file
    return dict(found)


def _piece(files: dict[str, Path]) -> Piece:
    vectors = {kind: path for kind, path in files.items() if kind in ("image", "text")}
    named = files.get("metadata") or next(iter(files.values()))
    return Piece(named.stem, files.get("metadata"), vectors, files.get("keys"))


USE = ClipRetrieval
