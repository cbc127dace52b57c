"""A `Selection` in, one self-contained HTML page out: what stayed, what went, why, with the pictures to judge it by.

The page's cost does not grow with the pool beyond a few passes over its numbers: pictures are drawn, histograms are
counted block by block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from bunny.core.seeds import stream
from bunny.core.store import write_atomic
from bunny.core.types import BoolArray, IntArray
from bunny.curate import charts
from bunny.curate.columns import Texts
from bunny.curate.engine import Selection, StepRun
from bunny.curate.report_groups import duplicate_groups
from bunny.curate.report_wall import SamplesOf, Thumbnail, Wall

KEPT_SHOWN, DROPPED_SHOWN, DROPPED_PICTURES = 36, 18, 180
CLUSTERS_SHOWN, CLUSTER_FACES = 6, 9
REASONS_SHOWN, SOURCES_SHOWN = 12, 24  # of a step; of the balance
BLOCK, DRAWN = 1 << 18, 200_000  # rows at a time; values from which a histogram's edges are taken
NAMES = {"pair_cosine": "Likeness of picture and caption", "centre_cosine": "Likeness to the group's centre"}


def write_report(
    selection: Selection,
    path: Path,
    *,
    samples_of: SamplesOf,
    thumbnail: Thumbnail,
    model: str,
    seconds: Mapping[str, float],
    memory: Mapping[str, float] | None = None,
    title: str = "Curation report",
) -> None:
    """Write the page. samples_of: rows of the pool -> their samples; thumbnail: a sample's picture. seconds: stage ->
    wall time; memory: stage -> peak anonymous bytes, as far as measured."""
    wall = Wall(selection, samples_of, thumbnail)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(files("bunny.curate").joinpath("report.html.j2").read_text(encoding="utf-8"))
    reasons = {run.planned.label: run.counts() for run in selection.runs}
    content = template.render(
        title=title,
        model=model,
        total=len(selection.pool) + len(selection.rejected),
        kept=int(wall.kept.sum()),
        kept_cards=wall.drawn(np.flatnonzero(wall.kept), KEPT_SHOWN),
        rejected=_few(Counter(item.reason.replace("_", " ") for item in selection.rejected)),
        rejected_count=len(selection.rejected),
        funnel=[_funnel(run, reasons[run.planned.label]) for run in selection.runs],
        scores=_scores(selection, wall.kept),
        duplicates=[
            duplicate_groups(selection, run, wall) for run in selection.runs if "component" in run.decision.columns
        ],
        clusters=_clusters(selection, wall),
        sources=_sources(selection, wall.kept),
        dropped=_dropped(selection, reasons, wall),
        stages=_stages(seconds, memory or {}),
        settings=[(run.planned.label, _written(run.planned.block), _notes(run)) for run in selection.runs],
        seed=selection.seed,
    )
    write_atomic(path, content)


def _funnel(run: StepRun, reasons: Mapping[str, int]) -> dict[str, Any]:
    """How many came, went, stayed, and why."""
    after = int(run.decision.keep.sum())
    return {"label": _name(run), "before": len(run.rows), "after": after, "reasons": _few(reasons)}


def _few(reasons: Mapping[str, int]) -> dict[str, int]:
    """The commonest reasons; the others as one."""
    ranked = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in ranked[REASONS_SHOWN:])
    return dict(ranked[:REASONS_SHOWN]) | ({f"{len(ranked) - REASONS_SHOWN} other reasons": rest} if rest else {})


def _scores(selection: Selection, kept: BoolArray) -> list[dict[str, str]]:
    """Histograms of the usual scores and of every column that a step ranks by."""
    ranked = [str(getattr(run.planned.step, "by", "") or "") for run in selection.runs]
    known = {name for name in selection.columns() if _numeric(selection, name)}
    names = [name for name in dict.fromkeys([*NAMES, *ranked]) if name in known]
    return [chart for name in names if (chart := _score(selection, name, kept))["drawing"]]


def _numeric(selection: Selection, name: str) -> bool:
    for run in reversed(selection.runs):
        if name in run.decision.columns:
            return run.decision.columns[name].dtype.kind in "fiu"
    values = selection.pool[name]
    return not isinstance(values, Texts) and values.dtype.kind in "fiu"


def _score(selection: Selection, name: str, kept: BoolArray) -> dict[str, str]:
    values, known = selection.column(name)
    band, text = None, "Strong: stays. Pale: goes, for whatever reason."
    for run in selection.runs:
        if getattr(run.planned.step, "by", None) == name and f"{name}_rank" in run.decision.columns:
            through = values[run.rows[run.decision.keep]]
            if len(through):
                band = (float(through.min()), float(through.max()))
                text += f" Shaded: what {run.planned.label} lets through, {band[0]:.3f} to {band[1]:.3f}."
    rows = np.arange(len(values))
    if len(rows) > DRAWN:
        rows = np.sort(stream("curate.report.histogram", 0).choice(rows, DRAWN, replace=False))
    some = values[rows][known[rows]].astype(np.float64)
    some = some[np.isfinite(some)]
    if not len(some):
        return {"title": "", "drawing": "", "text": ""}
    edges = charts.bins(some)
    stay, go = np.zeros(len(edges) - 1, np.int64), np.zeros(len(edges) - 1, np.int64)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        fine = known[start : start + BLOCK] & np.isfinite(block)
        here = kept[start : start + BLOCK]
        for counts, part in ((stay, fine & here), (go, fine & ~here)):
            counts += np.histogram(np.clip(block[part], edges[0], edges[-1]), edges)[0]
    drawing = charts.histogram(edges, stay, go, band, (name, "samples"), f"Histogram of {name}")
    return {"title": NAMES.get(name, name.replace("_", " ").capitalize()), "drawing": drawing, "text": text}


def _clusters(selection: Selection, wall: Wall) -> list[dict[str, Any]]:
    """The largest clusters with some of their pictures."""
    if "cluster" not in selection.columns():
        return []
    label, known = selection.column("cluster")
    size = np.bincount(label[known & (label >= 0)])
    found = []
    for number in np.argsort(-size, kind="stable")[:CLUSTERS_SHOWN]:
        if not size[number]:
            break
        members = np.flatnonzero(known & (label == number))
        cards = wall.drawn(members, CLUSTER_FACES)
        stay = int(wall.kept[members].sum())
        found.append({"label": int(number), "size": len(members), "kept": stay, "cards": cards})
    return found


def _sources(selection: Selection, kept: BoolArray) -> list[dict[str, Any]]:
    """Each source's share before and after, largest first."""
    if "source" not in selection.pool:
        return []
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    column = selection.pool["source"]
    for start in range(0, len(column), BLOCK):
        codes, words = _encoded(column[start : start + BLOCK])
        for counted, some in ((before, codes), (after, codes[kept[start : start + BLOCK]])):
            counted.update(dict(zip(words, np.bincount(some, minlength=len(words)).tolist(), strict=True)))
    ranked = sorted(before, key=lambda word: (-before[word], word))
    if len(ranked) > SOURCES_SHOWN:
        rest = ranked[SOURCES_SHOWN - 1 :]
        name = f"{len(rest)} other sources"
        ranked = [*ranked[: SOURCES_SHOWN - 1], name]
        before[name], after[name] = sum(before[word] for word in rest), sum(after[word] for word in rest)
    all_before, all_after = max(1, len(column)), max(1, int(kept.sum()))
    return [
        {
            "name": word or "(no name)",
            "before": before[word],
            "after": after[word],
            "share_before": before[word] / all_before,
            "share_after": after[word] / all_after,
        }
        for word in ranked
    ]


