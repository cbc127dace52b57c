"""Linked groups: codes in order of the groups in, sets of rows linked by a likeness out. Exact within what is compared.

Compared are all rows of a group and its guests (rows near its border, see `grouping`). Codes
decide what they can decide for sure; the vectors decide the rest. `link_bucket` is the task: some groups whose rows
fit into memory together. Nothing is kept of a link but that it joins two sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import IntArray, Place, Task
from bunny.curate import set_kernels
from bunny.curate.codes import Codes, Quantiser, products
from bunny.curate.columns import Rows
from bunny.curate.grouping import Placed
from bunny.curate.work import in_threads, read_arrays, write_array, write_arrays

TALL, WIDE = 256, 1024  # rows and columns of one product of codes: what comes out stays in the cache
SHAPES = 64  # rows of products are multiples of this
BUCKET_ROWS = 131_072  # rows and guests of one task, more only if one group has more
CROWD = 8_192  # rows and guests of a group from which lumps are looked for first
LUMP = 256  # rows that one row must be linked to for sure to make a lump
MOST_LUMPS = 32
DOUBTFUL = 1 << 21  # pairs that wait for their vectors

SETS = "sets.npy"

Array = npt.NDArray[Any]


def linked_sets(vectors: Rows, folder: Path, above: float, place: Place) -> IntArray:
    """(N,) int64: the lowest row of each row's set: rows linked, directly or in a chain, by a likeness of `above`.

    folder: where `grouping` has put the codes of exactly these rows, in any order.
    """
    work = folder / f"links-{above!r}"
    if (work / SETS).exists():
        known: IntArray = np.load(work / SETS)
        return known
    placed = Placed.open(folder)
    tasks = [
        Task(
            "bunny.curate.linking:link_bucket",
            {"folder": str(folder), "first": first, "last": last, "above": above},
            work / f"{first:09d}-{last:09d}.npz",
        )
        for first, last in _buckets(_group_sizes(placed))
    ]
    place.engine.run("links", tasks)
    parent = np.arange(len(placed.position), dtype=np.int64)
    for task in tasks:
        links = read_arrays(task.output)
        set_kernels.join_pairs(parent, links["first"], links["second"])
    found: IntArray = set_kernels.roots(parent)
    write_array(work / SETS, found)
    return found


def thresholds_done(folder: Path) -> list[float]:
    """Thresholds for which the sets are known, highest first."""
    return sorted(
        (float(path.parent.name.removeprefix("links-")) for path in folder.glob(f"links-*/{SETS}")), reverse=True
    )


def _group_sizes(placed: Placed) -> IntArray:
    """(K,) rows and guests of every group."""
    total = np.zeros(0, np.int64)
    for _, _, chunk in placed.chunks():
        for name in ("codes-facts", "guests"):
            here = np.bincount(np.load(chunk / f"{name}.npy", mmap_mode="r")["group"])
            if len(here) > len(total):
                total = np.concatenate([total, np.zeros(len(here) - len(total), np.int64)])
            total[: len(here)] += here
    return total


def _buckets(count: IntArray) -> Iterator[tuple[int, int]]:
    """(first, last + 1) runs of groups of about BUCKET_ROWS rows."""
    start, rows = 0, 0
    for group, here in enumerate(count.tolist()):
        if rows and rows + here > BUCKET_ROWS:
            yield start, group
            start, rows = group, 0
        rows += here
    if rows:
        yield start, len(count)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The rows of some groups, one group after the other, guests last. codes: (n + WIDE, D), the last ones zero; start:
    where each group's rows begin, and the end. position, shift, slack: (n,), see `Quantiser.bounds`; unit: code units
    of a likeness of one."""

    codes: Codes
    start: IntArray
    position: IntArray
    shift: IntArray
    slack: IntArray
    unit: float
    threshold: np.float32
    placed: Placed


def link_bucket(folder: str, first: int, last: int, above: float, output: Path) -> None:
    """Task: links that join the sets of the groups from `first` to `last` - 1: (M,) int64 `first`, `second` rows."""
    bucket = _gather(Placed.open(folder), first, last, above)
    joined: dict[int, tuple[IntArray, IntArray]] = {}

    def one(number: int) -> None:
        joined[number] = _Room(bucket, number).links()

    in_threads(one, np.flatnonzero(np.diff(bucket.start) > 1).tolist())
    links = [joined[number] for number in sorted(joined)]
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    one_side, other_side = (np.concatenate([nothing[side], *(link[side] for link in links)]) for side in (0, 1))
    write_arrays(output, {"first": one_side, "second": other_side})


