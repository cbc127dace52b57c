"""Sets of linked rows at every threshold at once: sets at the lowest threshold in, one link a row out.

A row's link says: from this threshold downwards it is in one set with that earlier row. The links with a cosine of at
least t are a forest whose trees are the sets at t, for every t of the grid; as many as there are links, so many rows
go if one of each set stays. Rows are compared as in `bunny.curate.linking`: by codes where these tell, in float32, near
a threshold in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import FloatArray, IntArray, Place, Task
from bunny.curate import set_kernels
from bunny.curate.codes import Quantiser, products
from bunny.curate.columns import Rows
from bunny.curate.grouping import Placed
from bunny.curate.work import in_threads, read_arrays, write_array, write_arrays

STEP = 0.005  # between two thresholds of the grid
BATCH_ROWS = 32_768  # rows of one task, more only if one set has more
LARGE = 32_768  # rows; larger sets are known at the lowest threshold only
DENSE = 4_096  # rows of the largest set whose least cosine is looked for
SMALL = 96  # rows of a set that is compared without a matrix product
TALL = 256  # rows of a larger one that are compared at once
SPAN = 2_048  # rows that are read at once
SHAPES = 64  # rows of products are multiples of this
ROUNDING = 5e-6  # of a likeness, for float32 sums of products

SORTED = "members.npy"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Links:
    """Of each of N rows: `cosine` (float32, NaN: none) and `to` (int64, -1: none), the earlier row that it is linked to
    from that threshold downwards; `least`: the lowest cosine between two rows of its set at `above` (float32, NaN:
    alone or too large). unknown: rows of sets too large to be looked into: they are linked at the lowest threshold."""

    cosine: FloatArray
    to: IntArray
    least: FloatArray
    unknown: int

    def sets(self, above: float) -> IntArray:
        """(N,) int64: the lowest row of each row's set at a threshold of the grid."""
        parent = np.arange(len(self.to), dtype=np.int64)
        linked = np.flatnonzero(self.cosine >= np.float32(above))
        set_kernels.join_pairs(parent, linked, self.to[linked])
        found: IntArray = set_kernels.roots(parent)
        return found


def grid(lowest: float, above: float) -> FloatArray:
    """(L,) float32 thresholds, ascending: `lowest`, `above`, and the multiples of STEP up to 1."""
    steps = np.arange(np.ceil(lowest / STEP), np.round(1 / STEP)) * STEP
    return np.unique(np.concatenate([[lowest, above], steps[steps > lowest]]).round(6).astype(np.float32))


def links_of_sets(
    sets: IntArray, vectors: Rows, groups: IntArray, lowest: float, above: float, folder: Path, place: Place
) -> Links:
    """Links at every threshold. sets: (N,) the lowest row of each row's set at `lowest`; groups: (N, P) int32 as they
    were compared; folder: where `grouping` has put these rows."""
    size = len(sets)
    several = np.flatnonzero(np.bincount(sets, minlength=size)[sets] > 1)  # rows of sets of several
    order = several[np.argsort(sets[several], kind="stable")]
    del several
    work = folder / f"levels-{lowest!r}-{above!r}"
    if not (work / SORTED).exists():
        members = np.empty(len(order), [("row", "<i8"), ("set", "<i8"), ("groups", "<i4", groups.shape[1:])])
        members["row"], members["set"], members["groups"] = order, sets[order], groups[order]
        write_array(work / SORTED, members)
    tasks = [
        Task(
            "bunny.curate.levels:link_levels",
            {"folder": str(folder), "work": str(work), "first": first, "last": last, "lowest": lowest, "above": above},
            work / f"{first:012d}-{last:012d}.npz",
        )
        for first, last in _batches(sets[order])
    ]
    place.engine.run("thresholds", tasks)
    found = Links(np.full(size, np.nan, np.float32), np.full(size, -1), np.full(size, np.nan, np.float32), 0)
    unknown = 0
    for task in tasks:
        part = read_arrays(task.output)
        rows = order[task.arguments["first"] : task.arguments["last"]]
        found.cosine[rows], found.to[rows], found.least[rows] = part["cosine"], part["to"], part["least"]
        unknown += int(part["unknown"])
    return Links(found.cosine, found.to, found.least, unknown)


