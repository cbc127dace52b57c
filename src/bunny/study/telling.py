"""The parts of the report that look into the data: conclusion in words, influence, what pollution each step found.

In: comparisons, results, what the cells share. Out: plain trees, as the report's templates and `report.json` take them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bunny.curate.plan import plan
from bunny.study.asking import benchmarks_of
from bunny.study.cells import Cell
from bunny.study.findings import Arm, Comparison, Result, by_arm
from bunny.study.influence import Nearness, flips, gains
from bunny.study.pictures import fates_of, held_out, thumbs
from bunny.study.pollution import found_by
from bunny.study.recipe import Study, steps_of
from bunny.study.shared import Shared

MOST = 6  # words listed at each end


def conclusion(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """Whether the gains can be trusted, in sentences: what is sure first, then the written selections."""
    tested = [one for one in comparisons if one.measure == study.measure]
    sure = [one for one in tested if one.mark != "unsure"]
    rest = [one for one in tested if one.mark == "unsure" and one.arm.selection in study.selections]
    told = (
        f"{len(tested)} comparisons by {study.measure}, corrected by Holm's method: {len(sure)} differences are sure."
    )
    return [told, *(f"{one.task}: {one.words}" for one in (*sure, *rest))]


def influence_of(shared: Shared, results: Sequence[Result]) -> list[dict[str, Any]]:
    """For each arm beside the first reference at its share: words that gain and lose, questions that flipped."""
    study = shared.study
    questions = [question for one in benchmarks_of(study) for question in one.questions()]
    near = Nearness(shared, questions)
    arms = by_arm(results)
    found = []
    for arm, some in arms.items():
        reference = _reference(arm, list(arms), study.against)
        if reference is None:
            continue
        for task in some[0].rows:
            words = gains(some, arms[reference], task, study.measure)
            told: dict[str, Any] = {"arm": arm.title, "reference": reference.title, "task": task, "words": words}
            if arm.selection in study.selections:
                told |= _flips(shared, some, arms[reference], task, near)
            found.append({**told, "best": words[:MOST], "worst": words[::-1][:MOST]})
    return found


def pollution_of(shared: Shared, results: Sequence[Result]) -> list[dict[str, Any]]:
    """For each selection with steps: what each of them found of what was spoilt, with the first seed."""
    if shared.study.pollute is None:
        return []
    found = []
    cells: dict[str, Cell] = {}
    for result in results:
        cells.setdefault(result.cell.selection, result.cell)
    for selection, cell in cells.items():
        steps = [one.label for one in plan(steps_of(shared.choices[selection]), shared.base.locate("."))]
        if steps:
            told = [
                one.as_json() for one in found_by(_truth(shared, cell), steps) if one.dropped or one.step[:3] == "all"
            ]
            found.append({"selection": selection, "steps": told})
    return found


def _truth(shared: Shared, cell: Cell) -> list[dict[str, Any]]:
    """The decision table's rows with what is known of them. Rows that only the share left out count as kept."""
    import pyarrow.parquet as pq

    columns = ["step", "pollution", "swapped", "origin"]
    rows = pq.read_table(shared.selection(cell).path / "decisions.parquet", columns=columns).to_pylist()
    return [{**row, "swapped": _true(row["swapped"])} for row in rows[: len(shared.pool)]]


def _true(value: Any) -> bool:
    """A truth as the pool's facts keep it: as a number, or as a word."""
    return value in (True, 1, 1.0, "True", "true", "1")


def _reference(arm: Arm, arms: Sequence[Arm], against: Sequence[str]) -> Arm | None:
    """The arm of the first reference at the same share, or whole; None for the reference itself."""
    of_size = [one for one in arms if one.selection == against[0] and one.size == arm.size] if against else []
    if arm in of_size:
        return None
    if arm.share is None:
        return of_size[0] if of_size else None
    return next((one for one in of_size if one.share in (arm.share, None)), None)


def _flips(
    shared: Shared, some: Sequence[Result], reference: Sequence[Result], task: str, near: Nearness
) -> Mapping[str, Any]:
    """The flips and the thumbnails that they show."""
    kept = {"mine": fates_of(shared, some[0].cell).rows, "theirs": fates_of(shared, reference[0].cell).rows}
    found = flips(some, reference, task, near, kept)
    place = {id: row for row, id in enumerate(near.ids)}
    named = [place[id] for one in found for _, id in (*one.mine, *one.theirs)]
    return {
        "flips": [asdict(one) for one in found],
        "thumbs": {**thumbs(shared, named), **held_out(near.pictures, [one.group for one in found])},
    }
