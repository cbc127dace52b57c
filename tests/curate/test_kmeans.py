from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bunny.curate import grouping, kernels, kmeans
from bunny.curate.codes import Quantiser
from bunny.curate.columns import Rows
from bunny.curate.grouping import Groups, group_rows
from tests.curate.engine_pools import Array, on_disk, place_in, unit, with_duplicates


def blobs(count: int, each: int, columns: int = 16, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return unit(
        np.repeat(rng.normal(size=(count, columns)), each, axis=0) + rng.normal(size=(count * each, columns)) * 0.05
    )


def groups_of(rows: Array | Rows, count: int, folder: Path, seed: int = 0, **how: object) -> Groups:
    settings = {"iterations": 20, "start": "spread", "reach": 0.06, **how}
    return group_rows(Rows.of(rows), count, np.random.default_rng(seed), place=place_in(folder), **settings)  # type: ignore[arg-type]


def centres_of(rows: Array, groups: int, seed: int = 0, iterations: int = 20, start: str = "spread") -> kmeans.Centres:
    quantiser = Quantiser.fit(rows)
    rng = np.random.default_rng(seed)
    return kmeans.train(quantiser.encode(rows), quantiser, groups, rng, iterations, start)  # type: ignore[arg-type]


def test_blobs_that_lie_apart_become_the_groups(tmp_path: Path) -> None:
    found = groups_of(blobs(6, 20), 6, tmp_path)
    assert len({tuple(found.groups[:, 0][start : start + 20].tolist()) for start in range(0, 120, 20)}) == 6
    assert found.cosine.min() > 0.95


def test_cosine_second_and_border_are_those_of_the_centres(tmp_path: Path) -> None:
    rows = with_duplicates(300, 24, 1)
    found = groups_of(rows, 7, tmp_path, reach=9.0)
    sums = np.stack([rows[found.groups[:, 0] == group].sum(0) for group in range(7)])
    likeness = rows @ unit(sums).T
    off = np.abs(
        found.cosine - likeness[np.arange(300), found.groups[:, 0]]
    )  # a last row may have moved after the centres
    assert np.median(off) < 0.001 and (off < 0.02).mean() > 0.95
    by_likeness = np.sort(likeness, axis=1)
    agree = likeness.argmax(1) == found.groups[:, 0]
    assert agree.mean() > 0.97  # codes may differ where two centres are as near as one another
    assert (found.border[agree] >= -1e-3).all()
    assert all(len(set(row)) == 3 for row in found.groups.tolist())  # reach 9: everyone is a guest of both
    assert np.corrcoef(found.border[agree], (by_likeness[:, -1] - by_likeness[:, -2])[agree])[0, 1] > 0.9


@pytest.mark.parametrize("reach", [0.0, 0.1, 0.3, 9.0])
def test_rows_within_reach_of_a_border_are_guests(tmp_path: Path, reach: float) -> None:
    found = groups_of(with_duplicates(400, 16, 2), 9, tmp_path, reach=reach)
    np.testing.assert_array_equal(found.groups[:, 1] >= 0, (found.border <= reach) & (reach > 0))
    assert (found.groups[:, 1:] >= 0).any(0).tolist() == [reach > 0.05, reach > 0.05]


def test_guests_are_those_near_the_planes_half_way_to_the_next_two_centres(tmp_path: Path) -> None:
    rows = with_duplicates(400, 16, 2)
    found = groups_of(rows, 9, tmp_path, reach=0.1)
    model = np.load(next(tmp_path.glob("groups-*/centres.npz")))
    likeness = rows @ model["unit"].T
    order = np.argsort(-likeness, axis=1)
    for number in (1, 2):
        first, other = order[:, 0], order[:, number]
        gap = likeness[np.arange(400), first] - likeness[np.arange(400), other]
        distance = gap / np.linalg.norm(model["unit"][first] - model["unit"][other], axis=1)
        sure = np.abs(distance - 0.1) > 0.01  # codes are not exact
        expected = np.where(distance <= 0.1, other, -1)
        assert (found.groups[sure, number] == expected[sure]).mean() > 0.98


def test_more_iterations_fit_no_worse() -> None:
    rows = with_duplicates(500, 16, 3)
    quantiser = Quantiser.fit(rows)
    codes = quantiser.encode(rows).codes
    fits = []
    for iterations in (1, 4, 30):
        centres = centres_of(rows, 12, seed=3, iterations=iterations)
        fits.append(float((rows * centres.unit[centres.assign(codes).nearest[:, 0]]).sum()))
    assert fits[0] < fits[1] + 1e-6 and fits[1] <= fits[2] * 1.002


def test_rounds_that_see_parts_of_the_rows_fit_as_well_as_rounds_that_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng.normal(size=(40, 24))[rng.integers(0, 40, 4000)] + rng.normal(size=(4000, 24)) * 0.5)
    codes = Quantiser.fit(rows).encode(rows).codes
    fits = []
    for least in (4000, 500):
        monkeypatch.setattr(kmeans, "LEAST", least)
        monkeypatch.setattr(kmeans, "PART", 10)
        centres = centres_of(rows, 40, seed=1, iterations=20)
        fits.append(float((rows * centres.unit[centres.assign(codes).nearest[:, 0]]).sum(1).mean()))
    assert fits[1] > 0.99 * fits[0]


