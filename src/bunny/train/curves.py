"""A run's figures as one picture of panels: loss, learning rate, gradient norm, throughput, and scores.

In: the rows of metrics.jsonl and evaluations.jsonl. Out: a PNG that reads as well in black and white: curves differ by
width, shade and dashes, scores by their marks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import FloatArray

THIN: dict[str, Any] = {"linewidth": 0.6, "color": "0.62"}
THICK: dict[str, Any] = {"linewidth": 1.8, "color": "0.05"}
MARKS = "osD^vPX*"
MOST_POINTS = 5000  # of a thin curve; more cannot be told apart


def draw_curves(
    rows: Sequence[dict[str, Any]], path: Path, name: str, evaluations: Sequence[dict[str, Any]] = ()
) -> None:
    """Write the picture. rows: with `step`, `loss`, …; evaluations: with `step` and `tasks` (score, low, high each)."""
    from matplotlib.figure import Figure

    panels = [panel for panel in (_loss, _rate, _norm, _throughput) if panel is not _norm or _column(rows, "grad_norm")]
    count = len(panels) + bool(evaluations)
    high = math.ceil(count / 2)
    figure = Figure(figsize=(10, 2.9 * high), layout="constrained")
    spots = figure.subplots(high, 2, squeeze=False).flatten()
    for panel, axes in zip(panels, spots, strict=False):
        panel(axes, rows)
    if evaluations:
        _scores(spots[len(panels)], evaluations)
    for axes in spots[:count]:
        axes.set_xlabel("optimiser step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize="small")
    for axes in spots[count:]:
        axes.set_axis_off()
    figure.suptitle(name)
    figure.savefig(path, dpi=130)


def running_mean(values: Sequence[float] | FloatArray, width: int) -> FloatArray:
    """(N,) means of the last `width` values, of fewer at the beginning.

    >>> running_mean([1, 2, 3, 4], 2).tolist()
    [1.0, 1.5, 2.5, 3.5]
    """
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=np.float64)]))
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - width)
    means: FloatArray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _loss(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    _thin_and_mean(axes, rows, "loss")
    axes.set_ylabel("loss (nats per label token)")


def _rate(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes.plot(*_points(rows, "learning_rate"), **THICK)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _norm(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    _thin_and_mean(axes, rows, "grad_norm")
    axes.set_ylabel("gradient norm before clipping")
    norms = _column(rows, "grad_norm")
    if max(norms) > 50 * max(float(np.median(norms)), 1e-12):
        axes.set_yscale("log")


def _throughput(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    steps, seconds = _points(rows, "seconds")
    width = _width(len(steps))
    for key, title, style, room in (
        ("samples_per_second", "samples/s", "-", 1.15),
        ("tokens_per_second", "tokens/s", "--", 1.45),  # else both lines lie on one another
    ):
        at, rates = _points(rows, key)
        if not len(at) or len(at) != len(steps):
            continue
        work = running_mean(rates * seconds, width)  # work over time, not a mean of rates
        done = work / running_mean(seconds, width)
        here = axes if style == "-" else axes.twinx()
        here.plot(*_thinned(at, done), **(THICK | {"linestyle": style}))
        here.set_ylabel(f"{title} ({'solid' if style == '-' else 'dashed'})")
        here.set_ylim(0, room * float(done.max()))
        here.spines["top"].set_visible(False)


def _scores(axes: Any, evaluations: Sequence[dict[str, Any]]) -> None:
    tasks = dict.fromkeys(task for row in evaluations for task in row["tasks"])
    for number, task in enumerate(tasks):
        found = [(row["step"], row["tasks"][task]) for row in evaluations if task in row["tasks"]]
        scores = np.array([one["score"] for _, one in found])
        spread = np.array([[one["score"] - one["low"], one["high"] - one["score"]] for _, one in found]).clip(min=0).T
        shade = f"{0.05 + 0.5 * (number % 3) / 2:.2f}"
        axes.errorbar(
            [step for step, _ in found],
            scores,
            yerr=spread,  # (2, evaluations)
            marker=MARKS[number % len(MARKS)],
            linestyle=("-", "--", ":")[number % 3],
            color=shade,
            capsize=3,
            linewidth=1.2,
            label=task,
        )
    axes.set_ylabel("score in %, 95 % interval")
    axes.set_xlim(left=0)


def _thin_and_mean(axes: Any, rows: Sequence[dict[str, Any]], key: str) -> None:
    steps, values = _points(rows, key)
    width = _width(len(steps))
    axes.plot(*_thinned(steps, values), **THIN, label="step")
    if width > 1:
        axes.plot(*_thinned(steps, running_mean(values, width)), **THICK, label=f"mean of {width} steps")


def _width(steps: int) -> int:
    """Over how many steps curves are smoothed."""
    return max(1, steps // 20)


def _column(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]


def _points(rows: Sequence[dict[str, Any]], key: str) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """(steps, values) of the rows that have it, by step."""
    found = {row["step"]: row[key] for row in rows if row.get(key) is not None}
    steps = sorted(found)
    return np.array(steps, dtype=np.int64), np.array([found[step] for step in steps], dtype=np.float64)


def _thinned(steps: npt.NDArray[np.int64], values: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """At most about MOST_POINTS of them: of each stretch the least and the most, so that no peak is lost."""
    stretch = math.ceil(2 * len(steps) / MOST_POINTS)
    if stretch <= 2:
        return steps, values
    whole = len(steps) // stretch * stretch
    pieces = values[:whole].reshape(-1, stretch)  # (pieces, stretch)
    starts = np.arange(0, whole, stretch)
    ends = np.stack([pieces.argmin(1) + starts, pieces.argmax(1) + starts], axis=1)
    chosen = np.unique(np.concatenate([ends.ravel(), np.arange(whole, len(steps))]))
    return steps[chosen], values[chosen]
