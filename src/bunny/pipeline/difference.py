"""What differs between two curations: settings, who stays, and through which step and reason they went.

In: two run folders (or decision tables). Out: plain facts with counts and example ids, and a small HTML page with
thumbnails of the samples that only one of the two keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.types import BoolArray, IntArray
from bunny.pipeline.curated import SAMPLES, CuratedRun, find_run

EXAMPLES = 20
CLUSTERS = 20
THUMBNAILS = 48  # of each side
KEPT, ABSENT = "kept", "not in the pool"


def diff(a: Path, b: Path, page: Path | None = None) -> dict[str, Any]:
    """Compare two curations; `page`: where to write the HTML page. Raises UserError for a missing run."""
    first, second = find_run(a), find_run(b)
    content = compare(first, second)
    if page is not None:
        from bunny.core.store import write_atomic

        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(page, _page(content, first, second))
        content["page"] = str(page)
    return content


def compare(a: CuratedRun, b: CuratedRun) -> dict[str, Any]:
    """Counts (kept in both, in one, in none), flow from fate to fate, by source and cluster, settings, examples."""
    rows = _joined(a, b)
    kept_a, kept_b = rows.a.kept, rows.b.kept
    return {
        "a": a.name,
        "b": b.name,
        "settings": _settings(a, b),
        "counts": {
            "both": int((kept_a & kept_b).sum()),
            "only_a": int((kept_a & ~kept_b).sum()),
            "only_b": int((~kept_a & kept_b).sum()),
            "neither": int((~kept_a & ~kept_b).sum()),
            "not_in_a": int((rows.a.fate.codes < 0).sum()),
            "not_in_b": int((rows.b.fate.codes < 0).sum()),
        },
        "flow": _flow(rows),
        "sources": _by(rows, rows.source, "source"),
        "clusters": _by(rows, rows.cluster, "cluster")[:CLUSTERS],
        "only_a": rows.some_ids(kept_a & ~kept_b, EXAMPLES),
        "only_b": rows.some_ids(~kept_a & kept_b, EXAMPLES),
    }


def changed_ids(a: Path, b: Path) -> Iterator[tuple[str, str]]:
    """(sign, id) of every sample that only one keeps, in order of ids: `-` is kept by A only, `+` by B only."""
    rows = _joined(find_run(a), find_run(b))
    differs = np.flatnonzero(rows.a.kept != rows.b.kept)
    for start in range(0, len(differs), 10_000):
        some = differs[start : start + 10_000]
        for id, kept in zip(rows.some_ids(some, len(some)), rows.a.kept[some], strict=True):
            yield "-" if kept else "+", id


@dataclass(frozen=True)
class _Codes:
    """(N,) values as numbers into `names`, -1 where there is none: no Python object a row."""

    codes: IntArray
    names: list[Any]

    @staticmethod
    def of(column: Any) -> _Codes:
        """Of an Arrow column."""
        found = column.combine_chunks().dictionary_encode()
        return _Codes(found.indices.fill_null(-1).to_numpy(zero_copy_only=False), found.dictionary.to_pylist())


@dataclass(frozen=True)
class _Side:
    """What one curation says of N samples. kept: (N,) bool; fate: `kept`, or step and reason."""

    kept: BoolArray
    fate: _Codes


@dataclass(frozen=True)
class _Rows:
    """All ids of both curations, in order. cluster: A's."""

    ids: Any
    a: _Side
    b: _Side
    source: _Codes
    cluster: _Codes

    def some_ids(self, which: BoolArray | IntArray, count: int) -> list[str]:
        import pyarrow as pa

        rows = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return [str(id) for id in self.ids.take(pa.array(rows[:count])).to_pylist()]


def _joined(a: CuratedRun, b: CuratedRun) -> _Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = [_fates(run) for run in (a, b)]
    if tables[0].column("id").equals(tables[1].column("id")):
        ids = tables[0].column("id")
    else:
        ids = pc.unique(pa.chunked_array([chunk for table in tables for chunk in table.column("id").chunks]))
        ids = ids.take(pc.sort_indices(ids))
        tables = [table.take(pc.index_in(ids, value_set=table.column("id"))) for table in tables]
    sides = [
        _Side(table.column("kept").fill_null(False).to_numpy(), _Codes.of(table.column("fate"))) for table in tables
    ]
    source = pc.coalesce(*(table.column("source") for table in tables)).fill_null("")
    return _Rows(ids, sides[0], sides[1], _Codes.of(source), _Codes.of(tables[0].column("cluster")))


