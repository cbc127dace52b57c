"""Duplicate groups for the report: how large, how stretched, and the chains that hold the most stretched together.

In: a step's run that has a `component` column, the pool's vectors. Out: charts and cards. Lowest cosines inside groups
are the step's own (`least_cosine`); of a step that gives none they are worked out for the largest groups and a draw of
the others, up to a number of rows; the page says how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.curate import charts
from bunny.curate.columns import Rows
from bunny.curate.engine import Selection, StepRun
from bunny.curate.explore.groups import Groups, grid_of, removed
from bunny.curate.report_wall import Wall

SHOWN, MEMBERS, CHAINS, LINKS = 10, 8, 5, 7  # groups, their pictures; chains, their pictures
CLOSE = 1e-5  # cosines nearer than this to the threshold count as at it
CHECKED_GROUPS, CHECKED_ROWS, CHECKED_MEMBERS = 400, 40_000, 300
BINS = (("2", 2, 2), ("3", 3, 3), ("4", 4, 4), ("5", 5, 5), ("6–10", 6, 10), ("11–20", 11, 20), ("21+", 21, 1 << 62))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A group's lowest cosine. place: of the group; ends: its two least alike rows; path: from one to the other by
    links of at least the threshold (just the ends where only a part of a huge group was looked at)."""

    place: int
    lowest: float
    path: IntArray
    links: tuple[float, ...]


def duplicate_groups(selection: Selection, run: StepRun, wall: Wall) -> dict[str, Any]:
    """Everything the page shows of one step's groups."""
    columns = run.decision.columns
    cosine = np.where(run.decision.keep, np.nan, columns.get("twin_cosine", np.full(len(run.rows), np.nan)))
    groups = Groups.of(columns["component"].astype(np.int64), run.decision.keep, cosine, smallest=2)
    above = threshold(run)  # None: no chart that speaks of it
    told = _told(run, groups)
    places = np.argsort(told, kind="stable")[:CHAINS] if told is not None else _some(groups, wall.rng)
    stretches = _stretches(selection, run, groups, places, above, wall.rng)
    lowest = told if told is not None else np.array([one.lowest for one in stretches])
    charted = [_sizes(groups)]
    if above is not None and len(lowest):
        charted.append(_diameters(lowest[np.isfinite(lowest)], groups, above))
    if above is not None and "link_cosine" in columns:
        charted.insert(0, _curve(run, above))
    return {
        "label": run.planned.label,
        "charts": [chart for chart in charted if chart["drawing"]],
        "groups": _shown(run, groups, cosine, wall),
        "chains": _chains(run, stretches, above, wall),
        "above": above,
        "figures": _figures(run, groups, above, cosine),
    }


def threshold(run: StepRun) -> float | None:
    """The step's cosine threshold, if it has one."""
    above = getattr(run.planned.step, "above", None)
    return float(above) if isinstance(above, int | float) else None


def _figures(run: StepRun, groups: Groups, above: float | None, cosine: FloatArray) -> list[dict[str, str]]:
    """Numbers with a word about each: what chaining takes away, and what is left."""
    found = []
    if above is not None and len(groups.label):
        gone = groups.rows[~run.decision.keep[groups.rows]]
        far = int((cosine[gone] < above - CLOSE).sum())
        words = f"of the removed pictures ({far:,} of {len(gone):,}) are less like the one that stays than {above:g}: "
        words += "they hang on others, which hang on it"
        found.append({"value": f"{100 * far / max(1, len(gone)):.1f} %", "words": words})
    notes = run.decision.notes
    if "left" in notes:
        words = "of the removable duplicates are left, by estimate"
        if {"left_low", "left_high"} <= set(notes):
            words += f" (95 % interval {100 * notes['left_low']:.1f} to {100 * notes['left_high']:.1f} %)"
        if "left_rows" in notes:
            words += f", from {notes['left_rows']:,} pictures compared with all"
        found.append({"value": f"{100 * notes['left']:.1f} %", "words": words})
    return found


def _curve(run: StepRun, above: float) -> dict[str, str]:
    links = np.asarray(run.decision.columns["link_cosine"])
    grid = grid_of(links, above)
    if not len(grid):
        return {"title": "", "drawing": "", "text": ""}
    counts = removed(links, grid).tolist()
    at = int(removed(links, np.array([above]))[0])
    drawing = charts.curve(
        grid.tolist(),
        counts,
        above,
        ("cosine from which two pictures count as linked", "pictures removed"),
        f"Pictures removed by {run.planned.label} at thresholds from {grid[0]:.2f} to {grid[-1]:.2f}",
    )
    text = f"At the threshold used, {above:g}, {at:,} of {len(run.rows):,} go."
    return {"title": "Near duplicates by threshold", "drawing": drawing, "text": text}


def _sizes(groups: Groups) -> dict[str, str]:
    counts = [int(((groups.size >= low) & (groups.size <= high)).sum()) for _, low, high in BINS]
    names = [name for name, _, _ in BINS]
    alt = "How many groups of each size: " + ", ".join(f"{name}: {n}" for name, n in zip(names, counts, strict=True))
    drawing = charts.columns(names, counts, ("pictures in the group", "groups"), alt) if sum(counts) else ""
    text = f"{len(groups.label):,} groups; the largest has {int(groups.size.max(initial=0)):,} pictures."
    return {"title": "Sizes of duplicate groups", "drawing": drawing, "text": text}


