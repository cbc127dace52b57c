"""The sets of linked rows are those of the dense matrix, whatever the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.curate import grouping, levels, linking
from bunny.curate.columns import Rows
from bunny.curate.duplicates import Duplicates, find_duplicates
from bunny.curate.grouping import group_rows
from tests.curate.engine_pools import Array, dense_sets, on_disk, place_in, unit, with_duplicates

IntArray = npt.NDArray[np.int32]


def some_groups(size: int, seed: int, groups: int = 4, probes: int = 3) -> IntArray:
    """Every row in a group at random, half of them guests in the next one, a third in the one after that."""
    rng = np.random.default_rng(seed)
    found = (rng.integers(0, groups, size)[:, None] + np.arange(probes)) % groups
    for number, share in enumerate((0.0, 0.5, 0.7)[:probes]):
        found[rng.random(size) < share, number] = -1
    return found.astype(np.int32)


def found(rows: Array | Rows, groups: IntArray, above: float, folder: Path, lowest: float | None = None) -> Duplicates:
    rng = np.random.default_rng(0)
    return find_duplicates(Rows.of(rows), groups, above, above if lowest is None else lowest, rng, place_in(folder))


def whole(size: int) -> IntArray:
    return np.zeros((size, 1), np.int32)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 120),
    st.integers(2, 40),
    st.integers(0, 10_000),
    st.sampled_from([0.2, 0.7, 0.86, 0.95, 0.999]),
    st.integers(1, 3),
)
def test_the_sets_are_those_of_the_dense_matrix(
    tmp_path_factory: pytest.TempPathFactory, size: int, columns: int, seed: int, above: float, probes: int
) -> None:
    rows, groups = with_duplicates(size, columns, seed), some_groups(size, seed, probes=probes)
    sets = found(rows, groups, above, tmp_path_factory.mktemp("links"))
    assert sets.sets.tolist() == dense_sets(rows, groups, above)


@pytest.mark.parametrize("above", [0.5, 0.86, 0.9])
def test_pairs_at_the_threshold_are_decided_as_by_correct_rounding(tmp_path: Path, above: float) -> None:
    """Pairs at the threshold, a few units of float32 above it and below it, and all within one group."""
    rng = np.random.default_rng(3)
    heads = unit(rng.normal(size=(200, 96)))
    side = rng.normal(size=(200, 96))
    side -= (side * heads).sum(1, keepdims=True) * heads
    target = np.float64(above) + np.arange(-100, 100) * 3e-8
    others = heads * target[:, None] + unit(side) * np.sqrt(1 - target[:, None] ** 2)
    rows = np.concatenate([heads, unit(others)])
    sets = found(rows, whole(400), above, tmp_path).sets
    assert sets.tolist() == dense_sets(rows, whole(400), above)
    assert 20 < len(set(sets.tolist())) - 200 < 180  # the test has pairs on both sides


def test_one_huge_junk_cluster_is_one_set_and_its_neighbours_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most rows are one 'no image' picture: lumps are put aside, and what is linked to them is found all the same."""
    monkeypatch.setattr(linking, "CROWD", 500)
    monkeypatch.setattr(linking, "LUMP", 50)
    monkeypatch.setattr(linking, "TALL", 64)
    rng = np.random.default_rng(0)
    junk = unit(np.ones((1, 48)) + rng.normal(size=(1500, 48)) * 0.12)
    other = unit(np.full((1, 48), -1.0) + rng.normal(size=(400, 48)) * 0.12)
    near = unit(np.ones((1, 48)) + rng.normal(size=(300, 48)) * rng.uniform(0.2, 1.5, (300, 1)))
    rows = np.concatenate([junk, other, near])[rng.permutation(2200)]
    sets = found(rows, whole(2200), 0.95, tmp_path).sets
    assert sets.tolist() == dense_sets(rows, whole(2200), 0.95)


def test_identical_rows_are_one_set(tmp_path: Path) -> None:
    rows = np.repeat(with_duplicates(3, 8, 0), 700, axis=0)
    assert found(rows, whole(2100), 0.9999, tmp_path).sets.tolist() == dense_sets(rows, whole(2100), 0.9999)


def test_threads_chunks_buckets_kernels_and_files_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bunny.curate import codes

    rows, groups = with_duplicates(900, 32, 7), some_groups(900, 7, 6)
    one = found(rows, groups, 0.86, tmp_path / "one", lowest=0.8)
    for name, value in (("TALL", 32), ("WIDE", 64), ("BUCKET_ROWS", 100), ("DOUBTFUL", 3000), ("SHAPES", 16)):
        monkeypatch.setattr(linking, name, value)
    monkeypatch.setattr(grouping, "CHUNK_ROWS", 77)
    monkeypatch.setattr(levels, "BATCH_ROWS", 50)
    monkeypatch.setattr(levels, "TALL", 40)
    monkeypatch.setattr(levels, "SMALL", 3)
    monkeypatch.setattr(codes, "fastest_kernel", lambda columns: "float32")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        shuffled = np.random.default_rng(1).permutation(900)
        place = np.empty(900, np.int64)
        place[shuffled] = np.arange(900)
        stored = on_disk(rows[shuffled], tmp_path, (200, 201, 650))[place]
        other = found(stored, groups, 0.86, tmp_path / "other", lowest=0.8)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.sets, other.sets)
    for name in ("cosine", "to"):
        np.testing.assert_array_equal(getattr(one.links, name), getattr(other.links, name))
    np.testing.assert_allclose(one.links.least, other.links.least, atol=1e-6)
    assert one.notes == other.notes


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 90), st.integers(0, 1000))
def test_links_give_the_sets_at_every_threshold_of_the_grid(
    tmp_path_factory: pytest.TempPathFactory, size: int, seed: int
) -> None:
    rows, groups = with_duplicates(size, 12, seed), some_groups(size, seed)
    links = found(rows, groups, 0.9, tmp_path_factory.mktemp("levels"), lowest=0.8).links
    for above in (0.8, 0.805, 0.85, 0.9, 0.93, 0.995):
        dense = dense_sets(rows, groups, above)
        assert links.sets(above).tolist() == dense
        assert int((links.cosine >= np.float32(above)).sum()) == size - len(set(dense))
    linked = links.to >= 0
    assert (links.to[linked] < np.flatnonzero(linked)).all()


