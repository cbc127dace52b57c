"""Intervals over seeds and pictures: they hold as often as they say, and are honest where little is known."""

from __future__ import annotations

import numpy as np
import pytest

from bunny.core.types import FloatArray
from bunny.study.statistics import estimate, pooled_spread

SEEDS, PICTURES, EACH = 3, 60, 2
GROUPS = [f"p{number // EACH}" for number in range(PICTURES * EACH)]


def drawn(rng: np.random.Generator, by_seed: float, by_picture: float, noise: float, mean: float = 0.0) -> FloatArray:
    """(S, N) values with an effect of each training, of each picture, and of each answer."""
    seeds = by_seed * rng.standard_normal((SEEDS, 1))
    pictures = np.repeat(by_picture * rng.standard_normal(PICTURES), EACH)[None, :]
    return mean + seeds + pictures + noise * rng.standard_normal((SEEDS, PICTURES * EACH))


@pytest.mark.parametrize(
    ("by_seed", "by_picture", "noise"), [(0, 0, 1), (0.1, 0, 1), (0.3, 0.3, 1), (0, 0.5, 1), (0.3, 0.05, 0.3)]
)
def test_the_interval_holds_the_true_mean_in_95_of_100_studies(by_seed: float, by_picture: float, noise: float) -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(600):
        found = estimate(drawn(rng, by_seed, by_picture, noise, mean=0.2), GROUPS)
        inside += found.low <= 20 <= found.high
    assert inside / 600 >= 0.93


def test_a_true_difference_of_the_detectable_size_is_found_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(4)
    size = np.mean([estimate(drawn(rng, 0, 0.3, 1), GROUPS).detectable for _ in range(100)]) / 100
    found = sum(estimate(drawn(rng, 0, 0.3, 1, mean=float(size)), GROUPS).p < 0.05 for _ in range(400))
    assert 0.72 <= found / 400 <= 0.9


def test_the_spread_of_two_arms_is_that_of_their_differences() -> None:
    means = np.random.default_rng(8).standard_normal((2, 5))
    found = pooled_spread(means)
    assert found.variance == pytest.approx((means[0] - means[1]).var(ddof=1))
    assert found.freedom == 4


def test_intervals_with_the_spread_of_all_arms_hold_as_often_and_are_narrower() -> None:
    rng = np.random.default_rng(9)
    arms, inside, own, pooled = 6, 0, [], []
    for _ in range(400):
        each = [drawn(rng, 0.2, 0.3, 1) for _ in range(arms)]
        shift = 0.2
        spread = pooled_spread(np.array([one.mean(axis=1) for one in each]))
        alone, together = (estimate(each[0] - each[1] + shift, GROUPS, some) for some in (None, spread))
        inside += together.low <= 100 * shift <= together.high
        own.append(alone.high - alone.low)
        pooled.append(together.high - together.low)
    assert inside / 400 >= 0.93
    assert np.median(pooled) < 0.8 * np.median(own)


def test_questions_about_one_picture_do_not_count_as_many_pictures() -> None:
    rng = np.random.default_rng(6)
    values = np.repeat(rng.standard_normal((1, PICTURES)), EACH, axis=1)
    apart = estimate(values, [str(number) for number in range(PICTURES * EACH)])
    together = estimate(values, GROUPS)
    assert together.error == pytest.approx(apart.error * np.sqrt(EACH), rel=0.02)


def test_seeds_that_disagree_widen_the_interval_and_leave_few_degrees_of_freedom() -> None:
    values = np.full((3, len(GROUPS)), 0.1)
    values[2] = -0.1
    found = estimate(values, GROUPS)
    assert found.low < 0 < found.high
    assert found.freedom == pytest.approx(2, abs=0.1)
    assert found.by_seed == pytest.approx((10, 10, -10))


def test_one_seed_gives_the_interval_of_the_pictures_alone() -> None:
    values = np.random.default_rng(7).standard_normal((1, len(GROUPS)))
    found = estimate(values, GROUPS)
    assert found.freedom == pytest.approx(PICTURES - 1)
    means = values.reshape(PICTURES, EACH).mean(axis=1)
    assert found.error == pytest.approx(100 * means.std(ddof=1) / np.sqrt(PICTURES))


def test_no_difference_at_all_is_no_finding() -> None:
    found = estimate(np.zeros((3, len(GROUPS))), GROUPS)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
