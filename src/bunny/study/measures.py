"""What each question is worth to a selection: by its answer alone, or by how its "yes" ranks pictures.

In: rows of `answers/TASK.jsonl`. Out: (N,) points from 0 to 1, aligned with the rows; the score is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bunny.core.types import FloatArray

Measure = Literal["accuracy", "ranking"]
MEASURES: tuple[Measure, ...] = ("accuracy", "ranking")
Row = dict[str, Any]


def points(rows: Sequence[Row], measure: Measure) -> FloatArray | None:
    """(N,) float64; None where the rows do not tell (`ranking` wants yes/no questions about words)."""
    return np.array([row["points"] for row in rows], dtype=np.float64) if measure == "accuracy" else _ranked(rows)


def _ranked(rows: Sequence[Row]) -> FloatArray | None:
    """How the model's confidence orders pictures: the area under the ROC curve of each word, by questions.

    For a word that a picture shows, the share of the pictures that surely do not show it for which the model finds the
    word less likely (a tie counts half); a question's points are the mean over its words. Yes/no questions about a word
    are compared among themselves, by the chance of "yes". 50 % is chance; to say one word more often gains nothing.
    None where chances are missing, or where nothing can be compared.
    """
    if any(not row["chances"] for row in rows):
        return None
    asked = all(set(row["chances"]) == {"yes", "no"} for row in rows)
    return _of_yes_no(rows) if asked else _of_words(rows)


def _of_yes_no(rows: Sequence[Row]) -> FloatArray | None:
    leaning = np.array([row["chances"]["yes"] for row in rows])
    shown = np.array([row["gold"][0] == "yes" for row in rows])
    words = np.array([row["word"] for row in rows])
    found = np.full(len(rows), np.nan)
    for word in np.unique(words):
        there, absent = (np.flatnonzero((words == word) & side) for side in (shown, ~shown))
        if not word or not len(there) or not len(absent):
            return None
        wins = _above(leaning[there], leaning[absent])
        found[there], found[absent] = wins.mean(axis=1), wins.mean(axis=0)
    return found


def _of_words(rows: Sequence[Row]) -> FloatArray | None:
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    for word in sorted({word for row in rows for word in row["gold"]}):
        chance = np.array([row["chances"].get(word, np.nan) for row in rows])
        there = np.array([word in row["gold"] for row in rows])
        absent = np.array([word in row["absent"] for row in rows])
        if absent.any() and np.isfinite(chance).all():
            total[there] += _above(chance[there], chance[absent]).mean(axis=1)
            count[there] += 1
    return total / count if count.all() else None


def _above(some: FloatArray, others: FloatArray) -> FloatArray:
    """(A, B) 1 where the value of a is above that of b, 0.5 where they are equal, else 0."""
    gap = some[:, None] - others[None, :]
    return np.asarray((gap > 0) + 0.5 * (gap == 0))
