"""Steps that give groups their share: balance, sample; and the arithmetic of shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate.budget import best_of_each, level, shared

SIZES = st.lists(st.integers(0, 30), max_size=8)


def decide(block: dict[str, Any], pool: Pool, seed: int = 0) -> Decision:
    found: Decision = make(block, "bunny.curate.steps").decide(pool, np.random.default_rng(seed))
    return found


def pool_of(**columns: Any) -> Pool:
    size = len(next(iter(columns.values())))
    ids = np.array([f"{number:03d}" for number in range(size)], dtype=str)
    return Pool({"id": ids, **{name: np.asarray(values) for name, values in columns.items()}})


# shares


@given(SIZES, st.integers(0, 200), st.booleans())
def test_shares_add_up_and_fit(sizes: list[int], total: int, square_root: bool) -> None:
    size = np.array(sizes, dtype=np.int64)
    given_ = shared(total, size, np.sqrt(size) if square_root else size)
    assert given_.sum() == min(total, size.sum())
    assert (given_ <= size).all()
    assert (given_ >= 0).all()


@given(SIZES, st.integers(0, 200))
def test_proportional_shares_are_within_one_of_the_exact_ones(sizes: list[int], total: int) -> None:
    size = np.array(sizes, dtype=np.int64)
    if total <= size.sum():
        assert (np.abs(shared(total, size, size) - total * size / max(1, size.sum())) <= 1).all()


@given(SIZES, st.integers(0, 200))
def test_the_level_is_the_highest_that_fits(sizes: list[int], total: int) -> None:
    size = np.array(sizes, dtype=np.int64)
    given_ = level(total, size)
    assert given_.sum() == min(total, size.sum())
    cut = given_ < size
    if cut.any():  # those that are cut differ by one at most, and nothing that is whole is higher
        assert given_[cut].max() - given_[cut].min() <= 1
        assert given_[~cut].max(initial=0) <= given_[cut].min() + 1


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0, float("nan")])), max_size=20), st.data())
def test_the_best_of_each_group_are_taken(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    wanted = np.array([data.draw(st.integers(0, 5)) for _ in range(4)])
    group = np.array([one for one, _ in rows], dtype=np.int64)
    score = np.array([value for _, value in rows], dtype=float)
    expected = []
    for number in range(4):
        mine = [row for row in range(len(rows)) if group[row] == number]
        mine.sort(key=lambda row: (np.isnan(score[row]), -score[row] if score[row] == score[row] else 0, row))
        expected += mine[: wanted[number]]
    assert best_of_each(group, score, wanted).tolist() == sorted(expected)


# balance


def test_balance_cuts_large_groups_and_keeps_the_best() -> None:
    pool = pool_of(source=["a", "a", "a", "b", ""], score=[0.1, np.nan, 0.3, 0.0, 9.0])
    found = decide({"use": "balance", "per": "source", "most": 2, "keep": "best", "by": "score"}, pool)
    assert found.reason.tolist() == ["", "not among the 2 highest score of its source", "", "", ""]


def test_balance_to_a_total_levels_the_large_groups() -> None:
    pool = pool_of(cluster=[0] * 20 + [1] * 8 + [2] * 2)
    found = decide({"use": "balance", "total": 12}, pool)
    assert np.bincount(pool["cluster"][found.keep]).tolist() == [5, 5, 2]


def test_balance_draws_every_row_sometimes() -> None:
    kept = [decide({"use": "balance", "most": 2}, pool_of(cluster=[0] * 5), seed).keep for seed in range(30)]
    assert np.sum(kept, axis=0).min() > 0


def test_balance_without_clusters_says_what_makes_them() -> None:
    with pytest.raises(UserError, match="use: cluster"):
        decide({"use": "balance", "most": 2}, pool_of(score=[1.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either `most` or `total`"),
        ({"most": 1, "keep": "best"}, "`keep: best` and `by: COLUMN`"),
        ({"most": 1, "total": 2}, "either `most` or `total`"),
    ],
)
def test_balance_refuses_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make({"use": "balance", **settings}, "bunny.curate.steps")


# sample


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"count": 3}, [3, 3, 1]),
        ({"share": 0.5}, [8, 2, 0]),
        ({"count": 10, "allot": "proportional"}, [8, 2, 0]),
        ({"count": 14, "allot": "square_root"}, [9, 4, 1]),
    ],
)
def test_sample_per_group(settings: dict[str, Any], kept: list[int]) -> None:
    pool = pool_of(cluster=[0] * 16 + [1] * 4 + [2])
    found = decide({"use": "sample", "per": "cluster", **settings}, pool)
    assert np.bincount(pool["cluster"][found.keep], minlength=3).tolist() == kept


def test_sample_per_group_draws_every_row_sometimes() -> None:
    pool = pool_of(source=["a"] * 4 + ["b"] * 3)
    kept = [decide({"use": "sample", "per": "source", "count": 1}, pool, seed).keep for seed in range(60)]
    assert np.sum(kept, axis=0).min() > 0


def test_sample_divides_only_among_groups() -> None:
    with pytest.raises(UserError, match="say which with `per: COLUMN`"):
        make({"use": "sample", "count": 3, "allot": "proportional"}, "bunny.curate.steps")


# band


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf")]), max_size=20), st.integers(0, 9))
def test_a_band_is_what_sorting_says(values: list[float], tenth: int) -> None:
    found = decide({"use": "band", "by": "score", "low": tenth / 10, "high": 1.0}, pool_of(score=np.array(values)))
    known = [row for row, value in enumerate(values) if np.isfinite(value)]
    known.sort(key=lambda row: (-values[row], row))
    assert np.flatnonzero(found.keep).tolist() == sorted(known[round(tenth / 10 * len(known)) :])


def test_a_band_of_words_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="`source` does not hold numbers"):
        decide({"use": "band", "by": "source", "high": 0.3}, pool_of(source=["a", "b"]))
