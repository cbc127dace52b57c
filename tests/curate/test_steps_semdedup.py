"""SemDeDup's rule against the matrix it is defined by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Decision, Pool
from bunny.curate.columns import Rows
from bunny.curate.earlier import likest_earlier


def decide(block: dict[str, Any], pool: Pool, seed: int = 0) -> Decision:
    found: Decision = make({"use": "semdedup", **block}, "bunny.curate.steps").decide(pool, np.random.default_rng(seed))
    return found


def some_pool(size: int, seed: int) -> Pool:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 3)).round(1) + 0.01
    if size:
        rows[rng.random(size) < 0.3] = rows[0]
    visual = Rows.of(rows.astype(np.float32)).read()
    return Pool(
        {
            "id": np.array([f"{number:03d}" for number in range(size)], dtype=str),
            "visual": visual,
            "cluster": rng.integers(0, 3, size),
            "centre_cosine": rng.normal(size=size).round(1),
        }
    )


def dense(pool: Pool, eps: float, order_by: np.ndarray) -> tuple[list[bool], list[float]]:
    """For every cluster: sort, all cosines, upper triangle, column maxima."""
    keep, highest = [True] * len(pool), [float("nan")] * len(pool)
    for cluster in np.unique(pool["cluster"]):
        rows = np.flatnonzero(pool["cluster"] == cluster)
        rows = rows[np.argsort(order_by[rows], kind="stable")]
        matrix = pool["visual"][rows].astype(np.float64) @ pool["visual"][rows].astype(np.float64).T
        for place in range(1, len(rows)):
            highest[rows[place]] = round(float(matrix[:place, place].max()), 9)
            keep[rows[place]] = highest[rows[place]] <= 1 - eps
    return keep, highest


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 10**6), st.sampled_from([0.001, 0.05, 0.3, 1.5]), st.booleans())
def test_the_rule_is_the_published_one(size: int, seed: int, eps: float, hard: bool) -> None:
    pool = some_pool(size, seed)
    found = decide({"eps": eps, "keep": "hard" if hard else "easy"}, pool)
    keep, highest = dense(pool, eps, pool["centre_cosine"] * (1 if hard else -1))
    assert found.keep.tolist() == keep
    np.testing.assert_allclose(found.columns["link_cosine"], np.array(highest), atol=1e-6)
    assert (found.columns["link_cosine"][~found.keep] > 1 - eps - 1e-6).all()
    assert found.keep[found.twin[~found.keep]].all()
    assert (pool["cluster"][found.twin[~found.keep]] == pool["cluster"][~found.keep]).all()


def test_an_earlier_row_counts_even_if_it_goes_itself() -> None:
    """0, 4 and 8 degrees: each is like the one before; the last is unlike the first, but goes."""
    turn = np.radians([0, 4, 8])
    visual = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    pool = Pool({"id": np.array(["a", "b", "c"]), "visual": visual, "cluster": [0] * 3, "centre_cosine": [0, 0.1, 0.2]})
    pool = Pool({name: np.asarray(values) for name, values in pool.columns.items()})
    found = decide({"eps": 1 - float(np.cos(np.radians(5)))}, pool)
    assert found.keep.tolist() == [True, False, False]
    assert found.twin.tolist() == [-1, 0, 0]
    assert found.columns["link_to"].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("tile", [1, 3, 7])
def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    rows = Rows.of(some_pool(50, 4)["visual"])
    whole = likest_earlier(rows)
    monkeypatch.setattr("bunny.curate.earlier.TILE", tile)
    for one, other in zip(whole, likest_earlier(rows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_many_copies_the_first_is_the_one_it_is_linked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.curate.earlier.CANDIDATES", 3)
    rows = Rows.of(np.tile(np.array([[0.6, 0.8]], np.float32), (20, 1)))
    assert likest_earlier(rows)[1].tolist() == [-1, *[0] * 19]


def test_random_order_keeps_every_row_sometimes() -> None:
    pool = some_pool(4, 0).with_columns({"visual": np.ones((4, 3), np.float32), "cluster": np.zeros(4, int)})
    kept = [decide({"eps": 0.1, "keep": "random"}, pool, seed).keep for seed in range(40)]
    assert {int(keep.sum()) for keep in kept} == {1}
    assert np.sum(kept, axis=0).min() > 0


def test_semdedup_without_clusters_says_what_makes_them() -> None:
    pool = Pool({"id": np.array(["a"]), "visual": np.ones((1, 2), np.float32)})
    with pytest.raises(UserError, match="use: cluster"):
        decide({"eps": 0.1}, pool)
