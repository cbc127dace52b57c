"""What the browser asks of a finished curation. In: the decision table, the pool, overrides. Out: JSON-able records.

Rows are numbered as in the table; its first rows are the pool's, in the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bunny.core.errors import UserError
from bunny.core.seeds import stream
from bunny.core.types import BoolArray, FloatArray, IntArray, Sample
from bunny.curate.explore.decisions import Decisions, plain
from bunny.curate.explore.groups import Groups, at_threshold, grid_of, removed
from bunny.curate.explore.overrides import Overrides
from bunny.curate.explore.plane import plane
from bunny.curate.explore.query import Filter, Query, parse

CAPTION = 160  # characters of it in a list
MOST_ROWS, SHOWN_FACES, SHOWN_PAIRS = 500, 12, 60
MAP_ROWS, NEIGHBOUR_ROWS, NEIGHBOURS = 20_000, 20_000, 12


class PoolRows(Protocol):
    """The pool behind the table."""

    def vectors(self, rows: IntArray) -> FloatArray:
        """(n, D) float32 unit rows by which pictures are compared."""
        ...

    def samples(self, rows: IntArray) -> list[Sample]: ...

    def __len__(self) -> int: ...


class Explorer:
    """Safe to ask from several threads. facts: about the run (`summary.json`). used: the threshold of the run."""

    def __init__(
        self, table: Decisions, overrides: Overrides, facts: Mapping[str, Any], pool: PoolRows | None = None
    ) -> None:
        self.table, self.overrides, self.facts, self.pool = table, overrides, facts, pool
        self.used = _used_threshold(facts)
        self._lock, self._map_lock = threading.RLock(), threading.Lock()
        self._filter = Filter(table, self._fates)
        self._now: tuple[BoolArray, BoolArray, int] | None = None
        self._groups: dict[str, Groups] = {}
        self._places: tuple[IntArray, FloatArray] | None = None

    def warm(self) -> None:
        """Works out beforehand what takes seconds: the map, the first vectors."""
        if self.pool is not None and len(self.pool) > 2:
            self.places()

    def about(self) -> dict[str, Any]:
        """What there is to look at."""
        with self._lock:
            linked = "link_cosine" in self.table and bool(np.isfinite(self.table.numbers("link_cosine")).any())
            return {
                "rows": len(self.table),
                "kept": self._kept_now(),
                "changed": len(self.overrides),
                "sortable": [name for name in self.table.numeric() if name not in ("cluster", "component")],
                "clusters": "cluster" in self.table,
                "groups": "component" in self.table,
                "thresholds": linked,
                "map": self.pool is not None and len(self.pool) > 2,
                "steps": [str(step["step"]) for step in self.facts.get("steps", [])],
                "model": str(self.facts.get("embedder", "")),
            }

    def window(self, words: Mapping[str, str], start: int, count: int) -> dict[str, Any]:
        """Rows `start` … of those that fit, at most 500."""
        with self._lock:
            rows = self._filter.rows(parse(words))
            some = rows[max(start, 0) : max(start, 0) + min(count, MOST_ROWS)]
            return {"total": len(rows), "start": start, "rows": self._briefs(some)}

    def counts(self, words: Mapping[str, str]) -> dict[str, Any]:
        """How many rows of every fate, step, reason and source fit the other conditions."""
        with self._lock:
            return self._filter.counts(parse(words))

    def select(self, rows: IntArray) -> str:
        """A name under which these rows can be asked for."""
        with self._lock:
            return self._filter.select(rows)

    def clusters(self, start: int, count: int, by: str) -> dict[str, Any]:
        """Clusters with some of their faces: those that stay first."""
        with self._lock:
            groups = self._grouped("cluster", 1)
            return self._page(groups, groups.order(by), start, count)

    def duplicates(self, start: int, count: int, by: str, cluster: int | None = None) -> dict[str, Any]:
        """Duplicate groups, of the whole pool or of those with a member in a cluster."""
        with self._lock:
            groups = self._grouped("component", 2)
            order = groups.order(by)
            if cluster is not None:
                inside = np.unique(self.table.whole("component")[self.table.whole("cluster") == cluster])
                order = order[np.isin(groups.label[order], inside)]
            return self._page(groups, order, start, count)

    def sample(self, row: int) -> dict[str, Any]:
        """Everything that is known of a row: its record, its twin, its neighbours, for whom it stands."""
        self._check(row)
        near, cosines = self._neighbours(row)
        with self._lock:
            twin = self.table.rows_of("twin")
            stands = np.flatnonzero(twin == row)
            link = self.table.rows_of("link_to")[row]
            thought = self.overrides.get(self._id(row))
            found: dict[str, Any] = {
                **self._briefs(np.array([row]))[0],
                "record": self.table.record(row),
                "note": thought.note if thought else "",
                "twin": self._briefs(twin[[row]])[0] if twin[row] >= 0 else None,
                "link": self._briefs(np.array([link]))[0] if link >= 0 else None,
                "stands_for": self._briefs(stands[:SHOWN_PAIRS]),
                "stands_for_count": len(stands),
                "neighbours": [
                    {**brief, "cosine": value} for brief, value in zip(self._briefs(near), cosines, strict=True)
                ],
            }
        if (sample := self.picture(row)) is not None:
            found |= {"text": sample.text, "where": [str(ref) for ref in sample.images]}
        return found

    def brief(self, row: int) -> dict[str, Any]:
        """What lists show of a row."""
        with self._lock:
            self._check(row)
            return self._briefs(np.array([row]))[0]

    def row_of(self, id: str) -> int:
        """Raises UserError for an id that is not in the table."""
        with self._lock:
            row = self.table.row(id)
        if row < 0:
            raise UserError(f"no sample is called `{id[:200]}`")
        return row

    def thresholds(self) -> dict[str, Any]:
        """The offered thresholds and, exactly, how many rows go at each."""
        with self._lock:
            cosine = self.table.numbers("link_cosine") if "link_cosine" in self.table else np.empty(0)
            grid = grid_of(cosine, self.used)
            return {"grid": grid.tolist(), "removed": removed(cosine, grid).tolist(), "used": self.used}

    def threshold(self, value: float) -> dict[str, Any]:
        """What the step would do at another threshold, and the pairs that make the difference."""
        with self._lock:
            if "link_cosine" not in self.table:
                raise UserError("this run has no links to cut", fix="curate with a `dedup` step")
            used = self.used if self.used is not None else value
            cosine, link = self.table.numbers("link_cosine"), self.table.rows_of("link_to")
            found = at_threshold(cosine, link, value, used)
            shown = found.pairs[:SHOWN_PAIRS]
            ones, others = self._briefs(shown), self._briefs(np.where(link[shown] >= 0, link[shown], shown))
            pairs = [
                {"cosine": float(cosine[row]), "one": one, "other": other if link[row] >= 0 else None}
                for row, one, other in zip(shown, ones, others, strict=True)
            ]
            return {
                "threshold": value,
                "used": used,
                "removed": found.removed,
                "groups": found.groups,
                "largest": found.largest,
                "pairs": pairs,
                "pairs_count": len(found.pairs),
            }

    def override(self, row: int, keep: bool | None, note: str) -> dict[str, Any]:
        """Keep or drop a row whatever the run said; None: as the run said."""
        with self._lock:
            self._check(row)
            self.overrides.add(self._id(row), keep, note)
            found = self._briefs(np.array([row]))[0]
            return {**found, "note": note, "changed_count": len(self.overrides), "kept_count": self._kept_now()}

    def places(self) -> tuple[IntArray, FloatArray]:
        """(n,) rows and their (n, 2) float32 places on the map; up to 20,000 of the pool, drawn once."""
        with self._map_lock:  # takes seconds: nobody else waits for it
            if self._places is None:
                self._places = self._made_places()
            return self._places

    def fates(self, rows: IntArray) -> tuple[BoolArray, IntArray, IntArray]:
        """(n,) kept now, cluster, number of the step (0: none) of rows, for the map's colours."""
        with self._lock:
            codes, words = self.table.codes("step")
            order = ["", *self.about()["steps"]]
            number = np.array([order.index(word) if word in order else 0 for word in words])
            return self._fates()[0][rows], self.table.whole("cluster")[rows], number[codes[rows]]

    def picture(self, row: int) -> Sample | None:
        """The sample of a row of the pool; None for one that never got there."""
        self._check(row)
        if self.pool is None or row >= len(self.pool):
            return None
        return self.pool.samples(np.array([row]))[0]

    def ids(self, words: Mapping[str, str]) -> Iterator[str]:
        """Ids of the rows that fit."""
        with self._lock:
            rows = self._filter.rows(parse(words))
        for start in range(0, len(rows), 8192):
            yield from self.table.strings("id").take(rows[start : start + 8192]).to_pylist()

    def write_table(self, path: Path) -> None:
        """The decision table with `kept` as it is now; `kept_by_run` and `note` say what was changed."""
        from bunny.curate.explore.export import write_overridden

        with self._lock:
            notes = {self.table.row(id): thought for id, thought in self.overrides.by_id.items()}
            write_overridden(self.table.path, path, {row: thought for row, thought in notes.items() if row >= 0})

    def _fates(self) -> tuple[BoolArray, BoolArray, int]:
        if self._now is None or self._now[2] != self.overrides.version:
            kept, changed = self.table.kept.copy(), np.zeros(len(self.table), dtype=bool)
            for id, thought in self.overrides.by_id.items():
                if (row := self.table.row(id)) >= 0:
                    kept[row], changed[row] = thought.keep, True
            self._now = (kept, changed, self.overrides.version)
        return self._now

    def _kept_now(self) -> int:
        return int(self._fates()[0].sum())

    def _briefs(self, rows: IntArray) -> list[dict[str, Any]]:
        """One record a row, as lists show them."""
        kept, changed, _ = self._fates()
        ids = self.table.strings("id").take(rows).to_pylist()
        captions = self.table.strings("caption").take(rows).to_pylist() if "caption" in self.table else [""] * len(rows)
        told = {name: self.table.codes(name) for name in ("step", "reason", "source")}
        words = {name: [vocabulary[code] for code in codes[rows]] for name, (codes, vocabulary) in told.items()}
        cosine = plain(self.table.numbers("twin_cosine")[rows]) if "twin_cosine" in self.table else [None] * len(rows)
        return [
            {
                "row": int(row),
                "id": ids[place],
                "caption": (captions[place] or "")[:CAPTION],
                "kept": bool(kept[row]),
                "changed": bool(changed[row]),
                **{name: found[place] for name, found in words.items()},
                "twin_cosine": cosine[place],
                "cluster": int(self.table.whole("cluster")[row]),
                "group": int(self.table.whole("component")[row]),
                "picture": self.pool is not None and int(row) < len(self.pool),
            }
            for place, row in enumerate(rows)
        ]

    def _grouped(self, column: str, smallest: int) -> Groups:
        if column not in self._groups:
            cosine = (
                self.table.numbers("twin_cosine") if "twin_cosine" in self.table else np.full(len(self.table), np.nan)
            )
            if column == "component":  # a row dropped by another step has a twin outside its group
                twin, group = self.table.rows_of("twin"), self.table.whole("component")
                cosine = np.where((twin >= 0) & (group[twin] == group), cosine, np.nan)
                if "least_cosine" in self.table:  # of any two members, where the step knows it
                    least = self.table.numbers("least_cosine")
                    cosine = np.where(np.isfinite(least), least, cosine)
            self._groups[column] = Groups.of(self.table.whole(column), self.table.kept, cosine, smallest)
        return self._groups[column]

    def _page(self, groups: Groups, order: IntArray, start: int, count: int) -> dict[str, Any]:
        kept, entries = self._fates()[0], []
        for place in order[max(start, 0) : max(start, 0) + min(count, MOST_ROWS)]:
            members = groups.members(int(place))
            first = members[np.argsort(~kept[members], kind="stable")][:SHOWN_FACES]
            low = float(groups.lowest[place])
            entries.append(
                {
                    "label": int(groups.label[place]),
                    "size": len(members),
                    "kept": int(kept[members].sum()),
                    "lowest": low if np.isfinite(low) else None,
                    "chained": bool(self.used is not None and low < self.used),
                    "faces": self._briefs(first),
                }
            )
        return {"total": len(order), "start": start, "groups": entries}

    def _neighbours(self, row: int) -> tuple[IntArray, list[float]]:
        """The most alike rows of the same cluster (of a small pool, if it has none), and their cosines."""
        nobody: tuple[IntArray, list[float]] = np.empty(0, np.int64), []
        if self.pool is None or row >= len(self.pool):
            return nobody
        with self._lock:
            cluster = self.table.whole("cluster")
        if cluster[row] < 0 and len(self.pool) > NEIGHBOUR_ROWS:
            return nobody
        near = np.flatnonzero(cluster == cluster[row]) if cluster[row] >= 0 else np.arange(len(self.pool))
        near = near[(near != row) & (near < len(self.pool))][:NEIGHBOUR_ROWS]
        own = self.pool.vectors(np.array([row]))[0]
        blocks = [self.pool.vectors(near[start : start + 2048]) @ own for start in range(0, len(near), 2048)]
        cosine = np.concatenate([*blocks, own[:0]])
        best = np.argsort(-np.nan_to_num(cosine, nan=-2.0), kind="stable")[:NEIGHBOURS]
        return near[best], [round(float(value), 4) for value in np.nan_to_num(cosine[best])]

    def _made_places(self) -> tuple[IntArray, FloatArray]:
        if self.pool is None:
            raise UserError("this run has no vectors to draw a map of")
        rows = np.arange(len(self.pool))
        if len(rows) > MAP_ROWS:
            rows = np.sort(stream("curate.explore.map", 0).choice(rows, MAP_ROWS, replace=False))
        places = plane(self.pool.vectors, rows)
        fine = np.isfinite(places[:, 0])
        return rows[fine], places[fine]

    def _id(self, row: int) -> str:
        return str(self.table.strings("id")[row].as_py())

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.table):
            raise UserError(f"no row {row}")


def _used_threshold(facts: Mapping[str, Any]) -> float | None:
    """`above` of the last step that has one."""
    found = [step.get("settings", {}).get("above") for step in facts.get("steps", [])]
    numbers = [float(value) for value in found if isinstance(value, int | float)]
    return numbers[-1] if numbers else None


__all__ = ["Explorer", "PoolRows", "Query"]