def _gather(placed: Placed, first: int, last: int, above: float) -> Bucket:
    """The rows and the guests of the groups from all chunks."""
    groups, guest, parts, runs = [], [], [], []
    for _, _, chunk in placed.chunks():
        facts = np.load(chunk / "codes-facts.npy", mmap_mode="r")
        visits = np.load(chunk / "guests.npy", mmap_mode="r")
        home, visit = (slice(*np.searchsorted(told["group"], [first, last]).tolist()) for told in (facts, visits))
        rows = np.concatenate([np.arange(home.start, home.stop), visits["place"][visit]])  # of the chunk's codes
        groups.append(np.concatenate([facts["group"][home], visits["group"][visit]]) - first)
        guest.append(np.arange(len(rows)) >= home.stop - home.start)
        parts.append(facts[rows])
        runs.append((chunk / "codes.npy", rows))
    group, facts, visiting = np.concatenate(groups), np.concatenate(parts), np.concatenate(guest)
    order = np.argsort(2 * group + visiting, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    codes, done = np.empty((len(order) + WIDE, placed.vectors.shape[1]), np.int8), 0
    codes[len(order) :] = 0
    for path, rows in runs:
        set_kernels.put_rows(np.load(path, mmap_mode="r"), rows, codes, place[done : done + len(rows)])
        done += len(rows)
    model = read_arrays(placed.folder / "centres.npz")
    quantiser = Quantiser(model["mean"], float(model["scale"]))
    shift, slack = quantiser.bounds(*(facts[name][order] for name in ("error", "length", "along")))
    start = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=last - first))])
    position = facts["position"][order]
    return Bucket(codes, start, position, shift, slack, quantiser.unit, np.float32(above), placed)


class _Room:
    """One group's rows and guests, and the sets they make among themselves."""

    def __init__(self, bucket: Bucket, number: int) -> None:
        rows = slice(int(bucket.start[number]), int(bucket.start[number + 1]))
        self.size = rows.stop - rows.start
        self.codes = bucket.codes[rows.start :]  # and some more after them: whatever stands there
        self.position, self.shift, self.slack = bucket.position[rows], bucket.shift[rows], bucket.slack[rows]
        self.parent = np.arange(self.size, dtype=np.int64)
        self.unit_threshold, self.threshold = int(np.floor(float(bucket.threshold) * bucket.unit)), bucket.threshold
        self.placed = bucket.placed
        self.doubtful = np.empty((DOUBTFUL, 2), np.int64)
        self.count = 0

    def links(self) -> tuple[IntArray, IntArray]:
        """(M,) rows of the pool each: a star for every set."""
        if self.size > CROWD:
            self._gather_lumps()
        for start in range(0, self.size, TALL):
            stop = min(start + TALL, self.size)
            for upper in range(start, stop, TALL // 2):  # half as many products below the diagonal
                self._tile(upper, min(upper + TALL // 2, stop), upper, stop)
            for column in range(stop, self.size, WIDE):
                self._tile(start, stop, column, min(column + WIDE, self.size))
        self._settle()
        root = set_kernels.roots(self.parent)
        moved = np.flatnonzero(root != np.arange(len(root)))
        return self.position[root[moved]], self.position[moved]

    def _codes(self, start: int, stop: int) -> Codes:
        """A run of rows, and some more after it. Products of ever new shapes are slow."""
        return self.codes[start : start + -(-(stop - start) // SHAPES) * SHAPES]

    def _tile(self, start: int, stop: int, other: int, other_stop: int) -> None:
        """Compare two runs of rows, unless all of them are in one set already."""
        if set_kernels.one_set(self.parent, start, stop, other, other_stop):
            return
        scores = products(self._codes(start, stop), self._codes(other, other_stop))
        if self.count > DOUBTFUL // 2:
            self._settle()
        while True:
            span = (start, stop, other, other_stop)
            known = (self.shift, self.slack, self.unit_threshold, self.parent)
            count = set_kernels.scan(scores, span, *known, self.doubtful, self.count)
            if count <= DOUBTFUL:
                break
            self.count = DOUBTFUL
            self._settle()
        self.count = count

    def _settle(self) -> None:
        """Let the vectors decide the doubtful pairs."""
        pairs = self.doubtful[: self.count]
        pairs = pairs[set_kernels.still_apart(pairs, self.parent)]
        self.count = 0
        if len(pairs):
            rows, places = np.unique(pairs, return_inverse=True)
            vectors = self.placed.glance(self.position[rows])
            set_kernels.settle(pairs, places.reshape(-1, 2), vectors, self.threshold, self.parent)

    def _gather_lumps(self) -> None:
        """Join the rows that are surely linked to a few rows, and put each such lump together: the tiles inside lumps
        are then skipped. It decides nothing that the tiles would not."""
        lump = np.full(self.size, MOST_LUMPS, np.int64)
        for number in range(MOST_LUMPS):
            free = np.flatnonzero(lump == MOST_LUMPS)
            if len(free) <= LUMP:
                break
            head = int(free[(number * 7919) % len(free)])
            scores = products(self.codes[: self.size], self.codes[head : head + 1])[:, 0].astype(np.int64)
            likeness = scores + self.shift[: self.size] + int(self.shift[head])
            sure = likeness - self.slack[: self.size] - int(self.slack[head]) > self.unit_threshold
            sure &= lump == MOST_LUMPS
            if int(sure.sum()) > LUMP:
                lump[sure] = number
        order = np.argsort(lump, kind="stable")
        self.codes = np.concatenate([self.codes[order], np.zeros((WIDE, self.codes.shape[1]), np.int8)])
        self.position, self.shift, self.slack = self.position[order], self.shift[order], self.slack[order]
        edges = np.searchsorted(lump[order], np.arange(MOST_LUMPS + 1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if stop > start:
                set_kernels.join_pairs(self.parent, np.full(stop - start, start), np.arange(start, stop))
