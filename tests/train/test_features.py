"""The features of a frozen tower, kept on disk, teach what its pixels teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bunny.core.errors import UserError
from tests.train.job import state, train


def test_kept_features_teach_the_same(parts: Path, tmp_path: Path) -> None:
    wanted = state(train(parts, tmp_path / "pixels"))
    found = state(train(parts, tmp_path / "features", feature_cache=True))
    made = list((tmp_path / "features" / "features").glob("part-*.npy"))
    assert len(made) == 1
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
    stamp = made[0].stat().st_mtime_ns
    train(parts, tmp_path / "features", feature_cache=True, learning_rate=1e-3)
    assert made[0].stat().st_mtime_ns == stamp  # not computed again


def test_features_in_a_shared_folder_teach_the_same_and_serve_the_next_run(parts: Path, tmp_path: Path) -> None:
    wanted = state(train(parts, tmp_path / "pixels"))
    shared = str(tmp_path / "shared")
    found = state(train(parts, tmp_path / "first", feature_cache=shared))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
    made = {path: path.stat().st_mtime_ns for path in Path(shared).rglob("*.npy")}
    assert made
    train(parts, tmp_path / "second", feature_cache=shared, learning_rate=1e-3)
    assert {path: path.stat().st_mtime_ns for path in Path(shared).rglob("*.npy")} == made


def test_another_preparation_of_pictures_is_kept_apart(parts: Path, tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    train(parts, tmp_path / "padded", feature_cache=shared)
    train(parts, tmp_path / "squashed", feature_cache=shared, image_aspect="square")
    assert len(list(Path(shared).iterdir())) == 2


def test_a_tower_that_learns_has_no_features_to_keep(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="feature_cache goes with a frozen vision tower"):
        train(parts, tmp_path, feature_cache=True, vision_tower="train")
