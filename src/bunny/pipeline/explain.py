"""Why a sample was kept or dropped: from the decision table, and from the vectors where the pool is still there.

In: a run folder and a sample's id. Out: plain facts: its fate, the chain of twins that stands for it, its place in
every rank, its nearest neighbours and what became of them, and at which settings it would have stayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.types import IntArray
from bunny.pipeline.curated import CuratedRun, find_run
from bunny.pipeline.staying import would_stay

NEIGHBOURS = 5  # shown, of the kept and of the dropped ones each
COMPARED = 50_000  # pictures at most that it is compared with
SHOWN_TWINS = 10


def explain(run: Path, sample: str) -> dict[str, Any]:
    """Everything known about the sample's fate. Raises UserError for an unknown run or id, naming near ones."""
    curated = find_run(run)
    row = curated.row(sample)
    told = {
        key: row[key] for key in ("id", "kept", "step", "reason", "source", "caption") if row.get(key) not in ("", None)
    }
    told["twins"] = _chain(curated, row)
    told["stands_for"] = _stands_for(curated, sample)
    told["ranks"] = _ranks(curated, row)
    told["groups"] = _groups(curated, row)
    told["would_stay"] = [] if row["kept"] else would_stay(curated, row)
    told["neighbours"] = _neighbours(curated, row)
    shown = {"twin", "twin_kept", "twin_cosine", *told}
    told["columns"] = {key: value for key, value in row.items() if value not in ("", None) and key not in shown}
    return {key: value for key, value in told.items() if value not in ([], {}, None)}


def _chain(run: CuratedRun, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sample that stands for it, and so on while that one was dropped for a twin of its own."""
    chain: list[dict[str, Any]] = []
    seen = {row["id"]}
    while row.get("twin") and row["twin"] not in seen and len(chain) < SHOWN_TWINS:
        cosine = row.get("twin_cosine")
        row = run.row(row["twin"])
        seen.add(row["id"])
        chain.append(_fate(row) | ({} if cosine is None else {"cosine": round(cosine, 4)}))
    return chain


def _stands_for(run: CuratedRun, id: str) -> dict[str, Any]:
    """How many dropped samples it stands for, and the first few."""
    import pyarrow.dataset as ds

    found = run.rows(["id", "twin_cosine"], ds.field("twin") == id)
    first = found.slice(0, SHOWN_TWINS).to_pylist()
    return {"count": len(found), "first": first} if len(found) else {}


def _ranks(run: CuratedRun, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its place in every rank, 0 = highest, and what the step that ranks lets through."""
    settings = {label: block for label, block in zip(run.labels, run.steps, strict=True) if "by" in block}
    found = []
    for name, rank in row.items():
        if name.endswith("_rank") and rank is not None:
            by = name.removesuffix("_rank")
            label = next((label for label, block in settings.items() if block["by"] == by), "")
            band: dict[str, Any] = {
                key: settings[label][key] for key in ("low", "high") if key in settings.get(label, {})
            }
            place: dict[str, Any] = {"by": by, "rank": round(rank, 4)}
            if row.get(by) is not None:
                place["value"] = round(row[by], 4)
            if label:
                place.update(step=label, **band)
            found.append(place)
    return found


def _groups(run: CuratedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """Size of its cluster and of its duplicate group, and how many of them stay."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    found = {}
    for name in ("cluster", "component"):
        if row.get(name) is not None:
            members = run.rows(["kept"], ds.field(name) == row[name]).column("kept")
            if name == "cluster" or len(members) > 1:
                kept = int(pc.sum(members).as_py() or 0)
                found[name] = {"number": row[name], "size": len(members), "kept": kept}
    return found


def _neighbours(run: CuratedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest pictures of its clusters (of a share of all where it has none), kept and dropped ones apart."""
    if run.pool is None or row["step"] == "reading":
        return {}
    from bunny.curate.pool import PoolFolder

    pool = PoolFolder(run.pool).pool()
    own = _place(pool["id"], row["id"])
    if own is None or "visual" not in pool:
        return {}
    candidates, where = _candidates(run, row, len(pool))
    candidates = candidates[candidates != own]
    cosine = pool["visual"].read(candidates) @ pool["visual"].read(np.array([own]))[0]  # (n,)
    kept = np.asarray(run.rows(["kept"]).column("kept"))[candidates]
    found: dict[str, Any] = {"compared": len(candidates), "where": where}
    for name, mask in (("kept", kept), ("dropped", ~kept)):
        some = np.flatnonzero(mask & np.isfinite(cosine))
        best = some[np.argsort(-cosine[some], kind="stable")[:NEIGHBOURS]]
        rows = [run.row(id) for id in pool["id"][candidates[best]]]
        found[name] = [_fate(one) | {"cosine": round(float(cosine[at]), 4)} for one, at in zip(rows, best, strict=True)]
    return found


def _candidates(run: CuratedRun, row: Mapping[str, Any], count: int) -> tuple[IntArray, str]:
    """Rows to compare with: those of its cluster, then of the others near it; else evenly spread ones."""
    if row.get("cluster") is None:
        step = max(1, -(-count // COMPARED))
        return np.arange(0, count, step), "the pool" if step == 1 else f"every {step}th of the pool"
    cluster = run.rows(["cluster"]).column("cluster").fill_null(-1).to_numpy()[:count]
    others = [row.get(name) for name in ("second_cluster", "third_cluster")]
    wanted = [row["cluster"], *(number for number in others if number is not None and number >= 0)]
    rows = np.concatenate([np.flatnonzero(cluster == number) for number in wanted])
    name = " and ".join(f"cluster {number}" for number in wanted)
    return rows[:COMPARED], name if len(rows) <= COMPARED else f"the first {COMPARED} of {name}"


def _place(ids: Any, id: str) -> int | None:
    """Row of an id in a sorted column, read in steps."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if str(ids[middle]) < id:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ids) and str(ids[low]) == id else None


def _fate(row: Mapping[str, Any]) -> dict[str, Any]:
    why = {} if row["kept"] else {"step": row["step"], "reason": row["reason"]}
    caption = {"caption": row["caption"]} if row.get("caption") else {}
    return {"id": row["id"], "kept": row["kept"], **why, **caption}
