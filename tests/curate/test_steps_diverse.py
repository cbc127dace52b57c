"""Diversity against its obvious twin: all cosines in one matrix, the same greedy choice written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate import diversity
from bunny.curate.columns import Rows
from bunny.curate.diversity import cover, k_centre


def decide(block: dict[str, Any], pool: Pool) -> Decision:
    found: Decision = make(block, "bunny.curate.steps").decide(pool, np.random.default_rng(0))
    return found


def unit(size: int, seed: int, copies: bool = True) -> np.ndarray:
    """Rows in four dimensions, some of them identical, some close."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 4)).round(1) + 0.01
    if copies and size:
        rows[rng.random(size) < 0.3] = rows[rng.integers(0, size)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cosines(rows: np.ndarray) -> np.ndarray:
    exact = Rows.of(rows).read().astype(np.float64)
    return np.round(exact @ exact.T, 6)


def slow_k_centre(rows: np.ndarray, count: int) -> list[int]:
    likeness = cosines(rows)
    kept: list[int] = []
    while len(kept) < min(count, len(rows)):
        if not kept:
            exact = Rows.of(rows).read().astype(np.float64)
            mean = exact.sum(axis=0) / max(np.linalg.norm(exact.sum(axis=0)), 1e-12)
            kept.append(int(np.argmax(np.round(exact @ mean, 6))))
            continue
        nearest = likeness[:, kept].max(axis=1)
        nearest[kept] = 9
        if nearest.min() >= 1:
            break
        kept.append(int(np.argmin(nearest)))
    return kept


def slow_cover(rows: np.ndarray, above: float, count: int | None) -> list[int]:
    near = cosines(rows) >= above
    open_ = np.ones(len(rows), dtype=bool)
    kept: list[int] = []
    while open_.any() and (count is None or len(kept) < count):
        one = int(np.argmax(near[:, open_].sum(axis=1)))
        kept.append(one)
        open_ &= ~near[one]
    return kept


@settings(deadline=None)
@given(st.integers(0, 25), st.integers(0, 10**6), st.integers(0, 30))
def test_k_centre_is_farthest_first(size: int, seed: int, count: int) -> None:
    rows = unit(size, seed)
    found = k_centre(Rows.of(rows), count)
    assert found.kept.tolist() == slow_k_centre(rows, count)
    if len(found.kept):
        likeness = cosines(rows)
        best = likeness[:, found.kept].max(axis=1)
        np.testing.assert_allclose(found.likeness, np.where(np.isin(np.arange(size), found.kept), 1, best), atol=1e-6)
        others = np.setdiff1d(np.arange(size), found.kept)
        np.testing.assert_array_equal(likeness[others, found.stands[others]], best[others])
        np.testing.assert_array_equal(found.stands[found.kept], found.kept)


@settings(deadline=None)
@given(
    st.integers(0, 25), st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.99, 1.0]), st.sampled_from([None, 0, 1, 5])
)
def test_cover_is_greedy_and_leaves_no_row_uncovered(size: int, seed: int, above: float, count: int | None) -> None:
    rows = unit(size, seed)
    found = cover(Rows.of(rows), above, count)
    assert found.kept.tolist() == slow_cover(rows, above, count)
    stood = found.stands >= 0
    assert stood.all() or count is not None
    assert (cosines(rows)[np.flatnonzero(stood), found.stands[stood]] >= above).all()
    assert set(found.stands[stood].tolist()) <= set(found.kept.tolist())


def test_groups_too_large_to_hold_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows.of(unit(60, 3))
    held = [k_centre(rows, 9), cover(rows, 0.9)]
    monkeypatch.setattr(diversity, "HELD", 10)
    monkeypatch.setattr(diversity, "BLOCK", 7)
    for one, other in zip(held, [k_centre(rows, 9), cover(rows, 0.9)], strict=True):
        np.testing.assert_array_equal(one.kept, other.kept)
        np.testing.assert_array_equal(one.stands, other.stands)


def pool_of(rows: np.ndarray, **columns: Any) -> Pool:
    ids = np.array([f"{number:03d}" for number in range(len(rows))], dtype=str)
    return Pool({"id": ids, "visual": rows, **{name: np.asarray(values) for name, values in columns.items()}})


def test_the_budget_is_shared_among_clusters_by_size() -> None:
    cluster = np.repeat([0, 1, 2], [20, 12, 8])
    pool = pool_of(unit(40, 1, copies=False), cluster=cluster)
    found = decide({"use": "diverse", "count": 10}, pool)
    assert np.bincount(cluster[found.keep]).tolist() == [5, 3, 2]
    assert (cluster[found.twin[~found.keep]] == cluster[~found.keep]).all()


def test_a_budget_smaller_than_the_clusters_leaves_some_without_a_twin() -> None:
    found = decide({"use": "diverse", "count": 1}, pool_of(unit(6, 1), cluster=np.array([0, 0, 0, 0, 1, 1])))
    assert found.keep.sum() == 1
    assert found.twin[4:].tolist() == [-1, -1]
    assert found.reason[5] == "outside the budget, and no picture that stays is like it"


def test_a_cover_keeps_a_row_near_every_row() -> None:
    rows = unit(40, 5)
    found = decide({"use": "diverse", "method": "cover", "above": 0.9, "within": "pool"}, pool_of(rows))
    assert (cosines(rows)[:, found.keep].max(axis=1) >= 0.9).all()
    assert 0 < found.keep.sum() < 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "needs a budget"),
        ({"count": 2, "share": 0.1}, "either `count` or `share`"),
        ({"method": "cover"}, "belong together"),
        ({"count": 2, "above": 0.9}, "belong together"),
    ],
)
def test_diverse_refuses_settings_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make({"use": "diverse", **wrong}, "bunny.curate.steps")
