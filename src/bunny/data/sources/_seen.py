"""Which ids were met before, and where: 24 bytes a slot, so that ten million rows of one source fit.

In: ids with their places (`file:row`). Out: whether an id is known, and the place where it was first. Ids are kept as
128-bit digests: two different ids count as one with a chance of 1e-24 at ten million rows.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

ROW_BITS = 40


class Seen:
    """id -> the place it was first met; of the place the file, and the row where it is a number, are kept."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._count = 0
        self._allocate(1 << 10)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: str) -> bool:
        return self._place[self._slot(*digest(id))] != 0

    def __getitem__(self, id: str) -> str:
        """The place an id was first met. Raises KeyError."""
        packed = self._place[self._slot(*digest(id))]
        if not packed:
            raise KeyError(id)
        file = next(name for name, number in self._files.items() if number == packed >> ROW_BITS)
        row = packed & ((1 << ROW_BITS) - 1)
        return f"{file}:{row - 1}" if row else file

    def __setitem__(self, id: str, where: str) -> None:
        if 3 * self._count >= 2 * len(self._place):
            self._grow()
        first, second = digest(id)
        slot = self._slot(first, second)
        self._count += not self._place[slot]
        self._first[slot], self._second[slot], self._place[slot] = first, second, self._pack(where)

    def _pack(self, where: str) -> int:
        head, colon, tail = where.rpartition(":")
        file, row = (head, int(tail) + 1) if colon and tail.isdecimal() else (head or where, 0)
        number = self._files.setdefault(file, len(self._files) + 1)
        return number << ROW_BITS | row

    def _slot(self, first: int, second: int) -> int:
        """Where the digest is, or the free slot where it would be."""
        mask = len(self._place) - 1
        slot = first & mask
        while self._place[slot] and (self._first[slot] != first or self._second[slot] != second):
            slot = (slot + 1) & mask
        return slot

    def _allocate(self, slots: int) -> None:
        self._first, self._second, self._place = (array("Q", bytes(8 * slots)) for _ in range(3))

    def _grow(self) -> None:
        old = zip(self._first, self._second, self._place, strict=True)
        self._allocate(2 * len(self._place))
        for first, second, place in old:
            if place:
                slot = self._slot(first, second)
                self._first[slot], self._second[slot], self._place[slot] = first, second, place


def digest(id: str) -> tuple[int, int]:
    """128 bits of an id, in two halves."""
    both = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(both[:8], "little"), int.from_bytes(both[8:], "little")
