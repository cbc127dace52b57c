"""The curves of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bunny.train.curves import MOST_POINTS, _thinned, draw_curves, running_mean


def run_of(steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "step": step,
            "loss": 1.2 + 2 * np.exp(-step / (steps / 6)) + 0.15 * rng.standard_normal(),
            "learning_rate": 2e-4 * (1 + np.cos(np.pi * step / steps)) / 2,
            "grad_norm": float(np.exp(0.4 * rng.standard_normal())),
            "seconds": 0.5 + 0.1 * rng.random(),
            "samples_per_second": 128 / 0.55,
            "tokens_per_second": 21000 + 500 * rng.standard_normal(),
        }
        for step in range(1, steps + 1)
    ]


def scores_of(steps: range) -> list[dict[str, Any]]:
    def one(value: float) -> dict[str, float]:
        return {"score": value, "low": value - 4, "high": value + 3}

    return [
        {"step": step, "tasks": {"pope": one(50 + step**0.4), "easy_vqa": one(30 + step / 200), "mmb": one(42)}}
        for step in steps
    ]


@pytest.mark.parametrize("steps", [1, 2, 5400])
@pytest.mark.parametrize("evaluated", [False, True])
def test_a_picture_of_every_length(tmp_path: Path, steps: int, evaluated: bool) -> None:
    path = tmp_path / "curves.png"
    draw_curves(run_of(steps), path, "tune", scores_of(range(steps, 0, -900)) if evaluated else ())
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape[1] == 1300
    assert (picture.max(2) - picture.min(2)).max() == 0  # shades of grey: it prints as it looks
    assert picture.min() < 60


def test_a_run_without_any_step_and_one_with_gaps(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "a.png", "tune")
    draw_curves([{"step": 3, "loss": 1.0}, {"step": 5, "loss": 2.0, "learning_rate": None}], tmp_path / "b.png", "tune")
    draw_curves([{"step": 1, "loss": 1.0}], tmp_path / "c.png", "tune", [{"step": 0, "tasks": {}}])


@pytest.mark.parametrize(("count", "width"), [(1, 1), (7, 3), (50, 60)])
def test_the_running_mean_is_the_plain_one(count: int, width: int) -> None:
    values = np.random.default_rng(1).standard_normal(count)
    want = [values[max(0, at + 1 - width) : at + 1].mean() for at in range(count)]
    assert np.allclose(running_mean(values, width), want)


@pytest.mark.parametrize("count", [10, MOST_POINTS, 4 * MOST_POINTS + 3])
def test_thinning_keeps_every_peak(count: int) -> None:
    values = np.random.default_rng(2).standard_normal(count)
    steps, few = _thinned(np.arange(count), values)
    assert len(steps) <= MOST_POINTS + 20
    assert (few == values[steps]).all()
    assert {few.min(), few.max()} == {values.min(), values.max()}
    assert (np.diff(steps) > 0).all()
