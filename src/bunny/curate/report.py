"""A `Selection` in, one self-contained HTML page out: what stayed, what went, why, with the pictures to judge it by."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.seeds import stream
from bunny.core.store import write_atomic
from bunny.core.types import IntArray, Sample
from bunny.curate import charts
from bunny.curate.engine import Selection, StepRun

SIDE = 96  # pixels of a picture in the report
MOST_BYTES = 5_000_000  # of all pictures together; later ones are left out, their captions stay
KEPT_SHOWN, DROPPED_SHOWN, GROUPS_SHOWN, MEMBERS_SHOWN = 36, 18, 16, 8

Thumbnail = Callable[[Sample], Image.Image]


def write_report(
    selection: Selection,
    samples: Sequence[Sample],
    path: Path,
    *,
    thumbnail: Thumbnail,
    model: str,
    seconds: Mapping[str, float],
    title: str = "Curation report",
) -> None:
    """Write the page. samples: at least those of the pool. seconds: stage -> wall time."""
    wall = _Wall(selection, {sample.id: sample for sample in samples}, thumbnail)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(files("bunny.curate").joinpath("report.html.j2").read_text(encoding="utf-8"))
    kept = int(selection.kept().sum())
    content = template.render(
        title=title,
        model=model,
        total=len(selection.pool) + len(selection.rejected),
        kept=kept,
        rejected=_count(item.reason.replace("_", " ") for item in selection.rejected),
        funnel=_funnel(selection),
        charts=_charts(selection),
        groups=_groups(selection, wall),
        kept_cards=wall.cards(np.flatnonzero(selection.kept()), KEPT_SHOWN),
        dropped=_dropped(selection, wall),
        seconds=dict(seconds),
        settings=[(run.planned.label, _written(run.planned.block)) for run in selection.runs],
        seed=selection.seed,
    )
    write_atomic(path, content)


@dataclass(frozen=True, slots=True)
class Card:
    """A picture with its words. picture: a data address, empty where there was no room or nothing to read."""

    id: str
    caption: str
    picture: str
    note: str = ""
    stays: bool = True


class _Wall:
    """Makes cards, and keeps count of the bytes of their pictures."""

    def __init__(self, selection: Selection, samples: Mapping[str, Sample], thumbnail: Thumbnail) -> None:
        self.pool, self.samples, self.thumbnail = selection.pool, samples, thumbnail
        self.twins, self.cosines, self.kept = selection.twins(), selection.twin_cosines(), selection.kept()
        self.rng = stream("curate.report", selection.seed)
        self.bytes = 0

    def cards(self, rows: IntArray, most: int) -> list[Card]:
        """Cards of up to `most` of the rows, drawn at random, in order."""
        drawn = np.sort(self.rng.choice(rows, min(most, len(rows)), replace=False))
        return [self.card(int(row)) for row in drawn]

    def card(self, row: int, note: str = "") -> Card:
        id, twin = str(self.pool["id"][row]), int(self.twins[row])
        if not note and twin >= 0:
            caption = str(self.pool["caption"][twin])
            same = caption == str(self.pool["caption"][row])
            note = f"{self.cosines[row]:.3f}" + ("" if same else f" to “{_short(caption)}”")
        return Card(id, _short(str(self.pool["caption"][row])), self._picture(id), note, bool(self.kept[row]))

    def _picture(self, id: str) -> str:
        if self.bytes > MOST_BYTES:
            return ""
        try:
            image = self.thumbnail(self.samples[id]).convert("RGB")
        except (UserError, OSError):
            return ""  # the page shows the caption with "no picture"
        image.thumbnail((SIDE, SIDE))
        data = io.BytesIO()
        image.save(data, "WEBP", quality=70, method=4)
        self.bytes += len(data.getvalue()) * 4 // 3
        return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def _funnel(selection: Selection) -> list[dict[str, Any]]:
    """One entry per step: how many came, went, stayed, and why."""
    return [
        {
            "label": _name(run),
            "before": len(run.rows),
            "after": int(run.decision.keep.sum()),
            "reasons": run.counts(),
            "seconds": run.seconds,
        }
        for run in selection.runs
    ]


def _charts(selection: Selection) -> list[dict[str, str]]:
    """Title, drawing, and a sentence of explanation each."""
    found = []
    for run in selection.runs:
        if "link_cosine" in run.decision.columns:
            found += [_threshold_curve(run), _group_sizes(run)]
    for name in ("pair_cosine", "centre_cosine"):
        if name in selection.columns():
            found.append(_score_histogram(selection, name))
    return [chart for chart in found if chart["drawing"]]


def _threshold_curve(run: StepRun) -> dict[str, str]:
    links = run.decision.columns["link_cosine"]
    above = float(getattr(run.planned.step, "above", np.nan))
    lowest = float(getattr(run.planned.step, "curve_from", above))
    thresholds = np.round(np.arange(min(0.8, above) if lowest <= 0.8 else lowest, 0.9951, 0.005), 3)
    removed = [int((links >= threshold).sum()) for threshold in thresholds]
    return {
        "title": "Near duplicates by threshold",
        "drawing": charts.curve(
            thresholds.tolist(),
            removed,
            above,
            ("cosine from which two pictures count as linked", "pictures removed"),
            f"Pictures removed by {run.planned.label} at thresholds from {thresholds[0]:.2f} to {thresholds[-1]:.2f}",
        ),
        "text": f"At the threshold used, {above:g}, {int((links >= above).sum()):,} of {len(run.rows):,} go.",
    }


def _group_sizes(run: StepRun) -> dict[str, str]:
    size = np.bincount(run.decision.columns["component"]) if len(run.rows) else np.zeros(1, int)
    bins = [
        ("2", 2, 2),
        ("3", 3, 3),
        ("4", 4, 4),
        ("5", 5, 5),
        ("6–10", 6, 10),
        ("11–20", 11, 20),
        ("21+", 21, 1 << 62),
    ]
    counts = [int(((size >= low) & (size <= high)).sum()) for _, low, high in bins]
    largest = int(size.max())
    return {
        "title": "Sizes of duplicate groups",
        "drawing": charts.columns(
            [name for name, _, _ in bins], counts, ("pictures in the group", "groups"), "How many groups of each size"
        )
        if sum(counts)
        else "",
        "text": f"The largest group has {largest:,} pictures. A very large one may be a chain: look at it below.",
    }


def _score_histogram(selection: Selection, name: str) -> dict[str, str]:
    values, known = selection.column(name)
    known = known & np.isfinite(values)
    kept = selection.kept()
    band, text = None, "Strong: stays. Pale: goes, for whatever reason."
    for run in selection.runs:
        if (
            getattr(run.planned.step, "by", None) == name
            and f"{name}_rank" in run.decision.columns
            and run.decision.keep.any()
        ):
            through = values[run.rows[run.decision.keep]]
            band = (float(through.min()), float(through.max()))
            text += f" Shaded: what {run.planned.label} lets through, {band[0]:.3f} to {band[1]:.3f}."
    what = {"pair_cosine": "Likeness of picture and caption", "centre_cosine": "Likeness to the group's centre"}[name]
    drawing = charts.histogram(
        values[known & kept], values[known & ~kept], band, (name, "samples"), f"Histogram of {name}"
    )
    return {"title": what, "drawing": drawing, "text": text}


def _groups(selection: Selection, wall: _Wall) -> list[dict[str, Any]]:
    """The largest duplicate groups and a draw of the others: members from the kept one outwards."""
    found = []
    for run in selection.runs:
        if "component" not in run.decision.columns:
            continue
        component, cosine = run.decision.columns["component"], run.decision.columns["twin_cosine"]
        size = np.bincount(component) if len(component) else np.zeros(0, int)
        several = np.flatnonzero(size > 1)
        largest = several[np.argsort(-size[several], kind="stable")][: GROUPS_SHOWN // 2]
        rest = np.setdiff1d(several, largest)
        others = np.sort(wall.rng.choice(rest, min(GROUPS_SHOWN - len(largest), len(rest)), replace=False))
        for group in [*largest, *others]:
            members = np.flatnonzero(component == group)
            ranked = members[np.argsort(-np.nan_to_num(cosine[members], nan=2.0), kind="stable")]
            shown = [*ranked[: MEMBERS_SHOWN - 2], *ranked[MEMBERS_SHOWN - 2 :][-2:]]  # the nearest and the farthest
            notes = ["stays" if run.decision.keep[row] else f"{cosine[row]:.3f}" for row in shown]
            cards = [wall.card(int(run.rows[row]), note) for row, note in zip(shown, notes, strict=True)]
            found.append({"size": len(members), "lowest": float(np.nanmin(cosine[members])), "cards": cards})
    return found


def _dropped(selection: Selection, wall: _Wall) -> list[dict[str, Any]]:
    """Per step and reason: the count and some cards."""
    found = []
    for run in selection.runs:
        for reason, count in run.counts().items():
            rows = run.rows[run.decision.reason.astype(str) == reason]
            cards = wall.cards(rows, DROPPED_SHOWN)
            found.append({"step": _name(run), "reason": reason, "count": count, "cards": cards})
    return found


def _name(run: StepRun) -> str:
    """The step's label, with the column it goes by."""
    by = run.planned.block.get("by")
    return f"{run.planned.label} · {by}" if by else run.planned.label


def _count(reasons: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _written(block: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in block.items() if key != "use")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
