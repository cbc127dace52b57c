"""Spherical k-means on codes: int8 rows in, unit centres out, and each row's nearest centres.

Scores are exact integers and sums are made in the order of the sample's rows, so the groups are the same on any
machine, with any number of threads, in any blocks. Training looks at parts of a sample of the rows, one after the
other. With many centres a row is compared with the centres of its nearest cells only (a cell: neighbouring centres,
found by the same k-means).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.curate import kernels
from bunny.curate.codes import Codes, Encoded, Quantiser, products

BLOCK = 256  # rows scored at a time: their scores stay in the cache
MANY = 4096  # centres from which cells are used
FEW_CELLS = 16
SEGMENT = 32_768  # rows that look into cells together
LEAST = 32_768  # rows that any round looks at
PART = 32  # rows a centre that a round looks at, if there are more than LEAST
KEPT = (0.3, 0.8)  # share of what is known from earlier rounds that still counts in the first round, and in the last


@dataclass(frozen=True, slots=True)
class Assigned:
    """nearest: (N, P) int32 centres of each row, nearest first, -1 where there are no more. score: (N, P) int32
    likenesses in code units; only their differences within a row mean anything."""

    nearest: IntArray
    score: IntArray

    @staticmethod
    def nothing(rows: int, count: int) -> Assigned:
        return Assigned(np.full((rows, count), -1, np.int32), np.full((rows, count), kernels.LEAST, np.int32))


@dataclass(frozen=True, slots=True)
class Cells:
    """Groups of neighbouring centres. codes, bias: of the cells' own centres. start: (C + 1,) the centres of cell c are
    numbers start[c] to start[c + 1] - 1. probed: how many cells a row looks into."""

    codes: Codes
    bias: IntArray
    start: IntArray
    probed: int


@dataclass(frozen=True, slots=True)
class Centres:
    """K unit centres. unit: (K, D) float32; codes, bias: for scores, see `Quantiser`; cells: where K is large."""

    unit: FloatArray
    codes: Codes
    bias: IntArray
    cells: Cells | None = None

    @staticmethod
    def of(unit: FloatArray, quantiser: Quantiser) -> Centres:
        codes, bias = _coded(unit, quantiser)
        return Centres(unit, codes, bias)

    def with_cells(self, quantiser: Quantiser, rng: np.random.Generator) -> tuple[Centres, IntArray]:
        """The same centres in another order, so that those of a cell stand together; and that order."""
        count = len(self.unit)
        if count < MANY:
            return self, np.arange(count)
        many = int(2 ** np.round(np.log2(1.2 * np.sqrt(count))))
        heads = _rounds(quantiser.encode(self.unit), quantiser, many, rng, 10, "random")
        label = heads.assign(self.codes).nearest[:, 0]
        order = np.argsort(label, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=len(heads.unit)))])
        cells = Cells(heads.codes, heads.bias, start.astype(np.int64), min(len(heads.unit), max(FEW_CELLS, many // 8)))
        return Centres(self.unit[order], self.codes[order], self.bias[order], cells), order

    def assign(self, codes: Codes, count: int = 1) -> Assigned:
        """The nearest centres of (N, D) rows, so many of each."""
        found = Assigned.nothing(len(codes), count)
        if self.cells is None:
            _look_at_all(codes, self, found)
        else:
            for start in range(0, len(codes), SEGMENT):
                rows = slice(start, start + SEGMENT)
                _visit_cells(codes[rows], self, self.cells, Assigned(found.nearest[rows], found.score[rows]))
        return found


def train(
    encoded: Encoded,
    quantiser: Quantiser,
    groups: int,
    rng: np.random.Generator,
    iterations: int = 20,
    start: Literal["spread", "random"] = "spread",
) -> Centres:
    """At most `groups` centres of the sample's N rows, which stand in random order. Each round looks at the next part
    of them; what earlier rounds saw counts too, the longer ago the less. On a million rows in 1,000 groups that fits as
    well after 384 rows a centre as rounds of all that a growing sample has after 800. Where a round looks at all rows
    only these count, as in Lloyd's rounds, and it stops early once no row changes its group.

    start: "spread" is k-means++ (better, costs one pass per group), "random" takes rows (for very many groups). A group
    that runs empty restarts at the row that fits its own group worst. Source: Dhillon & Modha 2001; parts as in
    Sculley 2010; k-means++ of Arthur & Vassilvitskii 2007.
    """
    return _rounds(encoded, quantiser, min(groups, len(encoded.codes)), rng, iterations, start, cells=True)


def _rounds(
    encoded: Encoded,
    quantiser: Quantiser,
    groups: int,
    rng: np.random.Generator,
    iterations: int,
    start: str,
    cells: bool = False,
) -> Centres:
    size, columns = encoded.codes.shape
    if not groups:
        return Centres.of(np.empty((0, columns), np.float32), quantiser)
    chosen = rng.choice(size, groups, replace=False) if start == "random" else _spread(encoded.codes, groups, rng)
    centres = Centres.of(_unit(_decoded(encoded.codes[np.sort(chosen)], quantiser)), quantiser)
    parts = max(1, size // max(LEAST, PART * groups))
    part = -(-size // parts)
    sums, count = np.zeros((groups, columns)), np.zeros(groups)
    before: IntArray = np.empty(0, np.int32)
    for number in range(iterations):
        first = number % parts * part
        codes, along = encoded.codes[first : first + part], encoded.along[first : first + part]
        if cells:
            centres, order = centres.with_cells(quantiser, rng)
            sums, count = sums[order], count[order]
        best = centres.assign(codes)
        label = best.nearest[:, 0]
        if parts == 1 and np.array_equal(label, before):
            break
        before = label
        kept = 0.0 if parts == 1 else KEPT[0] + (KEPT[1] - KEPT[0]) * number / max(1, iterations - 1)
        sums *= kept
        count *= kept
        centres = _moved(codes, label, best.score[:, 0] / quantiser.unit + along, quantiser, sums, count)
    return centres.with_cells(quantiser, rng)[0] if cells else centres


def _moved(
    codes: Codes, label: IntArray, fit: FloatArray, quantiser: Quantiser, sums: FloatArray, count: FloatArray
) -> Centres:
    """The groups' unit means; an empty group moves to the worst-fitting rows, worst first.

    fit: (N,) likeness of every row to its centre, as far as codes tell it. sums, count: (K, D) and (K,) float64 of
    earlier rows; the rows of `codes` are added."""
    kernels.add_codes(codes, label, sums, count)
    empty = np.flatnonzero(count < 0.5)
    if len(empty):
        worst = np.argsort(fit, kind="stable")[: len(empty)]
        sums[empty[: len(worst)]], count[empty] = codes[worst], 1
    means = sums / count[:, None] / quantiser.scale + quantiser.mean
    return Centres.of(_unit(means), quantiser)


def _look_at_all(codes: Codes, centres: Centres, found: Assigned) -> None:
    for rows in _slices(len(codes)):
        kernels.best_columns(products(codes[rows], centres.codes), centres.bias, found.nearest[rows], found.score[rows])


def _visit_cells(codes: Codes, centres: Centres, cells: Cells, found: Assigned) -> None:
    """Every cell sees, at once, all rows that look into it. found: written to."""
    size = len(codes)
    probed = np.empty((size, cells.probed), np.int32)
    for rows in _slices(size):
        kernels.best_cells(products(codes[rows], cells.codes), cells.bias, probed[rows])
    visits = np.argsort(probed.ravel(), kind="stable")
    edges = np.searchsorted(probed.ravel()[visits], np.arange(len(cells.codes) + 1))
    for cell in np.flatnonzero(np.diff(edges)):
        own = slice(int(cells.start[cell]), int(cells.start[cell + 1]))
        names = np.arange(own.start, own.stop, dtype=np.int32)
        visitors = visits[edges[cell] : edges[cell + 1]] // cells.probed
        for part in _slices(len(visitors)):
            some = visitors[part]
            scores = products(codes[some], centres.codes[own])
            kernels.merge_best(scores, centres.bias[own], names, some, found.nearest, found.score)


def _spread(codes: Codes, groups: int, rng: np.random.Generator) -> IntArray:
    """k-means++ starts: (K,) rows, each drawn with chance growing with the squared distance to those drawn before."""
    square = np.einsum("nd,nd->n", codes, codes, dtype=np.int64)
    chosen = [int(rng.integers(len(codes)))]
    distance = np.full(len(codes), np.iinfo(np.int64).max)
    for _ in range(groups - 1):
        last = chosen[-1]
        product = products(codes, codes[last : last + 1])[:, 0]
        distance = np.minimum(distance, square + square[last] - 2 * product.astype(np.int64))
        total = distance.cumsum()
        if total[-1] <= 0:  # only copies of chosen rows are left
            free = np.setdiff1d(np.arange(len(codes)), chosen)
            return np.array(chosen + list(free[: groups - len(chosen)]))
        chosen.append(int(np.searchsorted(total, int(rng.integers(total[-1])), side="right")))
    return np.array(chosen)


def _coded(unit: FloatArray, quantiser: Quantiser) -> tuple[Codes, IntArray]:
    """Codes and (K,) int32 biases of centres: x·c = y·z + x·m + m·z with x = m + y, c = m + z; x·m is the row's own."""
    codes = quantiser.encode(unit).codes
    towards = ((unit.astype(np.float64) - quantiser.mean) * quantiser.mean).sum(1)  # no BLAS: threads would show
    return codes, np.rint(towards * quantiser.unit).astype(np.int32)


def _decoded(codes: Codes, quantiser: Quantiser) -> FloatArray:
    decoded: FloatArray = codes / np.float64(quantiser.scale) + quantiser.mean
    return decoded


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: FloatArray = (rows / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def _slices(size: int) -> Iterator[slice]:
    for start in range(0, size, BLOCK):
        yield slice(start, min(size, start + BLOCK))
