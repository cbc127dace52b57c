"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from bunny.core.types import EvalResult, Interval
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters, difference, ratio, wilson
from tests.evaluate.stubs import ask


def simulate(rng: np.random.Generator, clusters: int, mean: float = 0.7) -> tuple[np.ndarray, list[str]]:
    """Answers that agree inside a cluster: each picture has its own chance (Beta), 1 to 12 questions."""
    sizes = rng.integers(1, 13, clusters)
    chances = rng.beta(2 * mean, 2 * (1 - mean), clusters)
    hits = np.concatenate([rng.random(size) < chance for size, chance in zip(sizes, chances, strict=True)])
    return hits.astype(float), [str(row) for row, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (10, 10), (312, 500)])
def test_wilson_equals_scipys(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_questions_of_their_own_give_nearly_scipys_wilson() -> None:
    hits = np.arange(2000) < 1300
    expected = binomtest(1300, 2000).proportion_ci(method="wilson")
    got = Clusters([""] * 2000).rate(hits)
    assert (got.low, got.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.02)


@pytest.mark.parametrize("mean", [0.5, 0.7, 0.95])
def test_clustered_interval_covers_the_truth_95_times_in_100(mean: float) -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(600):
        hits, groups = simulate(rng, 60, mean)
        interval = Clusters(groups).rate(hits)
        inside += interval.low <= 100 * mean <= interval.high
    assert 0.925 <= inside / 600 <= 0.98


def test_interval_that_ignores_clusters_would_be_too_narrow() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        hits, groups = simulate(rng, 60)
        interval = Clusters([""] * len(groups)).rate(hits)
        inside += interval.low <= 70 <= interval.high
    assert inside / 300 < 0.85


def test_copies_of_a_question_do_not_narrow_the_interval() -> None:
    hits = np.arange(40) % 3 > 0
    once = Clusters([str(row) for row in range(40)]).rate(hits)
    often = Clusters([str(row) for row in range(40) for _ in range(9)]).rate(np.repeat(hits, 9))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_bootstrap_equals_scipys_bootstrap_of_cluster_sums() -> None:
    hits, groups = simulate(np.random.default_rng(3), 80)
    clusters = Clusters(groups)
    columns = np.stack([hits, np.ones_like(hits)], axis=1)
    got = clusters.bootstrap(columns, lambda sums: ratio(sums[..., 0], sums[..., 1]))
    sums = clusters.sums(columns)
    expected = bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda top, bottom, axis: 100 * top.sum(axis=axis) / bottom.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx(tuple(expected), abs=0.6)
    assert got.score == pytest.approx(100 * hits.mean())


def test_analytic_and_bootstrap_intervals_agree() -> None:
    hits, groups = simulate(np.random.default_rng(4), 300)
    clusters = Clusters(groups)
    columns = np.stack([hits, np.ones_like(hits)], axis=1)
    one, other = clusters.rate(hits), clusters.bootstrap(columns, lambda sums: ratio(sums[..., 0], sums[..., 1]))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.4)


def test_full_marks_keep_an_honest_width() -> None:
    groups = [str(row // 5) for row in range(50)]
    full, none = Clusters(groups).rate(np.ones(50)), Clusters(groups).rate(np.zeros(50))
    assert full.high == 100 and 60 < full.low < 75
    assert none.low == 0 and none.high == pytest.approx(100 - full.low)


def test_nothing_counted_says_that_nothing_is_known() -> None:
    assert Clusters(["a", "b"]).rate(np.zeros(2), np.zeros(2)) == Interval(0, 0, 100)


def test_one_picture_tells_almost_nothing() -> None:
    interval = Clusters(["a"] * 100).rate(np.arange(100) < 50)
    assert interval.low < 10 and interval.high > 90


def test_order_of_questions_is_irrelevant() -> None:
    hits, groups = simulate(np.random.default_rng(5), 40)
    order = np.random.default_rng(6).permutation(len(hits))
    there, here = Clusters([groups[row] for row in order]), Clusters(groups)
    assert here.rate(hits) == there.rate(hits[order])
    columns = np.stack([hits, np.ones_like(hits)], axis=1)
    mean = lambda sums: ratio(sums[..., 0], sums[..., 1])  # noqa: E731
    np.testing.assert_array_equal(here.draws(columns, mean), there.draws(columns[order], mean))


def test_many_groups_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    hits, groups = simulate(np.random.default_rng(7), 50)
    columns = np.stack([hits, np.ones_like(hits)], axis=1)
    mean = lambda sums: ratio(sums[..., 0], sums[..., 1])  # noqa: E731
    whole = Clusters(groups).draws(columns, mean)
    monkeypatch.setattr("bunny.evaluate.stats.BLOCK", 700)
    np.testing.assert_array_equal(Clusters(groups).draws(columns, mean), whole)


def result(hits: np.ndarray, groups: list[str]) -> EvalResult:
    return mean_score("made-up", [ask(group, row) for row, group in enumerate(groups)], [], hits)


def test_paired_interval_covers_the_true_difference_95_times_in_100() -> None:
    rng = np.random.default_rng(8)
    inside, trials = 0, 200
    for _ in range(trials):
        sizes = rng.integers(1, 9, 50)
        groups = [str(row) for row, size in enumerate(sizes) for _ in range(size)]
        base = np.repeat(rng.uniform(0, 0.8, 50), sizes)
        gap = difference(
            result((rng.random(len(base)) < base + 0.2).astype(float), groups),
            result((rng.random(len(base)) < base).astype(float), groups),
        )
        inside += gap.low <= 20 <= gap.high
    assert 0.90 <= inside / trials <= 0.99


def test_pairing_sees_a_small_gain_that_separate_intervals_hide() -> None:
    hits, groups = simulate(np.random.default_rng(9), 200)
    better = hits.copy()
    better[np.flatnonzero(hits == 0)[::10]] = 1
    one, other = result(better, groups), result(hits, groups)
    assert one.headline.low < other.headline.high
    assert difference(one, other).low > 0


def test_no_difference_is_never_trusted() -> None:
    hits, groups = simulate(np.random.default_rng(10), 30)
    gap = difference(result(hits, groups), result(hits, groups))
    assert gap.score == 0 and gap.low < 0 < gap.high


def test_two_pictures_are_not_enough_to_trust_a_difference() -> None:
    groups = ["a", "a", "b", "b"]
    gap = difference(result(np.ones(4), groups), result(np.array([1.0, 0, 1, 0]), groups))
    assert gap.score == 50 and gap.low < 0
