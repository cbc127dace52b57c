"""Every picture of a stage is looked at once: whether it opens, and which others have the same bytes.

In: picture references. Out: digests and problems, in parts that survive a kill. Pictures are numbered in the order of
the files that hold them, in which reading is fastest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bunny.core.log import meter
from bunny.core.types import ImageRef, IntArray
from bunny.data.containers import ImageError
from bunny.data.images import checked_digest
from bunny.train.part_files import Arrays, read_arrays, write_arrays

PART_PICTURES = 2048


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a picture cannot be used, as `ImageError` says."""

    where: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was seen. digests: (P, 32) uint8 SHA-256 of each picture's bytes, or None if none was looked at. problems:
    of those that cannot be used, by number."""

    digests: npt.NDArray[np.uint8] | None
    problems: Mapping[int, Problem]

    def classes(self, pictures: int) -> IntArray:
        """(P,) int64: pictures of equal bytes have one number."""
        if self.digests is None:
            return np.arange(pictures)
        rows = np.ascontiguousarray(self.digests).view("V32").ravel()
        return np.unique(rows, return_inverse=True)[1].astype(np.int64)


class Pictures:
    """Different pictures of some samples. refs: by number. known_good: need not be decoded; None: look at none."""

    def __init__(self, refs: Iterable[ImageRef], known_good: Collection[ImageRef] | None) -> None:
        self.refs = sorted(set(refs), key=lambda ref: (ref.path, ref.column, len(ref.member), ref.member))
        self.numbers = {ref: number for number, ref in enumerate(self.refs)}
        self._looked_at = known_good is not None
        self._good = known_good if isinstance(known_good, set | frozenset) else frozenset(known_good or ())

    @cached_property
    def digests(self) -> list[str]:
        """Of each part, a fingerprint of where its pictures are and how old the files; no picture is read."""
        ages: dict[str, tuple[int, int]] = {}
        out = []
        for part in self._parts():
            told = []
            for ref in part:
                if self._looked_at and ref.path not in ages:
                    ages[ref.path] = _age(ref.path)
                told.append([ref.path, ref.member, ref.column, ages.get(ref.path), ref in self._good])
            out.append(hashlib.sha256(json.dumps(told).encode()).hexdigest())
        return out

    def look(self, folder: Path) -> PictureFacts:
        """The facts of all pictures; parts that are in `folder` are not done again. Raises UserError on a full disk."""
        if not self._looked_at:
            return PictureFacts(None, {})
        digests, problems = [np.empty((0, 32), dtype=np.uint8)], {}
        with ThreadPoolExecutor(os.cpu_count() or 1) as crew, meter("look at pictures", len(self.refs)) as bar:
            for number, (part, mark) in enumerate(zip(self._parts(), self.digests, strict=True)):
                path = folder / f"pictures-{number:05d}-{mark[:16]}.npz"
                stored = read_arrays(path)
                if stored is None:
                    stored = _looked(part, [ref in self._good for ref in part], crew)
                    write_arrays(path, stored)
                digests.append(stored["digests"])
                for at, *told in json.loads(bytes(stored["problems"])):
                    problems[number * PART_PICTURES + at] = Problem(*told)
                bar.advance(len(part))
        return PictureFacts(np.concatenate(digests), problems)

    def _parts(self) -> list[Sequence[ImageRef]]:
        return [self.refs[start : start + PART_PICTURES] for start in range(0, len(self.refs), PART_PICTURES)]


def _looked(refs: Sequence[ImageRef], good: Sequence[bool], crew: ThreadPoolExecutor) -> Arrays:
    """`digests` (n, 32) uint8, zero where there is a problem; `problems` JSON [[place, where, reason, detail], …]."""
    digests = np.zeros((len(refs), 32), dtype=np.uint8)
    problems = []
    for at, seen in enumerate(crew.map(_seen, refs, good)):
        if isinstance(seen, bytes):
            digests[at] = np.frombuffer(seen, dtype=np.uint8)
        else:
            problems.append([at, seen.where, seen.reason, seen.detail])
    return {"digests": digests, "problems": np.frombuffer(json.dumps(problems).encode(), dtype=np.uint8)}


def _seen(ref: ImageRef, known_good: bool) -> bytes | ImageError:
    try:
        return checked_digest(ref, known_good)
    except ImageError as error:
        return error


def _age(path: str) -> tuple[int, int]:
    """(size in bytes, modification time in ns); (-1, 0) where there is no file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return -1, 0
    return stat.st_size, stat.st_mtime_ns
