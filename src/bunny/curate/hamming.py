"""Hashes that differ in few bits: 64-bit hashes in; linked groups, or the nearest of other hashes, out. Exact.

Multi-index hashing (Norouzi, Punjani, Fleet 2012): cut the 64 bits into m bands; two hashes at most d bits apart agree
in one band up to floor(d / m) bits, so the hashes to compare are found by turning so few bits of each band. 10 million
random hashes take 10 CPU-seconds within 4 bits, 37 within 8, and 1.1 GB; all pairs would be 50 trillion comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from bunny.core.types import IntArray

Hashes = npt.NDArray[np.uint64]


def groups(hashes: Hashes, distance: int) -> IntArray:
    """(N,) int64: for every hash the first row that it is linked to, directly or in a chain of steps of at most
    `distance` bits.

    >>> groups(np.array([0b0000, 0b1111, 0b0001, 0b0011], np.uint64), 1)
    array([0, 1, 0, 0])
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    leader = np.arange(len(distinct))
    index = _Index.of(distinct, distance)
    for band in range(len(index.shift)):
        key, flips, order, start = index.band(band)
        _link_band(distinct[order], key, flips, order, start, distance, leader)
    _flatten(leader)
    earliest = np.full(len(distinct), len(hashes), np.int64)
    np.minimum.at(earliest, leader, first)
    found: IntArray = earliest[leader][inverse.reshape(-1)]
    return found


def nearest(hashes: Hashes, others: Hashes, distance: int) -> tuple[IntArray, IntArray]:
    """(N,) the row of `others` that differs least from each hash, -1 where none is within `distance` bits; (N,) by how
    many bits. Of several equally near ones the first."""
    row = np.full(len(hashes), -1, np.int64)
    bits = np.full(len(hashes), distance + 1, np.int64)
    index = _Index.of(others, distance)
    for band in range(len(index.shift)):
        _, flips, order, start = index.band(band)
        ours = index.keys(hashes, band)
        _search_band(hashes, ours, others[order], flips, order, start, row, bits)
    return row, np.where(row >= 0, bits, -1)


@dataclass(frozen=True, slots=True)
class _Index:
    """Rows by the value of each band. shift, width: of the bands, in bits; flips: what to turn in them."""

    shift: tuple[int, ...]
    width: tuple[int, ...]
    flips: tuple[IntArray, ...]
    hashes: Hashes

    @staticmethod
    def of(hashes: Hashes, distance: int) -> _Index:
        bands = 8 if len(hashes) <= 1 << 12 else 4 if len(hashes) <= 1 << 18 else 3
        edges = [64 * number // bands for number in range(bands + 1)]
        width = tuple(int(wide) for wide in np.diff(edges))
        return _Index(tuple(edges[:-1]), width, tuple(_flips(wide, distance // bands) for wide in width), hashes)

    def keys(self, hashes: Hashes, number: int) -> IntArray:
        """(N,) int64 value of one band of any hashes."""
        shift, mask = np.uint64(self.shift[number]), np.uint64((1 << self.width[number]) - 1)
        values: IntArray = ((hashes >> shift) & mask).astype(np.int64)
        return values

    def band(self, number: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Values of one band in ascending order, flips, rows in that order, where each value's rows begin."""
        keys = self.keys(self.hashes, number)
        order = np.argsort(keys, kind="stable")
        start = np.zeros((1 << self.width[number]) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << self.width[number]), out=start[1:])
        return keys[order], self.flips[number], order, start


def _flips(width: int, bits: int) -> IntArray:
    """Every way to turn at most `bits` of `width` bits."""
    chosen = [places for count in range(bits + 1) for places in combinations(range(width), count)]
    return np.array([sum(1 << place for place in places) for places in chosen], np.int64)


@njit(cache=True, nogil=True)
def _ones(value: Any) -> Any:
    """Bits that are set."""
    value = value - ((value >> np.uint64(1)) & np.uint64(0x5555555555555555))
    value = (value & np.uint64(0x3333333333333333)) + ((value >> np.uint64(2)) & np.uint64(0x3333333333333333))
    value = (value + (value >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((value * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True)
def _root(leader: Any, row: Any) -> Any:
    while leader[row] != row:
        leader[row] = leader[leader[row]]
        row = leader[row]
    return row


@njit(cache=True, nogil=True)
def _link_band(hashes: Any, key: Any, flips: Any, order: Any, start: Any, distance: Any, leader: Any) -> None:
    """Hashes and keys in the order of the band: neighbours in it are neighbours in memory."""
    for flip in flips:
        for place in range(len(hashes)):
            value = key[place] ^ flip
            if value < key[place]:  # met from the other side
                continue
            for other in range(place + 1 if flip == 0 else start[value], start[value + 1]):
                if _ones(hashes[place] ^ hashes[other]) <= distance:
                    first, second = _root(leader, order[place]), _root(leader, order[other])
                    leader[max(first, second)] = min(first, second)


@njit(cache=True, nogil=True)
def _flatten(leader: Any) -> None:
    for row in range(len(leader)):
        leader[row] = _root(leader, row)


@njit(cache=True, nogil=True)
def _search_band(hashes: Any, key: Any, others: Any, flips: Any, order: Any, start: Any, row: Any, bits: Any) -> None:
    """others: in the order of the band."""
    for one in range(len(hashes)):
        for flip in flips:
            value = key[one] ^ flip
            for place in range(start[value], start[value + 1]):
                found = _ones(hashes[one] ^ others[place])
                if found < bits[one] or (found == bits[one] and order[place] < row[one]):
                    bits[one], row[one] = found, order[place]
