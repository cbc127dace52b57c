"""Ids of many parts in, the order of their rows out, and which of several rows of one id stays.

No Python object per row: Arrow sorts, and only rows whose id comes twice are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bunny.core.types import BoolArray, IntArray, Rejected
from bunny.curate.columns import Texts

BLOCK = 65_536

Marks = Callable[[IntArray], Iterator[tuple[str, bytes]]]
"""(n,) rows -> for each its place, in words, and what it is made of, as bytes that depend on nothing else."""


def order_of(ids: Sequence[Any], marks: Marks) -> tuple[IntArray | None, tuple[Rejected, ...]]:
    """(N,) int64 rows sorted by id (None: they are), one a distinct id; and the other rows of ids that come twice.

    ids: Arrow string arrays, one after the other. Of several rows of one id that one stays whose mark comes first, so
    that the order of the parts does not matter.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if _ascend(ids):
        return None, ()
    order: IntArray = pc.sort_indices(pa.chunked_array(ids, pa.string())).to_numpy().astype(np.int64)
    again = _equal_to_previous(ids, order)
    if not again.any():
        return order, ()
    later, rejected = _later_rows(ids, order, again, marks)
    return order[~np.isin(order, later)], rejected


def _ascend(ids: Sequence[Any]) -> bool:
    """Whether every id is greater than the one before it."""
    import pyarrow.compute as pc

    last = None
    for chunk in ids:
        if len(chunk):
            first = chunk[0].as_py()
            if last is not None and last >= first:
                return False
            if len(chunk) > 1 and not pc.all(pc.less(chunk[:-1], chunk[1:])).as_py():
                return False
            last = chunk[-1].as_py()
    return True


def _equal_to_previous(ids: Sequence[Any], order: IntArray) -> BoolArray:
    """(N,) whether the id at a place of the order is that of the place before."""
    import pyarrow.compute as pc

    column, equal = Texts(ids, order), np.zeros(len(order), dtype=bool)
    for start in range(0, len(order) - 1, BLOCK):
        some = column[start : start + BLOCK + 1].arrow()
        equal[start + 1 : start + len(some)] = pc.equal(some[:-1], some[1:]).to_numpy(zero_copy_only=False)
    return equal


def _later_rows(
    ids: Sequence[Any], order: IntArray, again: BoolArray, marks: Marks
) -> tuple[IntArray, tuple[Rejected, ...]]:
    """The rows that give way to another of their id, and what is said of them."""
    involved = again.copy()
    involved[:-1] |= again[1:]
    places = np.flatnonzero(involved)
    rows, group = order[places], np.cumsum(~again[places])
    found = list(marks(rows))
    ranked = sorted(range(len(rows)), key=lambda n: (group[n], found[n][1]))
    first = {int(group[n]): n for n in reversed(ranked)}
    later = [n for n in ranked if first[int(group[n])] != n]
    names = Texts(ids, rows)[np.array(later)].tolist()
    told = (
        Rejected(id, found[n][0], "duplicate_id", "another row of that id stays")
        for id, n in zip(names, later, strict=True)
    )
    return rows[later], tuple(told)
