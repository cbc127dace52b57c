"""From the answers of all finished cells to what can be said: scores, paired differences, what they can be trusted for.

In: results of cells. Out: `Score`s of each selection at each share, and `Comparison`s with the reference selections at
equal budget: same seeds, same questions. The chances are corrected for how many comparisons there are (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bunny.core.types import FloatArray
from bunny.evaluate.stats import LEVEL, holm
from bunny.evaluate.verdict import chance_text
from bunny.study.cells import Cell
from bunny.study.measures import MEASURES, Measure, Row, points
from bunny.study.recipe import BASE
from bunny.study.statistics import Estimate, Spread, estimate, pooled_spread


@dataclass(frozen=True)
class Result:
    """A finished cell. facts: of its manifest; rows: its answers, by task."""

    cell: Cell
    facts: Mapping[str, Any]
    rows: Mapping[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared: a selection at a share (None: all that it leaves), with one size of model."""

    selection: str
    share: float | None
    size: str

    @staticmethod
    def of(cell: Cell) -> Arm:
        return Arm(cell.selection, cell.share, cell.size)

    @property
    def title(self) -> str:
        """
        >>> Arm("only dedup", 0.25, "base").title
        'only dedup, 25 %'
        """
        share = "" if self.share is None else f", {100 * self.share:g} %"
        return f"{self.selection}{share}" + (f", {self.size}" if self.size != BASE else "")


@dataclass(frozen=True)
class Score:
    """An arm on a task by a measure."""

    arm: Arm
    task: str
    measure: Measure
    seeds: tuple[int, ...]
    estimate: Estimate

    def as_json(self) -> dict[str, Any]:
        return {**_named(self.arm), "task": self.task, "measure": self.measure, **_told(self.seeds, self.estimate)}


@dataclass(frozen=True)
class Comparison:
    """An arm minus its reference. corrected: p among all comparisons by the study's measure; None for the other one."""

    arm: Arm
    reference: Arm
    task: str
    measure: Measure
    seeds: tuple[int, ...]
    estimate: Estimate
    corrected: float | None = None

    @property
    def mark(self) -> str:
        """better, worse, or unsure."""
        if self.corrected is None or self.corrected >= 1 - LEVEL:
            return "unsure"
        return "better" if self.estimate.mean > 0 else "worse"

    @property
    def words(self) -> str:
        """Whether the difference can be trusted."""
        found = self.estimate
        seeds = "seed" if len(self.seeds) == 1 else "seeds"
        way = "above" if found.mean >= 0 else "below"
        said = (
            f"{self.arm.title} is {abs(found.mean):.1f} points {way} {self.reference.title} "
            f"(95 % interval of the difference {found.low:+.1f} to {found.high:+.1f}, {len(self.seeds)} {seeds})"
        )
        if len(self.seeds) == 1:
            return f"{said}: one training tells nothing of the next."
        chance = f"p {chance_text(self.corrected if self.corrected is not None else found.p)}"
        if self.mark != "unsure":
            return f"{said}, {chance} after correction: this can be trusted."
        return (
            f"{said}, {chance}: this could be chance. A true difference of {found.detectable:.1f} points would be "
            "found in four of five such studies."
        )

    def as_json(self) -> dict[str, Any]:
        return {
            **_named(self.arm),
            "reference": self.reference.title,
            "task": self.task,
            "measure": self.measure,
            **_told(self.seeds, self.estimate),
            "p_corrected": self.corrected,
            "mark": self.mark,
            "words": self.words,
        }


def scores_of(results: Sequence[Result]) -> list[Score]:
    """Every arm on every task, by every measure that the task allows."""
    found = []
    for arm, some in by_arm(results).items():
        for task in some[0].rows:
            for measure in MEASURES:
                values = [points(one.rows[task], measure) for one in some]
                if known := [one for one in values if one is not None]:
                    seeds = tuple(one.cell.seed for one in some)
                    found.append(Score(arm, task, measure, seeds, estimate(np.stack(known), _groups(some[0], task))))
    return found


