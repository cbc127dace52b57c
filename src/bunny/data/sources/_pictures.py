"""Pictures found by key: which tar and member, or which file, belongs to a row of a metadata table.

In: a folder of tars (or of picture files) and keys. Out: an `ImageRef`, or the reason why there is none. The tars' keys
are held as 128-bit digests in arrays (28 bytes a picture). Tars that are named as img2dataset names them, the start of
their keys, are looked into only when a key asks for them.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import ImageRef
from bunny.data.containers import ImageError, tar_index
from bunny.data.sources import _columns
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, is_file
from bunny.data.sources._seen import digest
from bunny.data.sources.webdataset import facts_of, keys, picture_of

By = Literal["key", "uid"]


class Pictures:
    """The pictures below a folder. by: what rows name them with, a tar's key or the `uid` that img2dataset kept."""

    def __init__(self, root: Path, by: By = "key") -> None:
        if not root.exists():
            raise UserError(f"{root}: no such folder", fix="check the source's `images`")
        self.root, self.by = root, by
        tars = [root] if root.suffix == ".tar" else [path for path in root.rglob("*.tar") if path.is_file()]
        self.tars = sorted(path for path in tars if not path.name.startswith("."))
        self._by_stem = {path.stem: path for path in reversed(self.tars)}
        self._all: _Table | None = None

    def find(self, name: str) -> ImageRef:
        """Where the picture of that name is. Raises BadRow (no_picture, missing_file, several_pictures)."""
        if not self.tars:
            return self._file(name)
        if self.by == "key" and (tar := self._tar_of(name)):
            members = _members(_stamp(tar)).get(name)
            if members is None:
                raise BadRow("missing_file", f"no key `{name[:80]}` in {tar}{_cut(tar)}")
            return ImageRef(str(tar), picture_of(members, {}))
        if self._all is None:
            self._all = _table(str(self.root), self.by, tuple(_stamp(tar) for tar in self.tars))
        place = self._all.find(name)
        if place is None:
            raise BadRow("missing_file", f"no {self.by} `{name[:80]}` in the tars of {self.root}{self._all.damage}")
        tar, at = self.tars[place[0]], place[1]
        return ImageRef(str(tar), picture_of(_in_order(_stamp(tar))[at], {}))

    def _tar_of(self, key: str) -> Path | None:
        """The tar whose name the key starts with, if its own keys do too."""
        for length in range(len(key), 0, -1):
            tar = self._by_stem.get(key[:length])
            if tar and _starts_its_keys(_stamp(tar)):
                return tar
        return None

    def _file(self, name: str) -> ImageRef:
        path = self.root / name
        if Path(name).suffix.lower() in PICTURE_SUFFIXES and is_file(path):
            return ImageRef(str(path))
        parts = Path(name).parts[1:] if Path(name).is_absolute() else ()
        for start in range(len(parts)):  # a path of the machine that made the table: its longest end that is here
            if is_file(self.root.joinpath(*parts[start:])):
                return ImageRef(str(self.root.joinpath(*parts[start:])))
        for suffix in sorted(PICTURE_SUFFIXES):
            if is_file(self.root / f"{name}{suffix}"):
                return ImageRef(str(self.root / f"{name}{suffix}"))
        raise BadRow("missing_file", str(path)[:300])


Stamp = tuple[str, int, int, int]


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size, os.getpid()


@lru_cache(maxsize=16)
def _members(stamp: Stamp) -> Mapping[str, list[str]]:
    """Key -> members of a tar."""
    found: dict[str, list[str]] = {}
    for key, members in keys(tar_index(Path(stamp[0]))):
        found.setdefault(key, []).extend(members)
    return found


@lru_cache(maxsize=16)
def _in_order(stamp: Stamp) -> list[list[str]]:
    """The members of a tar's keys, in order."""
    return list(_members(stamp).values())


@lru_cache(maxsize=1 << 14)
def _starts_its_keys(stamp: Stamp) -> bool:
    stem = Path(stamp[0]).stem
    return all(key.startswith(stem) for key in _members(stamp))


def _cut(tar: Path) -> str:
    problem = tar_index(tar).problem
    return f", it {problem}" if problem else ""


@dataclass(frozen=True)
class _Table:
    """Names of all pictures of many tars, sorted by digest. first, second: (N,) halves of it; tar, at: (N,) places.
    damage: what to say of tars that break off."""

    first: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint64]
    tar: npt.NDArray[np.uint32]
    at: npt.NDArray[np.uint32]
    damage: str

    def find(self, name: str) -> tuple[int, int] | None:
        first, second = digest(name)
        place = int(np.searchsorted(self.first, np.uint64(first)))
        while place < len(self.first) and int(self.first[place]) == first:
            if int(self.second[place]) == second:
                return int(self.tar[place]), int(self.at[place])
            place += 1
        return None


@lru_cache(maxsize=2)
def _table(root: str, by: By, stamps: tuple[Stamp, ...]) -> _Table:
    log.info("%s: looking up the %s of the pictures in %d tars", root, by, len(stamps))
    first, second, tars, places = array("Q"), array("Q"), array("I"), array("I")
    for number, stamp in enumerate(stamps):
        for at, name in _names(Path(stamp[0]), by):
            high, low = digest(name)
            first.append(high)
            second.append(low)
            tars.append(number)
            places.append(at)
    order = np.argsort(np.array(first, np.uint64), kind="stable")
    one, two, three, four = (np.array(part)[order] for part in (first, second, tars, places))
    broken = [tar for tar in (Path(stamp[0]) for stamp in stamps) if tar_index(tar).problem]
    more = f" and so do {len(broken) - 1} more" if len(broken) > 1 else ""
    damage = f"; {broken[0].name}: {tar_index(broken[0]).problem}{more}" if broken else ""
    return _Table(one, two, three, four, damage)


def _names(tar: Path, by: By) -> Iterator[tuple[int, str]]:
    """(place among the tar's keys, name) of its pictures: the key, or the `uid` in the table beside it or in JSON."""
    members = _members(_stamp(tar))
    if by == "key":
        yield from enumerate(members)
        return
    table = tar.with_suffix(".parquet")
    uids = _uids(table) if is_file(table) else {}
    for at, (key, inside) in enumerate(members.items()):
        uid = uids.get(key)
        if uid is None and not uids:
            uid = _uid_of(tar, inside)
        if uid is not None:
            yield at, str(uid)


def _uids(table: Path) -> dict[str, str]:
    """Key -> uid of img2dataset's table; nothing where it is damaged or has no such columns."""
    try:
        if not {"key", "uid"} <= set(_columns.schema(table).names):
            return {}
        rows = (row for batch in _columns.batches(table, ["key", "uid"]) for row in batch.rows())
        return {str(row["key"]): str(row["uid"]) for row in rows}
    except BadRow as bad:
        log.warning("%s: %s; its uids are taken from the tar", table, bad.detail)
        return {}


def _uid_of(tar: Path, members: list[str]) -> str | None:
    try:
        found = facts_of(tar, members).get("uid")
    except (BadRow, ImageError):
        return None
    return None if found is None else str(found)