def test_the_least_cosine_of_a_set_is_that_of_all_its_pairs(tmp_path: Path) -> None:
    rows, groups = with_duplicates(300, 12, 5), some_groups(300, 5)
    outcome = found(rows, groups, 0.9, tmp_path, lowest=0.85)
    for head in np.unique(outcome.sets):
        members = np.flatnonzero(outcome.sets == head)
        if len(members) > 1:
            least = (rows[members] @ rows[members].T).min()
            np.testing.assert_allclose(outcome.links.least[members], least, atol=1e-6)
        else:
            assert np.isnan(outcome.links.least[members]).all()


def test_sets_too_large_to_look_into_are_right_at_the_threshold_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "LARGE", 20)
    rows, groups = with_duplicates(400, 6, 9), some_groups(400, 9)
    outcome = found(rows, groups, 0.9, tmp_path, lowest=0.8)
    assert outcome.notes["unrefined"] > 20
    assert outcome.sets.tolist() == dense_sets(rows, groups, 0.9)


@pytest.mark.parametrize("dense", [4096, 300])
def test_a_large_set_has_the_links_of_the_dense_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: int
) -> None:
    """700 rows in one set, many of them known together at once; in one piece, and in strips."""
    monkeypatch.setattr(levels, "DENSE", dense)
    rng = np.random.default_rng(4)
    spread = np.where(rng.random((700, 1)) < 0.7, 0.05, rng.uniform(0.05, 0.5, (700, 1)))
    rows = unit(np.ones((1, 32)) + rng.normal(size=(700, 32)) * spread)
    outcome = found(rows, whole(700), 0.9, tmp_path, lowest=0.8)
    for above in (0.8, 0.9, 0.95, 0.985, 0.995):
        assert outcome.links.sets(above).tolist() == dense_sets(rows, whole(700), above)
    assert np.isnan(outcome.links.least).all() == (dense == 300)


def test_another_threshold_makes_no_products_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = with_duplicates(300, 12, 2), some_groups(300, 2)
    found(rows, groups, 0.9, tmp_path / "first", lowest=0.85)
    fresh = found(rows, groups, 0.93, tmp_path / "fresh", lowest=0.9)

    def refuse(self: object) -> None:
        raise AssertionError("products were made again")

    monkeypatch.setattr(linking._Room, "links", refuse)
    again = found(rows, groups, 0.93, tmp_path / "first", lowest=0.9)
    np.testing.assert_array_equal(again.sets, fresh.sets)
    np.testing.assert_array_equal(again.links.cosine, fresh.links.cosine)
    np.testing.assert_array_equal(again.links.to, fresh.links.to)
    np.testing.assert_array_equal(again.links.least, fresh.links.least)


def test_codes_of_the_clustering_serve_the_comparison(tmp_path: Path) -> None:
    rows, place = Rows.of(with_duplicates(500, 16, 3)), place_in(tmp_path)
    grouped = group_rows(rows, 6, np.random.default_rng(0), iterations=5, start="random", reach=0.05, place=place)
    sets = found(rows, grouped.groups, 0.9, tmp_path).sets
    assert (grouped.groups >= 0).any(0).all()  # there are guests of both kinds
    assert sets.tolist() == dense_sets(rows.read(), grouped.groups, 0.9)
    assert not list(tmp_path.glob("codes-*"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_rows_without_a_direction_are_refused_by_number(tmp_path: Path, bad: float) -> None:
    rows = with_duplicates(30, 8, 0)
    rows[4] = bad
    with pytest.raises(UserError, match="1 of 30 rows have no usable vector"):
        found(on_disk(rows, tmp_path, ()), whole(30), 0.9, tmp_path / "work")


def test_what_was_missed_is_estimated_from_rows_compared_with_all(tmp_path: Path) -> None:
    """Groups at random: two of three duplicates stand in different groups and are not found."""
    rng = np.random.default_rng(0)
    rows = unit(np.repeat(rng.normal(size=(600, 32)), 2, axis=0) + rng.normal(size=(1200, 32)) * 0.05)
    groups = rng.integers(0, 3, (1200, 1)).astype(np.int32)
    notes = found(rows, groups, 0.95, tmp_path).notes
    same = (groups[::2] == groups[1::2]).sum()
    assert notes["left_low"] <= (600 - same) / 600 <= notes["left_high"]
    assert notes["left_high"] - notes["left_low"] < 0.1


def test_nothing_is_missed_where_all_are_compared(tmp_path: Path) -> None:
    notes = found(with_duplicates(200, 16, 1), whole(200), 0.9, tmp_path).notes
    assert (notes["left"], notes["left_high"]) == (0, 0)
