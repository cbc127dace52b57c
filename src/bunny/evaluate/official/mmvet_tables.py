"""MM-Vet's grades and its two tables: by ability, and by the abilities that a question needs together.

In: rows of the judge's grade file. Out: the mean grade out of 100 of each ability and of all, run by run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from bunny.core.errors import UserError
from bunny.evaluate.answers import Given
from bunny.evaluate.official.benchmark import Read
from bunny.evaluate.parse import normalise


def graded_tables(read: Read) -> dict[str, Any]:
    """All that the script prints, and the unrounded total. A question without grades counts as 0 in every run."""
    grades = [json.loads(item.value) if item.value else [] for item in read.parsed]
    runs = max(map(len, grades))
    scores = np.array([[*each, *[0.0] * (runs - len(each))] for each in grades])  # (N, runs)
    alone, together = defaultdict(list), defaultdict(list)
    for row, question in enumerate(read.questions):
        for ability in question.meta["abilities"]:
            alone[ability].append(row)
        together["+".join(question.meta["abilities"])].append(row)
    totals = 100 * scores.mean(axis=0)  # (runs,)
    ends: dict[str, Any] = {"total": _mean(scores, range(len(scores))), "std": round(float(totals.std()), 1)}
    ends["runs"] = [round(float(total), 1) for total in totals]
    tables = {
        title: {name: _mean(scores, rows) for name, rows in groups.items()} | ends
        for title, groups in (("capability", alone), ("integration", together))
    }
    exact = {"mmvet_total": float(totals.mean())}
    return {"headline": {"mmvet_total": ends["total"]}, "exact": exact, "num_run": runs, "numbers": tables}


def grades_of(given: Given) -> list[float]:
    """The grades of all runs. Raises UserError for one that is not from 0 to 1."""
    try:
        grades = [float(grade) for grade in given.row["score"]]
    except (TypeError, ValueError):
        grades = []
    if not grades or not all(0 <= grade <= 1 for grade in grades):
        raise UserError(
            f"mmvet: {given.id}: grades {given.row['score']!r} are not from 0 to 1", fix="let the judge grade it"
        )
    return grades


def share_found(wanted: str, said: str) -> float:
    """The share of the words joined by <AND> that the answer has."""
    parts, words = [normalise(part) for part in wanted.split("<AND>")], normalise(said)
    return sum(bool(part) and part in words for part in parts) / len(parts)


def _mean(scores: Any, rows: Iterable[int]) -> float:
    members = list(rows)
    return round(float((100 * scores[members].sum(axis=0) / len(members)).mean()), 1)
