"""What would have to change for a dropped sample to stay, as far as the decision table tells.

In: a curation and a row of its table. Out: sentences that name a setting and the value from which the step that
dropped it would let it pass; later steps may still drop it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bunny.core.types import FloatArray, IntArray
from bunny.pipeline.curated import CuratedRun

MEMBERS = 20_000  # of a duplicate group, for which thresholds are tried


def would_stay(run: CuratedRun, row: Mapping[str, Any]) -> list[str]:
    """Settings at which the step that dropped the row would keep it."""
    label = str(row["step"])
    settings = dict(zip(run.labels, run.steps, strict=True)).get(label, {})
    use = str(settings.get("use", label))
    if use == "dedup":
        return _other_threshold(run, row, label, settings)
    if use == "band":
        return _other_band(run, row, label, settings)
    if use == "exact":
        by = settings.get("by", "sha256")
        what = "pixels are" if by == "sha256" else f"{by} is"
        return [f"only without `{label}`: its {what} the same as an earlier sample's"]
    if use == "sample":
        return [f"at a larger `{label}.{'count' if 'count' in settings else 'share'}`: it was not drawn"]
    if label == "reading":
        return ["when it can be read"]
    return [f"at settings of `{label}` by which this is not so: {row['reason']}"]


def _other_band(run: CuratedRun, row: Mapping[str, Any], label: str, settings: Mapping[str, Any]) -> list[str]:
    rank = row.get(f"{settings.get('by')}_rank")
    if rank is None:
        return [f"only with a value of {settings.get('by')}"]
    if rank < settings.get("low", 0.0):
        return [f"at {label}.low <= {math.floor(rank * 1e4) / 1e4:g} (its rank is {rank:.4f})"]
    step = run.summary["steps"][run.labels.index(label)]
    ranked = step["in"] - step["reasons"].get(f"no {settings['by']}", 0)
    return [f"at {label}.high >= {_up(rank + 1 / ranked):g} (its rank is {rank:.4f})"]


def _other_threshold(run: CuratedRun, row: Mapping[str, Any], label: str, settings: Mapping[str, Any]) -> list[str]:
    """The lowest threshold above the present one at which the row would be the one of its group that stays."""
    import pyarrow.dataset as ds

    from bunny.curate.levels import grid

    above, keep = float(settings["above"]), str(settings.get("keep", "median"))
    score = str(settings.get("by") or "centre_cosine")
    members = run.rows(["id", "link_to", "link_cosine", score], ds.field("component") == row.get("component"))
    names = set(members.column_names)
    cosine = row.get("twin_cosine")
    perhaps = [] if cosine is None else [f"perhaps at {label}.above > {cosine:.4f}, its cosine to its twin"]
    if not {"link_to", "link_cosine"} <= names or not 0 < len(members) <= MEMBERS:
        return perhaps
    ids = members.column("id").to_pylist()
    place = {id: number for number, id in enumerate(ids)}
    ends = [(place[id], place.get(to, -1)) for id, to in zip(ids, members.column("link_to").to_pylist(), strict=True)]
    edges = np.array(ends, dtype=np.int64)  # (n, 2)
    weight = members.column("link_cosine").cast("float32").fill_null(float("nan")).to_numpy()
    best = members.column(score).fill_null(float("nan")).to_numpy() if score in names else None
    if settings.get("linking", "chain") != "chain":
        best = None  # who stays of a star that has split is not in the table
    thresholds = grid(above, above)
    for link in np.unique(weight[(edges[:, 1] >= 0) & (weight >= np.float32(above))]):
        left, higher = edges[(edges[:, 1] >= 0) & (weight > link)], thresholds[thresholds > link]
        if _stays(place[row["id"]], left, best, keep):
            others = len(_group(place[row["id"]], left)) - 1
            why = f"it stands for the {others} still linked to it" if others else "nothing is linked to it any more"
            return [f"at {label}.above >= {_up(higher[0]):g}, where {why}"] if len(higher) else perhaps
    return perhaps


def _up(value: float) -> float:
    """The value rounded up to four decimals; what float32 adds to a round number does not count."""
    return math.ceil(round(value * 1e4, 3)) / 1e4


def _stays(own: int, edges: IntArray, best: FloatArray | None, keep: str) -> bool:
    """Whether the row is the one of its group that stays. edges: (m, 2) links that are left."""
    group = _group(own, edges)
    if len(group) == 1 or best is None:
        return len(group) == 1
    order = group[np.lexsort((group, -np.nan_to_num(best[group], nan=-np.inf)))]
    return bool(order[{"median": len(order) // 2, "farthest": len(order) - 1}.get(keep, 0)] == own)


def _group(own: int, edges: IntArray) -> IntArray:
    """Rows that are linked to one, directly or in a chain, itself among them."""
    found: set[int] = {own}
    beside: dict[int, list[int]] = {}
    for one, other in edges.tolist():
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    open_ends = [own]
    while open_ends:
        fresh = [row for row in beside.get(open_ends.pop(), ()) if row not in found]
        found.update(fresh)
        open_ends += fresh
    return np.array(sorted(found), dtype=np.int64)
