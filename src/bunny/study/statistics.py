"""Intervals for means over seeds and questions, both of which are samples: of trainings, and of pictures.

In: (S, N) values of S seeds on N questions, and the picture of each question. Out: the mean with a 95 % interval that
would hold for other seeds and other pictures. Two-way clustered variance (Cameron, Gelbach & Miller 2011): that of the
seeds' means, plus that of the pictures' means, minus what both count twice; Student's t with Satterthwaite's degrees of
freedom, which are few where few seeds make most of the variance. How much trainings differ can be learnt from all arms
of a study at once (randomised blocks: seeds are the blocks), if it is taken to be the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from bunny.core.types import FloatArray
from bunny.evaluate.stats import LEVEL, Clusters

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """mean, low, high: in per cent. error: standard error; freedom: degrees of freedom; p: of a true mean of zero.
    detectable: the smallest true mean that such a comparison finds in four of five cases. by_seed: each seed's mean."""

    mean: float
    low: float
    high: float
    error: float
    freedom: float
    p: float
    detectable: float
    by_seed: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the difference of two arms varies from training to training. variance: of one seed's difference, in
    points from 0 to 1; freedom: degrees of freedom of that."""

    variance: float
    freedom: float


def pooled_spread(means: FloatArray) -> Spread:
    """From the (A, S) means of at least two arms over the same seeds, at least two: what is left when arm and seed are
    taken out (two-way analysis of variance, one value a cell). Of two arms it is the variance of their differences."""
    arms, seeds = means.shape
    left = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0, keepdims=True) + means.mean()
    freedom = (arms - 1) * (seeds - 1)
    return Spread(2 * float((left**2).sum()) / freedom, freedom)


def estimate(values: FloatArray, groups: Sequence[str], spread: Spread | None = None) -> Estimate:
    """The mean of (S, N) values in per cent. groups: the picture of each of the N questions. spread: of the seeds, if
    more is known of it than these values tell.

    With one seed the interval is that of the pictures alone: it says nothing of another training.
    """
    seeds, count = values.shape
    mean = float(values.mean())
    clusters = Clusters(groups)
    rest = clusters.sums((values - mean).T) / (seeds * count)  # (N, S) -> (G, S): what each picture adds to the mean
    pictures = clusters.count
    by_picture = _few(pictures) * float((rest.sum(axis=1) ** 2).sum())
    by_seed = _few(seeds) * float((rest.sum(axis=0) ** 2).sum()) if seeds > 1 else 0.0
    known = float(max(1, seeds - 1))
    if spread is not None:
        by_seed, known = spread.variance / seeds, spread.freedom
    both = _few(seeds * pictures) * float((rest**2).sum()) if seeds > 1 else 0.0
    variance = max(by_picture + by_seed - both, by_picture, by_seed)
    freedom = _freedom(variance, by_seed, known, pictures)
    error = float(np.sqrt(variance))
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 1.0 if error == 0 else float(2 * (1 - stdtr(freedom, abs(mean) / error)))
    found = error * float(stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, POWER))
    each = tuple(float(100 * one) for one in values.mean(axis=1))
    return Estimate(100 * mean, 100 * (mean - reach), 100 * (mean + reach), 100 * error, freedom, p, 100 * found, each)


def _few(count: int) -> float:
    """What corrects a variance that is counted around the sample's own mean."""
    return count / (count - 1) if count > 1 else 1.0


def _freedom(variance: float, by_seed: float, known: float, pictures: int) -> float:
    """Satterthwaite's degrees of freedom of the sum of the seeds' part, which has `known`, and the pictures' part."""
    parts = by_seed**2 / known + (variance - by_seed) ** 2 / max(1, pictures - 1)
    return float(max(1.0, variance**2 / parts)) if parts else float(max(1, pictures - 1))