def comparisons_of(results: Sequence[Result], against: Sequence[str], tested: Measure) -> list[Comparison]:
    """Every arm against every reference that is there, at its own share or whole, over the seeds that both have."""
    arms = by_arm(results)
    found = []
    for arm, reference in _pairs(list(arms), against):
        for task in arms[arm][0].rows:
            for measure in MEASURES:
                paired = paired_points(arms[arm], arms[reference], task, measure)
                if paired is not None:
                    seeds, values = paired
                    spread = _spread(arms, arm, seeds, task, measure)
                    told = estimate(values, _groups(arms[arm][0], task), spread)
                    found.append(Comparison(arm, reference, task, measure, seeds, told))
    return _corrected(found, tested)


def by_arm(results: Sequence[Result]) -> dict[Arm, list[Result]]:
    """The results of each arm, in order of their seeds."""
    found: dict[Arm, list[Result]] = {}
    for result in sorted(results, key=lambda one: one.cell.seed):
        found.setdefault(Arm.of(result.cell), []).append(result)
    return found


def paired_points(
    one: Sequence[Result], other: Sequence[Result], task: str, measure: Measure
) -> tuple[tuple[int, ...], FloatArray] | None:
    """(seeds, (S, N) points of one minus the other's) on the seeds that both have; None if there are none."""
    there = {result.cell.seed: result for result in other}
    seeds, values = [], []
    for result in one:
        second = there.get(result.cell.seed)
        if second is None:
            continue
        a, b = points(result.rows[task], measure), points(second.rows[task], measure)
        if a is not None and b is not None:
            seeds.append(result.cell.seed)
            values.append(a - b)
    return (tuple(seeds), np.stack(values)) if values else None


def _spread(
    arms: Mapping[Arm, Sequence[Result]], arm: Arm, seeds: tuple[int, ...], task: str, measure: Measure
) -> Spread | None:
    """How much trainings differ, from all arms with the arm's size that have these seeds; None for one seed."""
    if len(seeds) < 2:
        return None
    means = []
    for other, some in arms.items():
        of_seed = {result.cell.seed: points(result.rows[task], measure) for result in some}
        values = [of_seed.get(seed) for seed in seeds]
        known = [float(one.mean()) for one in values if one is not None]
        if other.size == arm.size and len(known) == len(seeds):
            means.append(known)
    return pooled_spread(np.array(means))


def _pairs(arms: Sequence[Arm], against: Sequence[str]) -> Iterator[tuple[Arm, Arm]]:
    """Each arm with its references; two references are compared once."""
    for arm in arms:
        for place, name in enumerate(against):
            if arm.selection in against and against.index(arm.selection) >= place:
                continue
            of_size = [one for one in arms if one.selection == name and one.size == arm.size]
            same = [one for one in of_size if one.share == arm.share]
            yield from ((arm, one) for one in (same or [one for one in of_size if one.share is None]))


def _corrected(found: Sequence[Comparison], tested: Measure) -> list[Comparison]:
    """With Holm's correction among those of several seeds by the tested measure."""
    places = [n for n, one in enumerate(found) if one.measure == tested and len(one.seeds) > 1]
    chances = dict(zip(places, holm([found[n].estimate.p for n in places]), strict=True))
    return [replace(one, corrected=chances.get(n)) for n, one in enumerate(found)]


def _groups(result: Result, task: str) -> list[str]:
    return [str(row["group"]) for row in result.rows[task]]


def _named(arm: Arm) -> dict[str, Any]:
    return {"arm": arm.title, "selection": arm.selection, "share": arm.share, "size": arm.size}


def _told(seeds: Sequence[int], found: Estimate) -> dict[str, Any]:
    return {"seeds": list(seeds), **found.as_json()}
