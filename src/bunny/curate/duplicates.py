"""Near duplicates of a pool: vectors and groups in; linked sets, links at every threshold, and an estimate of what was
missed out. Finished work in the place's folder is used again, also by other thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.types import FloatArray, IntArray, Place
from bunny.curate import kernels
from bunny.curate.columns import Rows
from bunny.curate.grouping import code_rows
from bunny.curate.levels import Links, links_of_sets
from bunny.curate.linking import linked_sets, thresholds_done
from bunny.curate.missed import estimate_missed

PAIRS = 2_048  # compared at a time: their vectors stay in the cache


@dataclass(frozen=True, slots=True)
class Duplicates:
    """sets: (N,) int64 the lowest row of each row's set. links: see `levels.Links`. notes: figures for the report."""

    sets: IntArray
    links: Links
    notes: Mapping[str, Any]


def find_duplicates(
    vectors: Rows, groups: IntArray, above: float, lowest: float, rng: np.random.Generator, place: Place
) -> Duplicates:
    """Sets linked by cosines of at least `above`; links from `lowest` upwards. groups: (N, P) int32: compared are rows
    that share one of theirs; -1 is none."""
    folder = code_rows(vectors, groups, place)
    links = _links(vectors, groups, folder, above, lowest, place)
    sets = links.sets(above)
    missed = estimate_missed(vectors, sets, folder, above, rng, place)
    return Duplicates(sets, links, {**missed, "unrefined": links.unknown})


def _links(vectors: Rows, groups: IntArray, folder: Path, above: float, lowest: float, place: Place) -> Links:
    """Links from the sets at `lowest`, or at a lower threshold for which the products have been made already."""
    for start in [*(done for done in thresholds_done(folder) if done < lowest), lowest, above]:
        sets = linked_sets(vectors, folder, start, place)
        links = links_of_sets(sets, vectors, groups, start, above, folder, place)
        if not links.unknown or start == above:  # sets too large to be looked into are known at `start` only
            break
    weak = links.cosine < np.float32(lowest)
    return Links(
        np.where(weak, np.float32(np.nan), links.cosine), np.where(weak, -1, links.to), links.least, links.unknown
    )


def row_cosine(vectors: Rows, rows: IntArray, other: IntArray) -> FloatArray:
    """(N,) float32: the cosine of each of `rows` to row `other[row]`, NaN elsewhere."""
    cosine = np.full(len(vectors), np.nan, np.float32)
    for start in range(0, len(rows), PAIRS):
        some = rows[start : start + PAIRS]
        partners, which = np.unique(other[some], return_inverse=True)
        found = np.empty(len(some), np.float32)
        kernels.row_dots(vectors.glance(some), vectors.read(partners), which, found)
        cosine[some] = found
    return cosine
