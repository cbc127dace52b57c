"""WebDataset tars as img2dataset writes them: `000000012.jpg`, `.txt` and `.json` side by side.

In: uncompressed tar shards. Out: one pair a key, in shard and member order. Pictures stay in the tar; only texts and
JSON are read. A shard that breaks off gives its whole samples and one rejection that names the place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from bunny.core.types import ImageRef, Sample
from bunny.data.containers import ImageError, image_bytes, tar_index
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, RowSource, first_caption, pair, plain


class WebDataset(RowSource):
    """`{use: webdataset, path: shards/}`"""

    ids: Literal["key", "shard_key"] = "key"  # `shard_key` where every shard counts from zero again
    caption: str = "caption"  # JSON key to look at where there is no .txt

    def rows(self) -> Iterator[tuple[str, Any]]:
        for path in self.files([".tar"]):
            index = tar_index(path)
            for key, group in groupby(index.members, key=_key):
                yield f"{path}:{key}", (path, key, list(group))
            for key, _ in groupby(index.repeated, key=_key):
                yield str(path), BadRow("duplicate_id", f"first seen at {path}:{key}", self._id(path, key))
            if index.problem:
                yield str(path), BadRow("damaged_file", index.problem)

    def sample(self, where: str, raw: Any) -> Sample:
        path, key, members = raw
        id = self._id(path, key)
        pictures = [name for name in members if Path(name).suffix.lower() in PICTURE_SUFFIXES]
        try:
            facts = self._facts(path, members)
            if not pictures:
                raise BadRow("no_picture", str(facts.get("error_message") or f"only {', '.join(members)}"))
            if len(pictures) > 1:
                raise BadRow("several_pictures", ", ".join(pictures))
            captions = (self._text(path, members), facts.get(self.caption))
            words = first_caption(captions, self.max_caption_chars)
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        except ImageError as error:
            raise BadRow(error.reason, error.detail, id) from None
        return pair(id, ImageRef(str(path), pictures[0]), words, self.name or path.parent.name, facts)

    def _id(self, path: Path, key: str) -> str:
        return key if self.ids == "key" else f"{path.stem}/{key}"

    def _text(self, path: Path, members: list[str]) -> str | None:
        text = next((name for name in members if name.endswith(".txt")), None)
        try:
            return _read(path, text).decode("utf-8") if text else None
        except UnicodeDecodeError as error:
            raise BadRow("not_text", f"{text} is not UTF-8 at byte {error.start}") from None

    def _facts(self, path: Path, members: list[str]) -> dict[str, Any]:
        name = next((name for name in members if name.endswith(".json")), None)
        if name is None:
            return {}
        try:
            facts = json.loads(_read(path, name))
        except ValueError as error:
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


def _key(name: str) -> str:
    """The member's name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


USE = WebDataset