def _encoded(words: Any) -> tuple[IntArray, list[str]]:
    """Numbers of the words in a block, and the words."""
    import pyarrow as pa

    array = words.arrow() if isinstance(words, Texts) else pa.array(words, pa.string())
    found = pa.chunked_array(array.chunks if hasattr(array, "chunks") else [array]).combine_chunks().dictionary_encode()
    found = found.combine_chunks() if hasattr(found, "chunks") else found
    return found.indices.to_numpy(), [str(word) for word in found.dictionary.to_pylist()]


def _dropped(selection: Selection, reasons: Mapping[str, Mapping[str, int]], wall: Wall) -> list[dict[str, Any]]:
    """Per step and reason: the count and some cards, as long as there is room for pictures."""
    found, shown = [], 0
    for run in selection.runs:
        for reason, count in list(reasons[run.planned.label].items())[:REASONS_SHOWN]:
            most = min(DROPPED_SHOWN, DROPPED_PICTURES - shown)
            if most <= 0:
                break
            cards = wall.drawn(run.dropped_for(reason), most)
            shown += len(cards)
            found.append({"step": _name(run), "reason": reason, "count": count, "cards": cards})
    return found


def _stages(seconds: Mapping[str, float], memory: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        {"name": name, "seconds": spent, "share": spent / longest, "memory": memory.get(name)}
        for name, spent in seconds.items()
    ]


def _notes(run: StepRun) -> str:
    """What a step says of itself, in words."""
    return ", ".join(
        f"{key.replace('_', ' ')}: {value:.4g}" if isinstance(value, float) else f"{key.replace('_', ' ')}: {value}"
        for key, value in run.decision.notes.items()
        if isinstance(value, str | int | float)
    )


def _name(run: StepRun) -> str:
    """The step's label, with the column it goes by."""
    by = run.planned.block.get("by")
    return f"{run.planned.label} · {by}" if by else run.planned.label


def _written(block: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in block.items() if key != "use")
