"""From each question's credit to an `EvalResult`: the part that all benchmarks share.

In: questions, what was read from their answers, and what each is worth. Out: headline, sub-scores, counts of how
answers were read, and the draws that make two results comparable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bunny.core.types import EvalResult, FloatArray, Interval, Parsed, Question
from bunny.evaluate.stats import Clusters, ratio


def mean_score(
    task: str,
    questions: Sequence[Question],
    parsed: Sequence[Parsed],
    points: npt.ArrayLike,
    parts: Mapping[str, npt.ArrayLike] | None = None,
    scores: Mapping[str, Interval] | None = None,
) -> EvalResult:
    """A benchmark whose headline is 100 × the mean credit.

    points: (N,) credit of each question, 0 to 1. parts: name -> (N,) bool, the questions of each sub-score.
    scores: further scores, already computed. Intervals are clustered by `Question.group`.
    """
    credit = np.asarray(points, dtype=np.float64)
    clusters = Clusters([question.group for question in questions])
    more = {name: clusters.rate(credit * np.asarray(rows), rows) for name, rows in (parts or {}).items()}
    columns = np.stack([credit, np.ones_like(credit)], axis=1)  # (N, 2)
    return EvalResult(
        task,
        clusters.rate(credit),
        len(questions),
        {**more, **(scores or {})},
        statuses(parsed),
        clusters=clusters.count,
        points=credit,
        draws=clusters.draws(columns, _mean),
    )


def _mean(sums: FloatArray) -> FloatArray:
    return ratio(sums[..., 0], sums[..., 1])  # (…, 2) -> (…)


def statuses(parsed: Sequence[Parsed]) -> dict[str, int]:
    """How many answers were read in each way, all five always named."""
    counts = Counter(item.status for item in parsed)
    return {status: counts[status] for status in ("ok", "fallback", "guessed", "empty", "malformed")}
