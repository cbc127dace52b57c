"""What was computed once and may be wanted again, bounded by bytes: pictures' tokens, and what prompts begin with.

In: pictures by the digest of their bytes; prompts as ids with the digests of the pictures in them. Out: the same again,
or how much of a new prompt is known. What was not used for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, at most so many bytes of them."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._items: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, which counts as used now; None if it is not there."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: Hashable, value: Value, size_bytes: int) -> None:
        """Keep it; one that is larger than all there is room for is not kept."""
        self.drop(key)
        if size_bytes > self.most_bytes:
            return
        self._items[key] = value, size_bytes
        self.bytes += size_bytes
        while self.bytes > self.most_bytes:
            self.drop(next(iter(self._items)))

    def drop(self, key: Hashable) -> None:
        if key in self._items:
            self.bytes -= self._items.pop(key)[1]

    def clear(self) -> None:
        self._items.clear()
        self.bytes = 0

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True, eq=False, slots=True)
class Said:
    """Tokens with the pictures among them.

    ids: (T,) int64. pictures: (first token, key) of each, in order; a key that equals no other is a picture that is
    never found again.
    """

    ids: npt.NDArray[np.int64]
    pictures: tuple[tuple[int, Hashable], ...] = ()

    def common(self, other: Said) -> int:
        """How many tokens both begin with, pictures included."""
        length = min(len(self.ids), len(other.ids))
        differs = self.ids[:length] != other.ids[:length]
        same = int(differs.argmax()) if differs.any() else length
        for mine, its in zip(self.pictures, other.pictures, strict=False):
            if mine[0] >= same:
                break
            if mine != its:
                return mine[0]
        return same


class Beginnings(Generic[Value]):
    """What language models remember of whole token sequences, found by the longest common beginning."""

    def __init__(self, most_bytes: int) -> None:
        self.kept: Kept[tuple[Said, Value]] = Kept(most_bytes)

    def find(self, said: Said) -> tuple[int, Value | None]:
        """(tokens in common with the nearest, what was kept of it)."""
        best, found = 0, None
        for key in self.kept:
            assert isinstance(key, Said)
            if (length := said.common(key)) > best:
                best, found = length, key
        if found is None:
            return 0, None
        kept = self.kept.get(found)
        return best, None if kept is None else kept[1]

    def put(self, said: Said, value: Value, size_bytes: int) -> None:
        """Keep it; what it begins with itself need not be kept any longer."""
        for key in self.kept:
            assert isinstance(key, Said)
            if said.common(key) == len(key.ids):
                self.kept.drop(key)
        self.kept.put(said, (said, value), size_bytes)


def picture_places(ids: Sequence[int], image_token_id: int, tokens: int) -> list[int]:
    """Where each picture's run of `tokens` ids begins."""
    places, at = [], 0
    while at < len(ids):
        if ids[at] == image_token_id:
            places.append(at)
            at += tokens
        else:
            at += 1
    return places
