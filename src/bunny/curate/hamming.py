"""Hashes that differ in few bits: 64-bit hashes in; linked groups, or the nearest of other hashes, out. Exact.

Multi-index hashing (Norouzi, Punjani, Fleet 2012): cut the 64 bits into m bands; two hashes at most d bits apart agree
in one band up to floor(d / m) bits, so the hashes to compare are found by turning so few bits of each band. 10 million
hashes within 4 bits take 40 CPU-seconds on one core, not 50 trillion comparisons.
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
        shift, mask, flips, order, start = index.band(band)
        _link_band(distinct, shift, mask, flips, order, start, distance, leader)
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
        shift, mask, flips, order, start = index.band(band)
        _search_band(hashes, others, shift, mask, flips, order, start, row, bits)
    return row, np.where(row >= 0, bits, -1)


@dataclass(frozen=True, slots=True)
class _Index:
    """Rows by the value of each band. shift, width: of the bands, in bits; flips: what to turn in them."""

    shift: tuple[int, ...]
    width: tuple[int, ...]
    flips: tuple[Hashes, ...]
    hashes: Hashes

    @staticmethod
    def of(hashes: Hashes, distance: int) -> _Index:
        bands = 8 if len(hashes) <= 1 << 12 else 4 if len(hashes) <= 1 << 18 else 3
        edges = [64 * number // bands for number in range(bands + 1)]
        width = tuple(int(wide) for wide in np.diff(edges))
        return _Index(tuple(edges[:-1]), width, tuple(_flips(wide, distance // bands) for wide in width), hashes)

    def band(self, number: int) -> tuple[Any, ...]:
        """(shift, mask, flips, order, start) of one band: what the kernels need."""
        shift, mask = np.uint64(self.shift[number]), np.uint64((1 << self.width[number]) - 1)
        keys = ((self.hashes >> shift) & mask).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        start = np.zeros((1 << self.width[number]) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << self.width[number]), out=start[1:])
        return shift, mask, self.flips[number], order, start


def _flips(width: int, bits: int) -> Hashes:
    """Every way to turn at most `bits` of `width` bits."""
    chosen = [places for count in range(bits + 1) for places in combinations(range(width), count)]
    return np.array([sum(1 << place for place in places) for places in chosen], np.uint64)


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
def _link_band(
    hashes: Any, shift: Any, mask: Any, flips: Any, order: Any, start: Any, distance: Any, leader: Any
) -> None:
    for row in range(len(hashes)):
        key = (hashes[row] >> shift) & mask
        for flip in flips:
            value = np.int64(key ^ flip)
            for place in range(start[value], start[value + 1]):
                other = order[place]
                if other < row and _ones(hashes[row] ^ hashes[other]) <= distance:
                    first, second = _root(leader, row), _root(leader, other)
                    leader[max(first, second)] = min(first, second)


@njit(cache=True, nogil=True)
def _flatten(leader: Any) -> None:
    for row in range(len(leader)):
        leader[row] = _root(leader, row)


@njit(cache=True, nogil=True)
def _search_band(
    hashes: Any, others: Any, shift: Any, mask: Any, flips: Any, order: Any, start: Any, row: Any, bits: Any
) -> None:
    for one in range(len(hashes)):
        key = (hashes[one] >> shift) & mask
        for flip in flips:
            value = np.int64(key ^ flip)
            for place in range(start[value], start[value + 1]):
                other = order[place]
                found = _ones(hashes[one] ^ others[other])
                if found < bits[one] or (found == bits[one] and other < row[one]):
                    bits[one], row[one] = found, other
