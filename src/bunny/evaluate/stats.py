"""95 % intervals for scores whose questions come in clusters (many questions about one picture).

In: what each question adds to a score (numpy columns) and each question's group. Out: `Interval`s in per cent,
bootstrap draws, and paired differences. Questions about one picture are right or wrong together, so an interval
that treats them as independent is too narrow; here the picture is what is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr, stdtrit

from bunny.core.seeds import stream
from bunny.core.types import EvalResult, FloatArray, IntArray, Interval

DRAWS = 2000
LEVEL = 0.95
BLOCK = 1 << 22  # resampling weights held in memory at once

Formula = Callable[[FloatArray], FloatArray]
"""From column sums (…, K) to the score (…): a ratio, an F1, a sum of sub-scores."""


class Clusters:
    """The groups of N questions. Results depend on which questions share a group, not on the order of questions.

    groups: one name per question; an empty name makes the question a group of its own.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        own = [group or f"\0{row}" for row, group in enumerate(groups)]
        names, index = np.unique(np.array(own, dtype=object).astype(str), return_inverse=True)
        self.count = len(names)
        self.index: IntArray = index.reshape(-1)  # (N,)

    def sums(self, columns: npt.ArrayLike) -> FloatArray:
        """Column sums per group: (N,) -> (G,), (N, K) -> (G, K), float64."""
        values = np.asarray(columns, dtype=np.float64)
        totals = np.zeros((self.count, *values.shape[1:]))
        np.add.at(totals, self.index, values)
        return totals

    def rate(self, hits: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> Interval:
        """100 × Σ hits / Σ counted with a cluster-robust Wilson interval.

        hits: (N,) credit from 0 to 1, zero where not counted; counted: (N,) 0/1, default all. The variance of the
        ratio is linearised over groups, turned into an effective sample size (at most Σ counted), corrected for few
        groups by Student's t and put into Wilson's formula (Korn & Graubard 1998; Dean & Pagano 2015), so that
        scores of 0 or 100 % keep an honest width. Nothing counted: 0 in [0, 100].
        """
        top = self.sums(hits)
        bottom = self.sums(np.ones(len(self.index)) if counted is None else counted)
        total = bottom.sum()
        if total == 0:
            return Interval(0.0, 0.0, 100.0)
        share = float(top.sum() / total)
        low, high = wilson(share, _effective_size(share, top, bottom))
        return Interval(100 * share, 100 * low, 100 * high)

    def draws(self, columns: npt.ArrayLike, formula: Formula) -> FloatArray:
        """The score on `DRAWS` resamples of whole groups: (B,). Equal groups give equal resamples on every call."""
        sums = self.sums(columns)  # (G, K)
        rng = stream("evaluate.bootstrap", 0)
        chances = np.full(self.count, 1 / self.count)
        block = max(1, BLOCK // self.count)
        parts = []
        for start in range(0, DRAWS, block):
            weights = rng.multinomial(self.count, chances, size=min(block, DRAWS - start))  # (b, G)
            parts.append(formula(weights @ sums))  # (b, K) -> (b,)
        return np.concatenate(parts)

    def bootstrap(self, columns: npt.ArrayLike, formula: Formula) -> Interval:
        """Any formula of column sums with its percentile bootstrap interval over groups (Efron & Tibshirani §13)."""
        score = float(formula(self.sums(columns).sum(axis=0)))
        low, high = np.quantile(self.draws(columns, formula), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(score, min(float(low), score), max(float(high), score))


def ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """100 × top / bottom, elementwise; 0 where bottom is 0."""
    return np.asarray(np.divide(100 * top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0))


def wilson(share: float, size: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share in [0, 1] seen in `size` (real number > 0) independent trials."""
    z2 = float(ndtri((1 + LEVEL) / 2)) ** 2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    spread = np.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return float(max(0.0, min(share, centre - spread))), float(min(1.0, max(share, centre + spread)))


def _effective_size(share: float, top: FloatArray, bottom: FloatArray) -> float:
    """How many independent questions would tell as much about the share as these clustered ones."""
    total, used = bottom.sum(), int((bottom > 0).sum())
    if used < 2:
        return 1.0
    binomial = share * (1 - share)
    variance = used / (used - 1) * np.sum((top - share * bottom) ** 2) / total**2
    if binomial <= 1e-12:
        size = float(used)  # nothing varies: count groups, as if answers inside a group were copies
    else:
        size = float(min(total, binomial / variance)) if variance > 0 else float(total)
    few = float(ndtri((1 + LEVEL) / 2) / stdtrit(used - 1, (1 + LEVEL) / 2))
    return max(1.0, size * few**2)


def difference(one: EvalResult, other: EvalResult) -> Interval:
    """`one` minus `other` on the same questions, with a paired 95 % interval, in the benchmark's unit.

    Both results' draws come from the same resamples of pictures, so what a hard picture takes from both cancels.
    Student's t with (clusters - 1) degrees of freedom. Where pairing says nothing (no draws, or no picture on which
    the difference varies) the two separate intervals are combined (MOVER, Newcombe 1998), which is wider.
    """
    gap = one.headline.score - other.headline.score
    spread = _paired_spread(one, other)
    if spread is not None and spread > 1e-9:
        reach = float(stdtrit(one.clusters - 1, (1 + LEVEL) / 2)) * spread
        return Interval(gap, float(gap - reach), float(gap + reach))
    a, b = one.headline, other.headline
    return Interval(
        gap,
        gap - float(np.hypot(a.score - a.low, b.high - b.score)),
        gap + float(np.hypot(a.high - a.score, b.score - b.low)),
    )


def paired_p(one: EvalResult, other: EvalResult) -> float:
    """How likely a difference at least this large would be if the two were equally good (two-sided, paired).

    Student's t over pictures, on the same resamples as `difference`, with the spread that its interval shows. 1.0 where
    nothing is paired.
    """
    spread = _paired_spread(one, other)
    gap = abs(one.headline.score - other.headline.score)
    if spread is None or gap <= 1e-9:
        return 1.0
    if spread <= 1e-9:  # the same difference on every picture: as sure as the separate intervals allow
        interval = difference(one, other)
        reach = interval.score - interval.low if interval.score > 0 else interval.high - interval.score
        spread = reach / float(stdtrit(one.clusters - 1, (1 + LEVEL) / 2))
    t = gap / spread
    return float(min(1.0, 2 * (1 - stdtr(one.clusters - 1, t))))


def holm(chances: Sequence[float]) -> list[float]:
    """The chances corrected for how many comparisons there are (Holm 1979): no more than 5 % that any is a false alarm.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected, highest = [0.0] * len(chances), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[at]))
        corrected[at] = highest
    return corrected


def detectable(one: EvalResult, other: EvalResult, power: float = 0.8) -> float:
    """The smallest difference that a paired comparison of two such results would find in `power` of all cases.

    In the benchmark's unit; from the spread of their difference over pictures, at the 5 % level. Infinite where
    nothing is paired.
    """
    spread, freedom = _paired_spread(one, other), one.clusters - 1
    if spread is None:
        return float("inf")
    return float(spread * (stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, power)))


def _paired_spread(one: EvalResult, other: EvalResult) -> float | None:
    """Standard error of the difference over the pictures that both answered; None if they are not paired."""
    if one.draws is None or other.draws is None or one.clusters != other.clusters or one.clusters < 2:
        return None
    return float(np.std(one.draws - other.draws, ddof=1)) * float(np.sqrt(one.clusters / (one.clusters - 1)))
