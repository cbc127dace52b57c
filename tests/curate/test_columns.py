from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bunny.curate import kernels
from bunny.curate.columns import NpyFile, Rows, Texts


def test_every_float16_number_is_widened_as_numpy_does() -> None:
    halves = np.arange(65536, dtype=np.uint16).reshape(512, 128)
    found, true = np.empty(halves.shape, np.float32), halves.view(np.float16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(halves))
    kernels.widen(halves[order], np.argsort(order), found, np.arange(len(halves)))
    np.testing.assert_array_equal(found, true)
    known = ~np.isnan(true)
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(true[known]))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rows_of_several_files_are_read_in_any_order_with_length_one(tmp_path: Path, kind: type) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(100, 7)) * 3).astype(kind)
    for number, part in enumerate(np.split(values, [13, 14, 60])):
        np.save(tmp_path / f"{number}.npy", part)
    rows = Rows.files([tmp_path / f"{number}.npy" for number in range(4)])
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    order = rng.permutation(100)
    for asked in (slice(None), slice(5, 77, 3), order, order[:1], order > 50, np.array([3, 3, 99, 3])):
        np.testing.assert_allclose(rows.read(asked), unit[asked], atol=1e-6)
        np.testing.assert_allclose(rows[order][np.arange(100)].take(asked).read(), unit[order][asked], atol=1e-6)
    assert np.concatenate([block for _, block in rows.blocks(9)]).shape == (100, 7)


def test_a_piece_may_be_a_run_or_picked_rows_and_minus_one_is_no_vector(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(5, dtype=np.float16))
    np.save(tmp_path / "rows.npy", np.array([4, -1, 0]))
    run, picked = NpyFile(tmp_path / "v.npy", 1, 3), NpyFile(tmp_path / "v.npy", rows=tmp_path / "rows.npy")
    for piece in (run, NpyFile(**run.block())):
        np.testing.assert_array_equal(Rows([piece]).read(), np.eye(5)[1:4])
    for piece in (picked, NpyFile(**picked.block())):
        found = Rows([piece]).read()
        np.testing.assert_array_equal(found[[0, 2]], np.eye(5)[[4, 0]])
        assert np.isnan(found[1]).all()


def test_a_file_made_again_is_mapped_again(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    before = Rows.files([tmp_path / "v.npy"]).read()
    np.save(tmp_path / "new.npy", -np.eye(3, dtype=np.float32))
    (tmp_path / "new.npy").replace(tmp_path / "v.npy")
    np.testing.assert_array_equal(Rows.files([tmp_path / "v.npy"]).read(), -before)


def test_texts_are_indexed_like_arrays() -> None:
    words = [f"word {number}" for number in range(30)]
    texts, order = Texts.of(words), np.random.default_rng(1).permutation(30)
    assert texts[order].tolist() == [words[row] for row in order]
    assert texts[order][4] == words[order[4]] and texts[3:6].tolist() == words[3:6]
    assert texts[order][order > 12].arrow().to_pylist() == [words[row] for row in order[order > 12]]
