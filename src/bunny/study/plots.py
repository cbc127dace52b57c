"""The report's figures, readable in black and white: marks, dashes and hatches tell what is what.

In: scores, comparisons, curves, costs. Out: PNG files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bunny.study.findings import Comparison, Score

MARKS = "osD^vPX*<>hp"
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
HATCHES = ("", "///", "...", "xxx")
SHADES = ("0.1", "0.45", "0.7")
SMOOTH = 8  # steps of the running mean of a loss curve, at most a quarter of them


def forest(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """One line a comparison: the difference with its interval; filled marks are sure after correction."""
    figure, axes = _figure(9, 1.2 + 0.34 * len(comparisons))
    for place, one in enumerate(reversed(comparisons)):
        found, sure = one.estimate, one.mark != "unsure"
        axes.plot([found.low, found.high], [place, place], color="0.2", linewidth=1.2)
        axes.plot(found.mean, place, "o", color="0.1", markerfacecolor="0.1" if sure else "white", markersize=6)
    axes.axvline(0, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(comparisons)))
    axes.set_yticklabels([f"{one.arm.title} - {one.reference.title}" for one in reversed(comparisons)], fontsize=8)
    axes.set_xlabel("points, with 95 % interval over seeds and pictures; filled: sure after correction")
    _finish(figure, axes, path, title)


def by_share(scores: Sequence[Score], path: Path, title: str) -> None:
    """Scores against the share of the pool; whole selections as horizontal lines."""
    figure, axes = _figure(8, 4.6)
    for number, name in enumerate(dict.fromkeys(score.arm.selection for score in scores)):
        some = sorted(
            (one for one in scores if one.arm.selection == name and one.arm.share is not None),
            key=lambda one: one.arm.share or 0,
        )
        style = {"color": SHADES[number % 3], "linestyle": DASHES[number % len(DASHES)]}
        for whole in (one for one in scores if one.arm.selection == name and one.arm.share is None):
            axes.axhline(whole.estimate.mean, label=name, linewidth=1.4, **style)
        if some:
            x = [100 * (one.arm.share or 0) * (1 + 0.02 * number) for one in some]
            axes.errorbar(
                x,
                [one.estimate.mean for one in some],
                yerr=[
                    [one.estimate.mean - one.estimate.low for one in some],
                    [one.estimate.high - one.estimate.mean for one in some],
                ],
                marker=MARKS[number % len(MARKS)],
                capsize=3,
                label=name,
                **style,
            )
    shares = sorted({100 * (one.arm.share or 0) for one in scores if one.arm.share is not None})
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.set_xlabel("share of the pool, % (set apart a little, so that intervals can be seen)")
    axes.set_ylabel("score, %")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, axes, path, title)


def curves(losses: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """Loss against steps, each the mean over seeds, smoothed."""
    figure, axes = _figure(8, 4.2)
    width = max(1, min(SMOOTH, *(len(values) // 4 for values in losses.values())))
    for number, (name, values) in enumerate(losses.items()):
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(
            np.arange(width, len(values) + 1),
            smooth,
            label=name,
            color=SHADES[number % 3],
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.4,
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"training loss, mean of {width} steps")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, axes, path, title)


def progress(scores: Mapping[str, Sequence[tuple[int, float]]], path: Path, title: str) -> None:
    """Score against steps, each the mean over seeds. scores: arm -> (step, score)."""
    figure, axes = _figure(8, 4.2)
    for number, (name, points) in enumerate(scores.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(
            steps,
            values,
            marker=MARKS[number % len(MARKS)],
            label=name,
            color=SHADES[number % 3],
            linestyle=DASHES[number % len(DASHES)],
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("score while learning, %")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, axes, path, title)


def costs(spent: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """CPU-seconds of curation, training and asking as stacked bars."""
    figure, axes = _figure(8, 1.2 + 0.32 * len(spent))
    names = list(spent)
    left = np.zeros(len(names))
    for number, part in enumerate(("curate", "train", "ask")):
        width = np.array([spent[name][part] for name in names])
        axes.barh(
            names,
            width,
            left=left,
            label=part,
            color=("0.3", "0.75", "1.0")[number],
            hatch=HATCHES[number],
            edgecolor="0.1",
        )
        left += width
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("CPU-seconds of one cell; curate: with the embedding, which cells share")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, axes, path, title)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Any, axes: Any, path: Path, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
