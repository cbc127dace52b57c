"""Counts and places of the explorer against slow, obvious twins."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bunny.core.types import FloatArray, IntArray
from bunny.curate.explore.groups import Groups, at_threshold, grid_of, removed
from bunny.curate.explore.plane import plane

links = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0.8, 0.85, 0.9, 0.95, 1.0]) | st.none()), min_size=1, max_size=30
)


def columns(made: list[tuple[int, float | None]]) -> tuple[FloatArray, IntArray]:
    """Each row's link goes to an earlier row, or is none."""
    cosine = np.array([np.nan if value is None or not row else value for row, (_, value) in enumerate(made)])
    to = np.array([earlier % row if row else -1 for row, (earlier, _) in enumerate(made)])
    return cosine.astype(np.float32), np.where(np.isfinite(cosine), to, -1)


def groups_by_hand(cosine: FloatArray, to: IntArray, threshold: float) -> list[set[int]]:
    groups = [{row} for row in range(len(to))]
    for row, other in enumerate(to.tolist()):
        if cosine[row] >= np.float32(threshold):
            one = next(group for group in groups if row in group)
            two = next(group for group in groups if other in group)
            if one is not two:
                one |= two
                groups.remove(two)
    return [group for group in groups if len(group) > 1]


@given(made=links, threshold=st.sampled_from([0.8, 0.9, 0.95, 1.0]))
def test_counts_at_a_threshold_are_those_of_the_linked_groups(
    made: list[tuple[int, float | None]], threshold: float
) -> None:
    cosine, to = columns(made)
    found, wanted = at_threshold(cosine, to, threshold, 0.9), groups_by_hand(cosine, to, threshold)
    assert found.groups == len(wanted)
    assert found.largest == max(map(len, wanted), default=0)
    assert found.removed == sum(len(group) - 1 for group in wanted)
    assert removed(cosine, np.array([threshold])).tolist() == [found.removed]
    before = int((cosine >= np.float32(0.9)).sum())
    assert len(found.pairs) == abs(found.removed - before)


def test_the_grid_is_the_steps_own_with_the_used_threshold_in_it() -> None:
    assert grid_of(np.array([0.9, np.nan, 0.8, 0.9], np.float32), 0.86).tolist() == [0.8, 0.86, 0.9]
    many = np.linspace(0.8, 0.999, 5000).astype(np.float32)
    assert grid_of(many, 0.95).tolist() == np.round(np.arange(0.8, 1.0001, 0.005), 6).tolist()
    assert grid_of(np.array([np.nan]), None).tolist() == []


@given(labels=st.lists(st.integers(-1, 5), max_size=40), smallest=st.integers(1, 3))
def test_groups_hold_every_row_of_a_label_once(labels: list[int], smallest: int) -> None:
    column = np.array(labels, dtype=np.int64)
    kept = np.arange(len(column)) % 2 == 0
    groups = Groups.of(column, kept, np.linspace(0, 1, len(column)), smallest)
    wanted = {label: np.flatnonzero(column == label).tolist() for label in set(labels) - {-1}}
    wanted = {label: rows for label, rows in wanted.items() if len(rows) >= smallest}
    found = {int(label): groups.members(place).tolist() for place, label in enumerate(groups.label)}
    assert found == wanted
    assert groups.kept.tolist() == [int(kept[rows].sum()) for _, rows in sorted(wanted.items())]
    by_size = [int(groups.size[place]) for place in groups.order("size")]
    assert by_size == sorted(by_size, reverse=True)


def test_the_map_has_the_directions_of_a_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 6)).astype(np.float32) * [5, 3, 1, 1, 1, 1]
    vectors[7] = np.nan
    places = plane(lambda rows: vectors[rows], np.arange(3000))
    assert np.isnan(places[7]).all() and np.nanmax(np.abs(places)) <= 1.041
    fine = np.delete(np.arange(3000), 7)
    middle = vectors[fine] - vectors[fine].mean(axis=0)
    slow = middle @ np.linalg.svd(middle, full_matrices=False)[2][:2].T
    for axis in range(2):
        inside = np.abs(places[fine, axis]) < 1
        assert abs(np.corrcoef(places[fine, axis][inside], slow[inside, axis])[0, 1]) > 0.9999


def test_a_map_of_equal_or_of_no_rows_is_no_error() -> None:
    assert np.isfinite(plane(lambda rows: np.ones((len(rows), 3), np.float32), np.arange(5))).all()
    assert plane(lambda rows: np.ones((len(rows), 3), np.float32), np.arange(0)).shape == (0, 2)
    assert plane(lambda rows: rows[:, None].astype(np.float32), np.arange(4)).shape == (4, 2)