def _diameters(lowest: FloatArray, groups: Groups, above: float) -> dict[str, str]:
    """How unlike the least alike two of a group are; those below the threshold hold together by a chain only."""
    chained = lowest < above - CLOSE
    drawing = charts.histogram_of(
        lowest[~chained], lowest[chained], None, ("lowest cosine in the group", "groups"), "Lowest cosines in groups"
    )
    which = "the groups" if len(lowest) == len(groups.label) else f"{len(lowest):,} groups looked at"
    text = f"Strong: all pairs reach {above:g}. Pale: some are linked only by others between them, in "
    text += f"{int(chained.sum()):,} of {which}."
    return {"title": "How stretched the groups are", "drawing": drawing, "text": text}


def _told(run: StepRun, groups: Groups) -> FloatArray | None:
    """(G,) lowest cosine in each group as the step tells it, NaN where it does not; None if it never does."""
    if "least_cosine" not in run.decision.columns or not len(groups.label):
        return None
    least = np.asarray(run.decision.columns["least_cosine"], dtype=np.float64)[groups.rows]
    lowest: FloatArray = np.fmin.reduceat(least, groups.start[:-1])
    return lowest if bool(np.isfinite(lowest).any()) else None


def _some(groups: Groups, rng: np.random.Generator) -> IntArray:
    """Places of the largest groups and of a draw of the others."""
    largest = groups.order("size")[: CHECKED_GROUPS // 2]
    rest = np.setdiff1d(np.arange(len(groups.label)), largest)
    drawn = np.sort(rng.choice(rest, min(CHECKED_GROUPS - len(largest), len(rest)), replace=False))
    return np.concatenate([largest, drawn]).astype(np.int64)


def _stretches(
    selection: Selection,
    run: StepRun,
    groups: Groups,
    places: IntArray,
    above: float | None,
    rng: np.random.Generator,
) -> list[Stretch]:
    """Lowest cosines of some groups, and the ways between their ends."""
    vectors = Rows.of(selection.pool[getattr(run.planned.step, "vectors", "visual")])
    found, read = [], 0
    for place in places.tolist():
        members = groups.members(place)
        whole = len(members) <= CHECKED_MEMBERS
        if not whole:
            members = np.sort(rng.choice(members, CHECKED_MEMBERS, replace=False))
        read += len(members)
        if read > CHECKED_ROWS:
            break
        likeness = _cosines(vectors.read(run.rows[members]))
        one, other = np.unravel_index(int(likeness.argmin()), likeness.shape)
        path = _path(likeness, int(one), int(other), above) if above is not None and whole else []
        path = path or [int(one), int(other)]
        links = tuple(float(likeness[a, b]) for a, b in pairwise(path))
        found.append(Stretch(place, float(likeness[one, other]), members[path], links))
    return found


def _cosines(rows: FloatArray) -> FloatArray:
    """(n, n) cosines of n unit rows."""
    likeness: FloatArray = rows @ rows.T
    return likeness


def _path(likeness: FloatArray, start: int, end: int, above: float) -> list[int]:
    """The shortest way from one member to another by links of at least `above`; empty if there is none."""
    before = {start: start}
    open_ends = deque([start])
    while open_ends and end not in before:
        here = open_ends.popleft()
        for other in np.flatnonzero(likeness[here] >= above - CLOSE):
            if int(other) not in before:
                before[int(other)] = here
                open_ends.append(int(other))
    if end not in before:
        return []
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _shown(run: StepRun, groups: Groups, cosine: FloatArray, wall: Wall) -> list[dict[str, Any]]:
    """The largest groups and a draw of the others: members from the kept one outwards."""
    largest = groups.order("size")[: SHOWN // 2]
    rest = np.setdiff1d(np.arange(len(groups.label)), largest)
    others = np.sort(wall.rng.choice(rest, min(SHOWN - len(largest), len(rest)), replace=False))
    found = []
    for place in np.concatenate([largest, others]).astype(int):
        members = groups.members(place)
        ranked = members[np.argsort(-np.nan_to_num(cosine[members], nan=2.0), kind="stable")]
        shown = [*ranked[: MEMBERS - 2], *ranked[MEMBERS - 2 :][-2:]]  # the nearest and the farthest
        notes = ["stays" if run.decision.keep[row] else f"{cosine[row]:.3f}" for row in shown]
        low = float(groups.lowest[place])
        cards = wall.cards(run.rows[shown], notes)
        found.append({"size": len(members), "lowest": low if np.isfinite(low) else None, "cards": cards})
    return found


def _chains(run: StepRun, stretches: Sequence[Stretch], above: float | None, wall: Wall) -> list[dict[str, Any]]:
    """The most stretched groups, as the way from one end to the other."""
    if above is None:
        return []
    worst = sorted((one for one in stretches if one.lowest < above - CLOSE), key=lambda one: (one.lowest, one.place))
    found = []
    for one in worst[:CHAINS]:
        rows, notes = one.path, ["", *(f"← {link:.3f}" for link in one.links)]
        if len(rows) > LINKS:
            some = [*range(LINKS - 3), *range(len(rows) - 3, len(rows))]
            rows, notes = rows[some], [notes[place] for place in some]
        cards = wall.cards(run.rows[rows], notes)
        found.append({"lowest": one.lowest, "length": len(one.path), "cards": cards})
    return found
