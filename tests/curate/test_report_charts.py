"""Drawings: what stands where, and at round values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.curate import charts


def test_a_curve_marks_the_threshold_where_its_tick_stands() -> None:
    x = np.round(np.arange(0.89, 0.996, 0.005), 3).tolist()
    drawing = charts.curve(x, list(range(len(x), 0, -1)), 0.95, ("across", "up"), "a <curve>")
    mark = float(re.search(r'class="mark" x1="([\d.]+)"', drawing)[1])  # type: ignore[index]
    tick = float(re.search(r'class="tick" x="([\d.]+)"[^>]*>0\.96<', drawing)[1])  # type: ignore[index]
    before = float(re.search(r'class="tick" x="([\d.]+)"[^>]*>0\.94<', drawing)[1])  # type: ignore[index]
    assert mark == pytest.approx((tick + before) / 2, abs=0.2)
    assert 'aria-label="a &lt;curve&gt;"' in drawing


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_within(low: float, width: float) -> None:
    ticks = charts._ticks(low, low + width)
    assert 1 <= len(ticks) <= 10
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value, _ in ticks)
    assert len({name for _, name in ticks}) == len(ticks)


def test_bars_are_stacked_and_add_up() -> None:
    edges = np.array([0.0, 0.5, 1.0])
    drawing = charts.histogram(edges, np.array([3, 0]), np.array([1, 2]), (0.0, 0.5), ("score", "samples"), "bars")
    assert drawing.count('class="bar"') == 1 and drawing.count('class="bar pale"') == 2
    assert drawing.count('class="band"') == 1


def test_no_values_no_drawing() -> None:
    assert charts.histogram_of(np.empty(0), np.empty(0), None, ("a", "b"), "none") == ""