def _batches(sets: IntArray) -> Iterator[tuple[int, int]]:
    """(first, last + 1) runs of whole sets of about BATCH_ROWS rows. sets: ascending."""
    ends = np.append(np.flatnonzero(np.diff(sets)) + 1, len(sets))
    start = 0
    while start < len(sets):
        last = int(np.searchsorted(ends, start + BATCH_ROWS, side="right")) - 1
        stop = int(ends[last]) if last >= 0 and ends[last] > start else int(ends[np.searchsorted(ends, start, "right")])
        yield start, stop
        start = stop


def link_levels(folder: str, work: str, first: int, last: int, lowest: float, above: float, output: Path) -> None:
    """Task: the links of some sets' rows (`cosine`, `to`, `least`; in the order of SORTED)."""
    placed = Placed.open(folder)
    told = np.load(Path(work) / SORTED, mmap_mode="r")[first:last]
    order, set_of, groups = (np.ascontiguousarray(told[name]) for name in ("row", "set", "groups"))
    levels = grid(lowest, above)
    mark = int(np.searchsorted(levels, np.float32(above)))
    cosine, to = np.full(len(order), levels[0], np.float32), set_of.astype(np.int64)
    least = np.full(len(order), np.nan, np.float32)
    edges = np.append(np.flatnonzero(np.diff(set_of, prepend=-1)), len(order))

    def some(span: tuple[int, int]) -> None:
        vectors = placed.glance(order[span[0] : span[1]])
        own = slice(*span)
        inside = edges[(edges >= span[0]) & (edges <= span[1])] - span[0]
        known = (vectors, inside, SMALL, groups[own], levels, mark, order[own])
        set_kernels.link_small_sets(*known, cosine[own], to[own], least[own])
        for start, stop in pairwise(inside.tolist()):
            if stop - start > SMALL:
                rows = slice(span[0] + start, span[0] + stop)
                large = _Set(vectors[start:stop], groups[rows], levels, mark)
                cosine[rows], to[rows], least[rows] = large.links(order[rows])

    in_threads(some, _spans(edges))
    lone = to == order
    cosine[lone], to[lone] = np.nan, -1
    sizes = np.diff(edges)
    write_arrays(output, {"cosine": cosine, "to": to, "least": least, "unknown": int(sizes[sizes > LARGE].sum())})


def _spans(edges: IntArray) -> Iterator[tuple[int, int]]:
    """Runs of whole sets of about SPAN rows, without the sets that are too large."""
    start = int(edges[0])
    for before, edge in pairwise(edges.tolist()):
        if edge - before > LARGE:
            if before > start:
                yield start, before
            start = edge
        elif edge - start >= SPAN or edge == int(edges[-1]):
            yield start, edge
            start = edge


class _Set:
    """One set's (n, D) vectors, in order of the rows, and its sets at every threshold of the grid.

    The rows of a set are alike: as bytes of what sets them apart from their mean they are known well enough for most
    pairs.
    """

    def __init__(self, vectors: FloatArray, groups: Array, levels: FloatArray, mark: int) -> None:
        self.vectors, self.groups, self.levels, self.mark = vectors, groups, levels, mark
        self.parents = np.tile(np.arange(len(vectors), dtype=np.int64), (len(levels), 1))
        quantiser = Quantiser.around(vectors)
        encoded = quantiser.encode(vectors)
        self.codes = np.concatenate([encoded.codes, np.zeros((-len(vectors) % SHAPES, vectors.shape[1]), np.int8)])
        self.along, slack = quantiser.bounds(encoded.error, encoded.length, encoded.along)
        self.bound = slack + np.int32(np.ceil(ROUNDING * quantiser.unit))
        self.cuts = np.floor(levels.astype(np.float64) * quantiser.unit).astype(np.int64)

    def links(self, rows: IntArray) -> tuple[FloatArray, IntArray, FloatArray]:
        """(n,) cosine, to, least. rows: (n,) rows of the pool, ascending."""
        size = len(self.vectors)
        tall = len(self.codes) if size <= DENSE else TALL
        for start in range(0, size, tall):
            scores = products(self.codes[start : start + tall], self.codes[start:])
            known = (self.along, self.bound, self.cuts, self.vectors, self.groups, self.levels, self.parents)
            set_kernels.join_levels(scores, start, *known)
        least = np.full(size, np.nan, np.float32)
        if size <= DENSE:
            marked = self.parents[self.mark]
            set_kernels.least_in_set(self.vectors, marked, scores, self.along, self.bound, least)
        cosine, to = np.full(size, np.nan, np.float32), np.full(size, -1, np.int64)
        set_kernels.first_links(self.parents, self.levels, cosine, to)
        return cosine, np.where(to >= 0, rows[to], rows), least
