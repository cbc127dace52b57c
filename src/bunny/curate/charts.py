"""Numbers in, small inline SVG drawings out; the page's style sheet gives them their colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from bunny.core.types import FloatArray, IntArray

WIDTH, HEIGHT = 560, 240  # drawing units
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 28, 42  # margins for the axis labels


def curve(x: Sequence[float], y: Sequence[float], marked: float | None, labels: tuple[str, str], alt: str) -> str:
    """A line through (x, y) with its area, and a dashed upright at `marked`. labels: of both axes."""
    across, up = _scale(min(x), max(x), LEFT, WIDTH - RIGHT), _scale(0, _nice(max(y)), HEIGHT - BOTTOM, TOP)
    points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True))
    area = f"{across(x[0]):.1f},{up(0):.1f} {points} {across(x[-1]):.1f},{up(0):.1f}"
    body = [f'<polygon class="area" points="{area}"/>', f'<polyline class="line" points="{points}"/>']
    if marked is not None and min(x) <= marked <= max(x):
        place, height = across(marked), up(float(np.interp(marked, x, y)))
        body.append(f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        body.append(f'<circle class="dot" cx="{place:.1f}" cy="{height:.1f}" r="4.5"/>')
    ticks = [(across(value), name) for value, name in _ticks(min(x), max(x))]
    return _frame(body, ticks, _levels(_nice(max(y)), up), labels, alt)


def histogram_of(
    stay: FloatArray, go: FloatArray, band: tuple[float, float] | None, labels: tuple[str, str], alt: str
) -> str:
    """`histogram` of all values at hand; empty without any."""
    both = np.concatenate([stay, go])
    if not len(both):
        return ""
    edges = bins(both)
    counts = (np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] for part in (stay, go))
    low, high = counts
    return histogram(edges, low, high, band, labels, alt)


def bins(values: FloatArray) -> FloatArray:
    """(41,) edges of bars over all but the most extreme values (or of a draw of them)."""
    least, most = (float(value) for value in np.percentile(values, [0.2, 99.8]))
    return np.linspace(least - 1e-6, most + 1e-6, 41)


def histogram(
    edges: FloatArray, stay: IntArray, go: IntArray, band: tuple[float, float] | None, labels: tuple[str, str], alt: str
) -> str:
    """Stacked bars: strong for rows that stay, pale for rows that go. edges: (B + 1,); stay, go: (B,) counts. band:
    values that were let through."""
    top = _nice(int((stay + go).max()))
    across, up = _scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT), _scale(0, top, HEIGHT - BOTTOM, TOP)
    body = []
    if band is not None:
        a, b = (across(min(max(value, edges[0]), edges[-1])) for value in band)
        body.append(f'<rect class="band" x="{a:.1f}" y="{TOP}" width="{b - a:.1f}" height="{HEIGHT - BOTTOM - TOP}"/>')
    for start, end, strong, pale in zip(edges[:-1], edges[1:], stay, go, strict=True):
        x, wide = across(start), max(1.0, across(end) - across(start) - 1.5)
        for kind, foot, count in (("bar", 0, strong), ("bar pale", strong, pale)):
            if count:
                y, tall = up(foot + count), up(foot) - up(foot + count)
                body.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>')
    ticks = [(across(value), name) for value, name in _ticks(float(edges[0]), float(edges[-1]))]
    return _frame(body, ticks, _levels(top, up), labels, alt)


def columns(names: Sequence[str], counts: Sequence[int], labels: tuple[str, str], alt: str) -> str:
    """One bar per name, its count above it."""
    up = _scale(0, _nice(max(counts)), HEIGHT - BOTTOM, TOP + 8)
    wide = (WIDTH - LEFT - RIGHT) / len(names)
    body, ticks = [], []
    for place, (name, count) in enumerate(zip(names, counts, strict=True)):
        x, y = LEFT + place * wide, up(count)
        tall = HEIGHT - BOTTOM - y
        body.append(
            f'<rect class="bar" x="{x + wide * 0.18:.1f}" y="{y:.1f}" width="{wide * 0.64:.1f}" height="{tall:.1f}"/>'
        )
        body.append(f'<text class="value" x="{x + wide / 2:.1f}" y="{y - 4:.1f}">{count:,}</text>')
        ticks.append((x + wide / 2, name))
    return _frame(body, ticks, _levels(_nice(max(counts)), up), labels, alt)


class _scale:
    """A straight map from values to drawing units."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start, self.per_unit = low, start, (end - start) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.per_unit


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values within the range, at most nine, and their names."""
    power = 10.0 ** np.floor(np.log10(max(high - low, 1e-9) / 8))
    step = next(size * power for size in (1, 2, 5, 10) if (high - low) / (size * power) <= 8)
    places = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [(place * step, f"{place * step:,.{places}f}") for place in range(first, last + 1)]


def _nice(top: float) -> int:
    """The next of 1, 2, 5 times a power of ten that is no smaller, at least 5."""
    power: int = 10 ** int(np.floor(np.log10(max(top, 1))))
    return max(5, next(step * power for step in (1, 2, 5, 10) if step * power >= top))


def _levels(top: int, up: _scale) -> list[tuple[float, str]]:
    return [(up(value), f"{value:,.0f}") for value in (0, top / 2, top)]


def _frame(
    body: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    levels: Sequence[tuple[float, str]],
    labels: tuple[str, str],
    alt: str,
) -> str:
    """The drawing with its grid, tick labels and axis names."""
    lines = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">']
    for y, name in levels:
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{name}</text>')
    lines += body
    lines += [f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}">{escape(name)}</text>' for x, name in ticks]
    lines.append(f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}">{escape(labels[0])}</text>')
    lines.append(f'<text class="axis start" x="2" y="{TOP - 13}">{escape(labels[1])}</text></svg>')
    return "\n".join(lines)
