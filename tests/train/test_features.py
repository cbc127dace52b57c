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


def test_a_tower_that_learns_has_no_features_to_keep(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="feature_cache goes with a frozen vision tower"):
        train(parts, tmp_path, feature_cache=True, vision_tower="train")