def _fates(run: CuratedRun) -> Any:
    """id, kept, fate (`kept`, or step and reason), source, cluster; of rows with one id the first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = run.rows(["id", "kept", "step", "reason", "source", "cluster"])
    ids = table.column("id")
    if pc.count_distinct(ids).as_py() != len(ids):  # rows rejected because their id was met before
        numbered = pa.table({"id": ids, "row": np.arange(len(ids))})
        first = numbered.group_by("id").aggregate([("row", "min")]).column("row_min")
        table = table.take(first.take(pc.sort_indices(first)))
    why = pc.binary_join_element_wise(table.column("step"), table.column("reason"), ": ")
    fate = pc.if_else(table.column("kept"), KEPT, why)
    for name in ("source", "cluster"):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table.drop_columns(["step", "reason"]).append_column("fate", fate)


def _settings(a: CuratedRun, b: CuratedRun) -> list[dict[str, Any]]:
    """Settings that differ: step, key, both values (null: not set; an empty key: the step as such)."""
    old, new = (dict(zip(run.labels, run.steps, strict=True)) for run in (a, b))
    found: list[dict[str, Any]] = []
    for label in dict.fromkeys([*old, *new]):
        if label not in old or label not in new:
            found.append({"step": label, "key": "", "a": old.get(label), "b": new.get(label)})
            continue
        for key in dict.fromkeys([*old[label], *new[label]]):
            if old[label].get(key) != new[label].get(key):
                found.append({"step": label, "key": key, "a": old[label].get(key), "b": new[label].get(key)})
    if list(old) != list(new) and sorted(old) == sorted(new):
        found.append({"step": "order", "key": "", "a": list(old), "b": list(new)})
    for key in ("seed", "embedder"):
        if a.summary.get(key) != b.summary.get(key):
            found.append({"step": "", "key": key, "a": a.summary.get(key), "b": b.summary.get(key)})
    return found


def _flow(rows: _Rows) -> list[dict[str, Any]]:
    """From one fate to another: how many, and a few ids; largest first, what stayed as it was left out."""
    names_a, names_b = ([*side.fate.names, ABSENT] for side in (rows.a, rows.b))  # ABSENT: index -1
    pair = (rows.a.fate.codes.astype(np.int64) + 1) * len(names_b) + rows.b.fate.codes + 1
    found = []
    for code, count in zip(*np.unique(pair, return_counts=True), strict=True):
        fate_a, fate_b = str(names_a[code // len(names_b) - 1]), str(names_b[code % len(names_b) - 1])
        if fate_a != fate_b:
            found.append({"a": fate_a, "b": fate_b, "count": int(count), "first": rows.some_ids(pair == code, 3)})
    return sorted(found, key=lambda one: (-one["count"], one["a"], one["b"]))


def _by(rows: _Rows, groups: _Codes, name: str) -> list[dict[str, Any]]:
    """Kept by A and by B in every group, most changed first."""
    known = groups.codes >= 0
    counts = [
        np.bincount(groups.codes[known & side.kept], minlength=len(groups.names)).tolist() for side in (rows.a, rows.b)
    ]
    found = [{name: value, "a": a, "b": b} for value, a, b in zip(groups.names, *counts, strict=True)]
    return sorted(found, key=lambda one: (-abs(one["a"] - one["b"]), one[name]))


def _page(content: Mapping[str, Any], a: CuratedRun, b: CuratedRun) -> str:
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    sides = [
        {
            "title": f"kept by {run.name} only",
            "count": content["counts"][key],
            "pictures": _pictures(run, other),
        }
        for run, other, key in ((a, b, "only_a"), (b, a, "only_b"))
    ]
    return environment.get_template("difference.html.j2").render(content=content, sides=sides)


def _pictures(run: CuratedRun, other: CuratedRun) -> list[dict[str, str]]:
    """Thumbnails of some samples that only `run` keeps, evenly spread over them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from bunny.data.containers import ImageError
    from bunny.pipeline.thumbnail import thumbnail

    if not (run.folder / SAMPLES).exists():
        return []
    mine, fates = _only(run, other)
    picked = set(mine[:: max(1, -(-len(mine) // THUMBNAILS))])
    rows = fates.filter(pc.is_in(fates.column("id"), value_set=pa.array(sorted(picked), pa.string())))
    why = {row["id"]: row["fate"] for row in rows.to_pylist()}
    shown = []
    for sample in run.samples():
        if sample.id in picked:
            try:
                picture = thumbnail(sample.images[0]) if sample.images else ""
            except ImageError:
                picture = ""
            shown.append(
                {"id": sample.id, "caption": sample.text, "picture": picture, "why": why.get(sample.id, ABSENT)}
            )
    return shown


def _only(run: CuratedRun, other: CuratedRun) -> tuple[Sequence[str], Any]:
    """Ids that `run` keeps and `other` does not, and the other's fates."""
    import pyarrow.compute as pc

    kept, fates = _fates(run), _fates(other)
    kept = kept.filter(kept.column("kept")).column("id")
    others = fates.filter(fates.column("kept")).column("id")
    return kept.filter(pc.invert(pc.is_in(kept, value_set=others))).to_pylist(), fates
