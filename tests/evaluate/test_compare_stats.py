"""Whether a difference between two models can be believed: paired tests, correction, smallest detectable difference."""

from __future__ import annotations

import numpy as np
import pytest

from bunny.core.types import EvalResult, Parsed, Question
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import detectable, difference, holm, paired_p


def result(hits: np.ndarray) -> EvalResult:  # type: ignore[type-arg]
    """Hits of shape (pictures, questions of each)."""
    questions = [Question(f"{p}.{q}", "?", (), ("a",), f"p{p}") for p, q in np.ndindex(*hits.shape)]
    return mean_score("made up", questions, [Parsed("a")] * len(questions), hits.reshape(-1))


def models(gap: float, seed: int, pictures: int = 120) -> tuple[EvalResult, EvalResult]:
    """Two models that share hard pictures; the first is right more often by `gap`."""
    rng = np.random.default_rng(seed)
    ease = rng.beta(2, 2, (pictures, 1))
    one, other = (rng.random((pictures, 4)) < np.clip(ease + shift, 0, 1) for shift in (gap, 0.0))
    return result(one), result(other)


def test_equal_models_are_called_different_in_five_per_cent_of_runs() -> None:
    alarms = np.mean([paired_p(*models(0.0, seed)) < 0.05 for seed in range(300)])
    assert 0.02 <= alarms <= 0.09


def test_the_detectable_difference_is_found_in_four_of_five_runs() -> None:
    smallest = np.median([detectable(*models(0.08, seed)) for seed in range(20)]) / 100
    found, gaps = [], []
    for seed in range(200):
        pair = models(float(smallest), seed)
        gaps.append(difference(*pair).score)
        found.append(paired_p(*pair) < 0.05)
    assert np.mean(gaps) == pytest.approx(100 * smallest, rel=0.1)
    assert 0.72 <= np.mean(found) <= 0.88


@pytest.mark.parametrize("seed", range(20))
def test_the_test_and_the_interval_agree(seed: int) -> None:
    pair = models(0.06, seed)
    interval = difference(*pair)
    assert (paired_p(*pair) < 0.05) == (interval.low > 0 or interval.high < 0)


def test_correction_keeps_the_order_and_never_lowers() -> None:
    chances = [0.2, 0.001, 0.04, 0.5, 0.0499]
    corrected = holm(chances)
    assert all(new >= old for new, old in zip(corrected, chances, strict=True))
    assert np.argsort(corrected, kind="stable").tolist()[0] == 1
    assert corrected[1] == pytest.approx(0.005) and max(corrected) <= 1
    assert holm([]) == [] and holm([0.03]) == [0.03]


def test_results_on_other_pictures_are_not_compared() -> None:
    one, other = models(0.3, 0)[0], models(0.3, 0, pictures=60)[1]
    assert paired_p(one, other) == 1.0 and detectable(one, other) == float("inf")
