"""WebDataset tars: `000000012.jpg`, `.txt` and `.json` side by side.

In: uncompressed tar shards. Out: one pair a key, in shard and member order. Pictures stay in the tar; only texts and
JSON are read. A shard that breaks off gives its whole samples and one rejection that names the place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from bunny.core.types import ImageRef, Sample
from bunny.data.containers import ImageError, TarIndex, image_bytes, tar_index
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, RowSource, first_caption, pair, plain
from bunny.data.sources._shards import labels


class WebDataset(RowSource):
    """`{use: webdataset, path: shards/}`"""

    ids: Literal["key", "shard_key"] = "key"  # `shard_key` where every shard counts from zero again
    caption: str = "caption"  # JSON key to look at where there is no .txt
    label: str | None = None  # stands for the shard in `shard_key` ids; default: its name, its path where names repeat

    def rows(self) -> Iterator[tuple[str, Any]]:
        pieces = self.pieces()
        for path, label in zip(pieces, labels(pieces), strict=True):
            index = tar_index(path)
            for key, members in keys(index):
                yield f"{path}:{key}", (path, label, key, members)
            yield from self._trouble(path, label, index)

    def sample(self, where: str, raw: Any) -> Sample:
        path, label, key, members = raw
        id = self._id(label, key)
        try:
            facts = facts_of(path, members)
            id = self._id(label, true_id(key, facts))
            picture = picture_of(members, facts)
            captions = (text_of(path, members), facts.get(self.caption))
            words = first_caption(captions, self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        except ImageError as error:
            raise BadRow(error.reason, error.detail, id) from None
        return pair(id, (ImageRef(str(path), picture),), words, self.name or path.parent.name, facts)

    def shards(self) -> Sequence[Mapping[str, Any]]:
        pieces = self.pieces()
        named = zip(pieces, labels(pieces), strict=True)
        return [self.block(path, name=self.name or path.parent.name, label=label) for path, label in named]

    def pieces(self) -> list[Path]:
        return self.files([".tar"])

    def _trouble(self, path: Path, label: str, index: TarIndex) -> Iterator[tuple[str, BadRow]]:
        """What else is to be said of a tar: members that come twice, and where it breaks off."""
        for key, _ in groupby(index.repeated, key=key_of):
            yield str(path), BadRow("duplicate_id", f"first seen at {path}:{key}", self._id(label, key))
        if index.problem:
            yield str(path), BadRow("damaged_file", index.problem)

    def _id(self, label: str, key: str) -> str:
        return key if self.ids == "key" else f"{self.label or label}/{key}"


def keys(index: TarIndex) -> Iterator[tuple[str, list[str]]]:
    """(key, its members) in the tar's order."""
    for key, group in groupby(index.members, key=key_of):
        yield key, list(group)


def key_of(name: str) -> str:
    """A member's name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def true_id(key: str, facts: Mapping[str, Any]) -> str:
    """The id that `bunny.data.writers.webdataset` made the key of; the key itself where others made it."""
    id = facts.get("id")
    if not isinstance(id, str):
        return key
    made = unquote(key) == id or sha256(id.encode("utf-8", "replace")).hexdigest()[:32] == key
    return id if made else key


def picture_of(members: Sequence[str], facts: Mapping[str, Any]) -> str:
    """The member that is the picture. Raises BadRow."""
    pictures = [name for name in members if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise BadRow("no_picture", str(facts.get("error_message") or f"only {', '.join(members)}")[:300])
    if len(pictures) > 1:
        raise BadRow("several_pictures", ", ".join(pictures)[:300])
    return pictures[0]


def text_of(path: Path, members: Sequence[str]) -> str | None:
    """The text member, None where there is none. Raises BadRow, ImageError."""
    text = next((name for name in members if name.endswith(".txt")), None)
    try:
        return _read(path, text).decode("utf-8") if text else None
    except UnicodeDecodeError as error:
        raise BadRow("not_text", f"{text} is not UTF-8 at byte {error.start}") from None


def facts_of(path: Path, members: Sequence[str]) -> dict[str, Any]:
    """What the JSON member says; nothing where there is none. Raises BadRow, ImageError."""
    name = next((name for name in members if name.endswith(".json")), None)
    if name is None:
        return {}
    try:
        facts = json.loads(_read(path, name))
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed_json", f"{name}: {error}") from None
    if not isinstance(facts, dict):
        raise BadRow("malformed_json", f"{name} holds no object")
    return {key: plain(value) for key, value in facts.items() if value is not None}


def _read(path: Path, member: str) -> bytes:
    """A text member; an empty one is empty text."""
    try:
        return image_bytes(ImageRef(str(path), member))
    except ImageError as error:
        if error.reason == "empty_file":
            return b""
        raise


USE = WebDataset
