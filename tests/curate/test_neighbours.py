"""Linked groups against a slow dense twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.curate import neighbours
from bunny.curate.neighbours import link


def slow_groups(rows: np.ndarray, above: float) -> list[frozenset[int]]:
    """The obvious way: all pairs in float64, then spreading labels."""
    wide = rows.astype(np.float64)
    linked = wide @ wide.T >= above
    label = np.arange(len(rows))
    while True:
        spread = np.array(
            [label[linked[row] | (np.arange(len(rows)) == row)].min() for row in range(len(rows))], dtype=int
        )
        if (spread == label).all():
            return sorted((frozenset(np.flatnonzero(label == one).tolist()) for one in set(label.tolist())), key=min)
        label = spread


def groups(component: np.ndarray) -> list[frozenset[int]]:
    return sorted((frozenset(np.flatnonzero(component == one).tolist()) for one in set(component.tolist())), key=min)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), dim=st.integers(2, 6), above=st.floats(0.3, 0.999))
def test_groups_are_those_of_the_dense_computation(seed: int, size: int, dim: int, above: float) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(size, dim)))
    assert groups(link(rows, above).groups(above)) == slow_groups(rows, above)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
def test_a_forest_from_a_low_cosine_holds_the_groups_of_every_higher_one(seed: int, size: int) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(size, 3)))
    forest = link(rows, 0.9, lowest=0.5)
    for above in (0.5, 0.7, 0.9, 0.97):
        want = slow_groups(rows, above)
        assert groups(forest.groups(above)) == want
        assert forest.removed(above) == size - len(want)
        assert int((forest.link_of_row() >= above).sum()) == size - len(want)


def test_pairs_that_float32_cannot_tell_from_the_threshold_are_settled_in_float64() -> None:
    """Thresholds a hair (1e-12) below and above a pair's cosine, far finer than a float32 product."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(10):
        rows = unit(rng.normal(size=(2, 300)) + 1.5)
        exact = float(rows[0].astype(np.float64) @ rows[1].astype(np.float64))
        wrong += abs(float(rows[0] @ rows[1]) - exact) > 1e-11
        assert link(rows, exact - 1e-12).removed(exact - 1e-12) == 1
        assert link(rows, exact + 1e-12).removed(exact + 1e-12) == 0
    assert wrong  # else this test shows nothing


def test_tiles_and_thinning_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit(np.random.default_rng(2).normal(size=(90, 4)))
    whole = groups(link(rows, 0.8).groups(0.8))
    monkeypatch.setattr(neighbours, "TILE", 7)
    monkeypatch.setattr(neighbours, "KEEP_LINKS", 20)
    assert groups(link(rows, 0.8).groups(0.8)) == whole


def test_copies_form_one_group() -> None:
    rows = np.tile(unit(np.ones((1, 5))), (30, 1))
    assert set(link(rows, 0.999).groups(0.999).tolist()) == {0}
    assert link(rows, 0.999).removed(0.999) == 29


def test_only_rows_of_one_part_are_compared() -> None:
    rows = np.tile(unit(np.ones((1, 5))), (4, 1))
    component = link(rows, 0.9, parts=[np.array([0, 1]), np.array([2, 3])]).groups(0.9)
    assert groups(component) == [frozenset({0, 1}), frozenset({2, 3})]


def test_no_rows_and_one_row() -> None:
    assert len(link(np.empty((0, 3), np.float32), 0.9).groups(0.9)) == 0
    assert link(unit(np.ones((1, 3))), 0.9).groups(0.9).tolist() == [0]
