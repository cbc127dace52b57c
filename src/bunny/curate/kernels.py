"""The inner loops of curation, compiled by numba and cached. Every loop goes over rows in order, in one thread, without
reordered sums: blocks, threads and machines do not show in the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LEAST = np.int32(-2147483647)
RUN = 128  # numbers that are looked through together


@njit(cache=True, nogil=True, fastmath=True)
def unit_rows(rows: Any) -> None:
    """Scale (N, D) float32 rows to length one, in place. Zero rows become NaN."""
    for i in range(rows.shape[0]):
        row = rows[i]
        total = np.float64(0)
        for j in range(row.shape[0]):
            value = np.float64(row[j])
            total += value * value
        scale = np.float32(1.0 / np.sqrt(total)) if total != 0 else np.float32(np.nan)
        for j in range(row.shape[0]):
            row[j] *= scale


@njit(cache=True, nogil=True)
def widen(halves: Any, chosen: Any, rows: Any, places: Any) -> None:
    """Row chosen[n] of (M, D) float16 numbers, given by their bits as uint16, into row places[n] of float32 `rows`. Ten
    times as fast as numpy: the bits are moved into place, and the exponent is mended by a product."""
    for i in range(chosen.shape[0]):
        narrow, wide = halves[chosen[i]], rows[places[i]]
        bits = wide.view(np.uint32)
        odd = np.uint16(0)
        for j in range(narrow.shape[0]):
            half = np.uint32(narrow[j])
            bits[j] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))
            odd = max(odd, narrow[j] & np.uint16(0x7C00))
        for j in range(wide.shape[0]):
            wide[j] *= np.float32(2.0**112)
        if odd == np.uint16(0x7C00):  # infinity or no number at all
            for j in range(wide.shape[0]):
                if narrow[j] & np.uint16(0x7C00) == np.uint16(0x7C00):
                    wide[j] = np.float32(np.nan) if narrow[j] & np.uint16(0x3FF) else wide[j] * np.float32(np.inf)


@njit(cache=True, nogil=True, fastmath=True)
def encode(rows: Any, mean: Any, scale: Any, codes: Any, error: Any, length: Any, along: Any) -> None:
    """int8 codes of (N, D) float32 rows: round((row - mean) * scale), cut at ±127.

    Out, per row: error: length of what the code leaves out; length: of the centred row; along: row · mean.
    """
    step = np.float32(1) / scale
    for i in range(rows.shape[0]):
        missed = np.float32(0)
        total = np.float32(0)
        product = np.float32(0)
        for j in range(rows.shape[1]):
            centred = rows[i, j] - mean[j]
            code = np.rint(min(max(centred * scale, np.float32(-127)), np.float32(127)))
            codes[i, j] = np.int8(code)
            rest = centred - code * step
            missed += rest * rest
            total += centred * centred
            product += rows[i, j] * mean[j]
        error[i], length[i], along[i] = np.sqrt(missed), np.sqrt(total), product


@njit(cache=True, nogil=True)
def best_columns(scores: Any, bias: Any, found: Any, tops: Any) -> None:
    """The best columns of (N, K) int32 scores plus (K,) bias into (N, P) `found`, best first, their scores into (N, P)
    `tops`. Of equal ones the lower column. `scores` is spoilt. -1 and LEAST where there is no other column."""
    columns, wanted = scores.shape[1], found.shape[1]
    most = np.empty(-(-columns // RUN), np.int32)  # the largest of every run of columns: only that run is looked into
    for i in range(scores.shape[0]):
        row = scores[i]
        for j in range(columns):
            row[j] += bias[j]
        for run in range(most.shape[0]):
            most[run] = most_of(row[run * RUN : run * RUN + RUN])
        for place in range(wanted):
            if place >= columns:
                found[i, place], tops[i, place] = -1, LEAST
                continue
            run = _place_of(most, most_of(most))
            line = row[run * RUN : run * RUN + RUN]
            best = _place_of(line, most[run])
            found[i, place], tops[i, place] = run * RUN + best, line[best]
            if place + 1 < wanted:
                line[best] = LEAST
                most[run] = most_of(line)


@njit(cache=True, nogil=True)
def most_of(line: Any) -> Any:
    """The largest of some int32 numbers; of RUN of them in a tenth of the time: a length that the compiler knows."""
    most = LEAST
    if line.shape[0] == RUN:
        for j in range(RUN):
            most = max(most, line[j])
    else:
        for j in range(line.shape[0]):
            most = max(most, line[j])
    return most


@njit(cache=True, nogil=True)
def _place_of(line: Any, value: Any) -> Any:
    """Where a value that is there stands first."""
    place = 0
    while line[place] != value:
        place += 1
    return place


@njit(cache=True, nogil=True)
def merge_best(scores: Any, bias: Any, names: Any, rows: Any, found: Any, tops: Any) -> None:
    """Bring (n, k) int32 scores of some rows and some columns into the rows' best so far.

    bias, names: (k,) of the columns; rows: (n,) places in (N, P) found (column names, best first, -1 none) and tops.
    Of equal scores the lower name wins, so the order of the calls does not show.
    """
    last = found.shape[1] - 1
    for i in range(scores.shape[0]):
        at = rows[i]
        row, best, top = scores[i], found[at], tops[at]
        for start in range(0, row.shape[0], 32):
            stop = min(start + 32, row.shape[0])
            most = LEAST
            for j in range(start, stop):
                row[j] += bias[j]
                most = max(most, row[j])
            if most < top[last]:
                continue
            for j in range(start, stop):
                score, name = row[j], names[j]
                place = last + 1
                while place > 0 and (
                    score > top[place - 1]
                    or best[place - 1] < 0
                    or (score == top[place - 1] and name < best[place - 1])
                ):
                    place -= 1
                if place > last:
                    continue
                for after in range(last, place, -1):
                    best[after], top[after] = best[after - 1], top[after - 1]
                best[place], top[place] = name, score


@njit(cache=True, nogil=True)
def best_cells(scores: Any, bias: Any, cells: Any) -> None:
    """(N, P) int32 columns of the P best of (N, C) int32 scores plus (C,) bias, best first; of equal ones the lower."""
    wanted = cells.shape[1]
    tops = np.empty(wanted, np.int32)
    for i in range(scores.shape[0]):
        tops[:] = LEAST
        cells[i, :] = -1
        for j in range(scores.shape[1]):
            score = scores[i, j] + bias[j]
            if score > tops[wanted - 1] or cells[i, wanted - 1] < 0:
                place = wanted - 1
                while place > 0 and (cells[i, place - 1] < 0 or score > tops[place - 1]):
                    tops[place], cells[i, place] = tops[place - 1], cells[i, place - 1]
                    place -= 1
                tops[place], cells[i, place] = score, j


@njit(cache=True, nogil=True)
def add_codes(codes: Any, label: Any, sums: Any, count: Any) -> None:
    """Add each of (N, D) int8 rows, in order, to row `label[n]` of (K, D) float64 sums, and count it."""
    for i in range(codes.shape[0]):
        total = sums[label[i]]
        count[label[i]] += 1
        for j in range(codes.shape[1]):
            total[j] += codes[i, j]


@njit(cache=True, nogil=True)
def add_rows(rows: Any, label: Any, sums: Any) -> None:
    """Add each of (N, D) float32 rows to row `label[n]` of (K, D) float64 sums, in order."""
    for i in range(rows.shape[0]):
        total = sums[label[i]]
        for j in range(rows.shape[1]):
            total[j] += rows[i, j]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def apart(centres: Any, first: Any, second: Any, found: Any) -> None:
    """(N,) float32 distances of centres first[n] and second[n]; infinite where second[n] is -1."""
    for i in range(first.shape[0]):
        if second[i] < 0:
            found[i] = np.float32(np.inf)
            continue
        one, other = centres[first[i]], centres[second[i]]
        total = np.float32(0)
        for j in range(one.shape[0]):
            step = one[j] - other[j]
            total += step * step
        found[i] = np.sqrt(total)


@njit(cache=True, nogil=True, fastmath=True)
def row_dots(rows: Any, others: Any, which: Any, found: Any) -> None:
    """found[n] = rows[n] · others[which[n]], float32."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        other = others[which[i]]
        for j in range(rows.shape[1]):
            total += rows[i, j] * other[j]
        found[i] = total