@pytest.mark.parametrize("columns", [1, 2, 128, 700])
def test_the_best_columns_are_those_of_a_sort(columns: int) -> None:
    rng = np.random.default_rng(columns)
    scores, bias = (rng.integers(-40, 40, shape).astype(np.int32) for shape in ((50, columns), (columns,)))
    found, tops = (np.empty((50, 3), np.int32) for _ in range(2))
    kernels.best_columns(scores.copy(), bias, found, tops)
    expected = np.argsort(-(scores + bias), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found[:, :columns], expected)
    np.testing.assert_array_equal(tops[:, :columns], np.take_along_axis(scores + bias, expected, 1))
    assert (found[:, columns:] == -1).all()


@pytest.mark.parametrize("start", ["spread", "random"])
def test_no_group_stays_empty_among_copies(start: str) -> None:
    rows = np.repeat(blobs(3, 1), 30, axis=0)
    centres = centres_of(rows, 30, start=start)
    assert centres.unit.shape == (30, 16) and np.isfinite(centres.unit).all()


def test_an_empty_pool_and_more_groups_than_rows(tmp_path: Path) -> None:
    assert len(groups_of(np.empty((0, 4), np.float32), 3, tmp_path / "none").groups) == 0
    assert set(groups_of(blobs(2, 1), 9, tmp_path / "two").groups[:, 0].tolist()) == {0, 1}
    assert groups_of(blobs(1, 1), 1, tmp_path / "one").groups.tolist() == [[0, -1, -1]]


def test_threads_chunks_blocks_files_and_kernels_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bunny.curate import codes

    rows = with_duplicates(700, 24, 4)
    whole = groups_of(rows, 11, tmp_path / "whole", start="random")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        for name, value in (("CHUNK_ROWS", 97), ("BLOCK_ROWS", 31)):
            monkeypatch.setattr(grouping, name, value)
        monkeypatch.setattr(kmeans, "BLOCK", 29)
        monkeypatch.setattr(codes, "fastest_kernel", lambda columns: "float32")
        other = groups_of(on_disk(rows, tmp_path, (13, 400)), 11, tmp_path / "other", start="random")
    finally:
        torch.set_num_threads(threads)
    for name in ("groups", "cosine", "border"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(other, name))


def test_where_rows_are_stored_does_not_show(tmp_path: Path) -> None:
    """The same pool, its files in another order."""
    rows = with_duplicates(500, 24, 5)
    shuffled = np.random.default_rng(0).permutation(500)
    stored = on_disk(rows[shuffled], tmp_path, (100, 250))
    place = np.empty(500, np.int64)
    place[shuffled] = np.arange(500)
    one, other = groups_of(rows, 9, tmp_path / "a"), groups_of(stored[place], 9, tmp_path / "b")
    np.testing.assert_array_equal(one.groups, other.groups)
    np.testing.assert_array_equal(one.border, other.border)


def test_cells_lose_little_and_change_nothing_for_rows_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    rows = unit(rng.normal(size=(60, 24))[rng.integers(0, 60, 6000)] + rng.normal(size=(6000, 24)) * 0.6)
    quantiser = Quantiser.fit(rows)
    codes = quantiser.encode(rows).codes
    monkeypatch.setattr(kmeans, "MANY", 100)
    monkeypatch.setattr(kmeans, "FEW_CELLS", 6)
    centres = centres_of(rows, 300, start="random", iterations=5)
    assert centres.cells is not None and centres.cells.probed < len(centres.cells.codes)
    quick = centres.assign(codes, 3)
    full = kmeans.Centres(centres.unit, centres.codes, centres.bias).assign(codes, 3)
    assert (quick.nearest[:, 0] == full.nearest[:, 0]).mean() > 0.85
    fit = [float((rows * centres.unit[found.nearest[:, 0]]).sum(1).mean()) for found in (quick, full)]
    assert fit[0] > 0.99 * fit[1]
    exact = (quick.nearest == full.nearest).all(1)
    assert exact.mean() > 0.5
    np.testing.assert_array_equal(quick.score[exact], full.score[exact])
    monkeypatch.setattr(kmeans, "BLOCK", 17)
    again = centres.assign(codes, 3)
    np.testing.assert_array_equal(again.nearest, quick.nearest)
