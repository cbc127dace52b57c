"""A folder of pictures with side-car texts: `cat.jpg` with `cat.txt`, `cat.caption` or `cat.json`.

In: a folder, searched with its sub-folders. Out: one pair a picture, sorted by path; the id is the path inside the
folder. A picture without a text, or a text without a picture, is rejected; other files are not rows. What a JSON
side-car says besides the caption is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Sample
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, RowSource, first_caption, pair, plain

TEXT_SUFFIXES = (".txt", ".caption")
SHARD_ENTRIES = 10_000  # entries of the folder's top level in one shard
MAX_JSON_BYTES = 16 << 20


class Folder(RowSource):
    """`{use: folder, path: pictures/}`"""

    caption: tuple[str, ...] | str = ("caption", "text")  # keys of a JSON side-car; the first that is not empty counts
    between: tuple[str, str] | None = None  # only what lies in the top level from this name to that one

    def rows(self) -> Iterator[tuple[str, Any]]:
        root = self._root()
        for path, beside in _files(root, self.between):
            kind = path.suffix.lower()
            if kind in PICTURE_SUFFIXES or (kind in TEXT_SUFFIXES and not _has_picture(path, beside)):
                yield str(path), (path, beside)

    def sample(self, where: str, raw: Any) -> Sample:
        path, beside = raw
        id = path.relative_to(self._root()).as_posix()
        try:
            if path.suffix.lower() in TEXT_SUFFIXES:
                raise BadRow("no_picture", "a text without a picture of the same name")
            sidecars = [path.with_suffix(kind) for kind in (*TEXT_SUFFIXES, ".json")]
            sidecars = [sidecar for sidecar in sidecars if sidecar.name in beside]
            if not sidecars:
                raise BadRow("no_caption", f"no {path.stem}.txt beside it")
            facts = self._facts(sidecars[-1]) if sidecars[-1].suffix == ".json" else {}
            texts = (self._text(sidecar) for sidecar in sidecars if sidecar.suffix != ".json")
            names = (self.caption,) if isinstance(self.caption, str) else self.caption
            words = first_caption((*texts, *(facts.get(name) for name in names)), self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        return pair(id, (ImageRef(str(path)),), words, self.name or self._root().resolve().name, facts)

    def shards(self) -> Sequence[Mapping[str, Any]]:
        """Every sub-folder, and every so many files beside them, in order."""
        root = self._root()
        runs: list[list[str]] = []
        for name, is_folder in _entries(root, self.between):
            if is_folder or not runs or len(runs[-1]) == SHARD_ENTRIES or runs[-1][0].endswith("/"):
                runs.append([])
            runs[-1].append(f"{name}/" if is_folder else name)
        ends = [(run[0].rstrip("/"), run[-1].rstrip("/")) for run in runs]
        return [self.block(root, name=self.name or root.resolve().name, between=list(end)) for end in ends]

    def _root(self) -> Path:
        root = self.located(self.path)
        if not root.is_dir():
            raise UserError(f"{root}: no such folder", fix="check the source's `path`")
        return root

    def _text(self, path: Path) -> str:
        data = _bytes(path, 4 * self.max_caption_chars + 4096)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRow("not_text", f"{path.name} is not UTF-8 at byte {error.start}") from None

    def _facts(self, path: Path) -> dict[str, Any]:
        try:
            facts = json.loads(_bytes(path, MAX_JSON_BYTES))
        except (ValueError, RecursionError) as error:
            raise BadRow("malformed_json", f"{path.name}: {error}") from None
        if not isinstance(facts, dict):
            raise BadRow("malformed_json", f"{path.name} holds no object")
        return {str(key): plain(value) for key, value in facts.items() if value is not None}


def _bytes(path: Path, limit: int) -> bytes:
    """The file's bytes. Raises BadRow if there are more than `limit`, or it cannot be read."""
    try:
        if path.stat().st_size > limit:
            raise BadRow("caption_too_long", f"{path.name} has {path.stat().st_size} bytes, the limit is {limit}")
        return path.read_bytes()
    except OSError as error:
        raise BadRow("missing_file", f"{path.name} cannot be read: {error.strerror or error}") from None


def _entries(folder: Path, between: tuple[str, str] | None = None) -> list[tuple[str, bool]]:
    """(name, whether it is a folder) of what lies in a folder, sorted, without hidden entries."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name[0] != "."]
    found.sort()
    return [one for one in found if between is None or between[0] <= one[0] <= between[1]]


def _files(folder: Path, between: tuple[str, str] | None = None) -> Iterator[tuple[Path, frozenset[str]]]:
    """(file, names of all that lies beside it), sorted by path; one folder's names are in memory at a time."""
    beside = frozenset(name for name, _ in _entries(folder))
    for name, is_folder in _entries(folder, between):
        if is_folder:
            yield from _files(folder / name)
        elif (folder / name).is_file():
            yield folder / name, beside


def _has_picture(text: Path, beside: frozenset[str]) -> bool:
    kinds = (suffix for kind in PICTURE_SUFFIXES for suffix in (kind, kind.upper()))
    return any(text.with_suffix(suffix).name in beside for suffix in kinds)


USE = Folder
