"""Texts that say nearly the same: strings in; for each the earlier kept text that it repeats, or itself, out.

Likeness is Jaccard's: shared runs of three words among all of both. Candidates come from MinHash with 32 bands of 4
(Broder 1997; Lee et al. 2022, "Deduplicating training data makes language models better"), then the likeness is
computed, so nothing is dropped below the threshold; of pairs at 0.8 one in 20 million is missed, at 0.7 one in 7,000.
128 bytes a row are held, and the words of rows that share a band with another.
"""

from __future__ import annotations

import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from bunny.core.types import BoolArray, IntArray
from bunny.curate.texts import plain

BANDS, ROWS, RUN = 32, 4, 3
Runs = npt.NDArray[np.uint32]


def repeats(read: Callable[[], Iterator[str]], size: int, above: float) -> IntArray:
    """(N,) row of the kept text that each one repeats (the likest, of equal ones the first), itself if it is kept.
    Texts are gone through in order: one is kept unless a kept one before it has a likeness of at least `above`.

    read: gives the N texts from the first on, and is called twice. Empty texts repeat nothing.

    >>> texts = ["a red cat sits on a mat", "A red cat sits on  a mat", "blue"]
    >>> repeats(lambda: iter(texts), 3, above=0.8)
    array([0, 0, 2])
    """
    keys = _band_keys(read(), size)
    shares = _shares(keys)
    rows, keys, runs = np.flatnonzero(shares), keys[shares], _Runs()
    for text, shared in zip(read(), shares.tolist(), strict=True):
        if shared:
            runs.add(text)
    kept: dict[tuple[int, int], list[int]] = defaultdict(list)
    found = np.arange(size)
    for place, row in enumerate(rows.tolist()):
        buckets = list(enumerate(keys[place].tolist()))
        best, twin = 0.0, place
        for other in sorted({one for bucket in buckets for one in kept[bucket]}):
            likeness = jaccard(runs[place], runs[other])
            if likeness >= above and likeness > best:
                best, twin = likeness, other
        found[row] = rows[twin]
        if twin == place:
            for bucket in buckets:
                kept[bucket].append(place)
    return found


def jaccard(one: Runs, other: Runs) -> float:
    """Shared values of two sets among all of both; 0 for empty ones."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


class _Runs:
    """Checksums of the different runs of words of many texts, one after the other."""

    def __init__(self) -> None:
        self._values, self._ends = array("I"), array("q", [0])

    def add(self, text: str) -> None:
        self._values.extend(_runs(text).tolist())
        self._ends.append(len(self._values))

    def __getitem__(self, place: int) -> Runs:
        return np.array(self._values[self._ends[place] : self._ends[place + 1]], np.uint32)


def _runs(text: str) -> Runs:
    """Checksums of the different runs of three words, ascending; of a shorter text the whole is one."""
    words = plain(text).split()
    runs = {" ".join(words[start : start + RUN]) for start in range(max(1, len(words) - RUN + 1))} if words else set()
    return np.unique(np.array([zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs], np.uint32))


def _band_keys(texts: Iterator[str], size: int) -> npt.NDArray[np.uint32]:
    """(N, 32) a number for each band of each text's signature, never 0; rows without words have 0."""
    keys = np.zeros((size, BANDS), np.uint32)
    multipliers, offsets = _odd_numbers(2 * BANDS * ROWS).reshape(2, BANDS * ROWS, 1)
    for row, text in enumerate(texts):
        values = _runs(text)
        if len(values):
            mixed = (multipliers * values.astype(np.uint64) + offsets) >> np.uint64(32)
            least = mixed.min(axis=1).reshape(BANDS, ROWS)  # the signature
            key = np.zeros(BANDS, np.uint64)
            for place in range(ROWS):
                key = (key ^ least[:, place]) * np.uint64(0x9E3779B97F4A7C15)
            keys[row] = np.maximum((key >> np.uint64(32)).astype(np.uint32), 1)
    return keys


def _shares(keys: npt.NDArray[np.uint32]) -> BoolArray:
    """(N,) whether a row has a band in common with another."""
    shares = np.zeros(len(keys), dtype=bool)
    for band in range(BANDS):
        _, inverse, count = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shares |= count[inverse.reshape(-1)] > 1
    return shares & keys.any(axis=1)


def _odd_numbers(count: int) -> npt.NDArray[np.uint64]:
    """The same odd 64-bit numbers everywhere (splitmix64)."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    numbers: npt.NDArray[np.uint64] = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return numbers
