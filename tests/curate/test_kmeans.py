"""Spherical k-means against what is obvious."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bunny.curate.kmeans import _assign, _means, spherical_kmeans


def blobs(groups: int, each: int, dim: int = 12, noise: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(1)
    centres = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:groups]  # at right angles
    rows = np.repeat(centres, each, axis=0) + rng.normal(size=(groups * each, dim)) * noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_finds_well_separated_groups() -> None:
    found = spherical_kmeans(blobs(6, 20), 6, np.random.default_rng(0))
    labels = found.nearest.reshape(6, 20)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 6


def test_nearest_second_cosine_and_border_are_the_dense_ones() -> None:
    rows = blobs(5, 30, noise=0.4)
    found = spherical_kmeans(rows, 7, np.random.default_rng(0))
    likeness = rows @ found.centres.T
    order = np.argsort(-likeness, axis=1)
    np.testing.assert_array_equal(found.nearest, order[:, 0])
    np.testing.assert_array_equal(found.second, order[:, 1])
    np.testing.assert_allclose(found.cosine, likeness.max(axis=1), atol=1e-6)
    apart = found.centres[order[:, 0]] - found.centres[order[:, 1]]
    plane = np.einsum("nd,nd->n", rows, apart) / np.linalg.norm(apart, axis=1)
    np.testing.assert_allclose(found.border, plane, atol=1e-5)


def test_a_converged_centre_is_the_mean_of_its_rows() -> None:
    rows = blobs(4, 25)
    found = spherical_kmeans(rows, 4, np.random.default_rng(0), iterations=50)
    for group in range(4):
        mean = rows[found.nearest == group].mean(axis=0)
        np.testing.assert_allclose(found.centres[group], mean / np.linalg.norm(mean), atol=1e-5)


def test_more_iterations_never_fit_worse() -> None:
    rows = blobs(8, 30, noise=0.5)
    fits = [spherical_kmeans(rows, 10, np.random.default_rng(3), iterations=n).cosine.sum() for n in (1, 3, 10, 30)]
    assert all(later >= earlier - 1e-3 for earlier, later in itertools.pairwise(fits))


@pytest.mark.parametrize("start", ["spread", "random"])
def test_every_group_has_a_row_where_rows_differ(start: str) -> None:
    rows = blobs(3, 40, noise=0.3)
    found = spherical_kmeans(rows, 30, np.random.default_rng(0), start=start)
    assert np.bincount(found.nearest, minlength=30).min() > 0


def test_an_empty_group_restarts_at_the_row_that_fits_worst() -> None:
    rows = np.concatenate([np.tile(np.eye(3, dtype=np.float32)[0], (20, 1)), np.array([[0.6, 0.8, 0]], np.float32)])
    found = _assign(rows, np.eye(3, dtype=np.float32)[[0, 2]])  # nothing is near the second centre
    centres = _means(rows, found, 2)
    np.testing.assert_allclose(centres[1], rows[20], atol=1e-6)


def test_copies_of_one_row_make_no_trouble() -> None:
    rows = np.tile(blobs(1, 1), (50, 1))
    found = spherical_kmeans(rows, 4, np.random.default_rng(0))
    assert len(set(found.nearest.tolist())) == 1
    np.testing.assert_allclose(found.cosine, 1, atol=1e-6)
    assert np.isfinite(found.centres).all()


def test_half_precision_rows_and_block_borders_give_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = blobs(6, 30).astype(np.float16)
    whole = spherical_kmeans(rows, 6, np.random.default_rng(0))
    monkeypatch.setattr("bunny.curate.kmeans.BLOCK_ROWS", 7)
    np.testing.assert_array_equal(spherical_kmeans(rows, 6, np.random.default_rng(0)).nearest, whole.nearest)


def test_no_rows_and_more_groups_than_rows() -> None:
    assert len(spherical_kmeans(np.empty((0, 4), np.float32), 3, np.random.default_rng(0)).nearest) == 0
    assert len(spherical_kmeans(blobs(2, 1), 9, np.random.default_rng(0)).centres) == 2
