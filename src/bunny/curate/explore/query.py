"""A filter over the decision table: which rows, in which order, and how many of every kind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import BoolArray, IntArray
from bunny.curate.explore.decisions import Decisions

Fate = Literal["", "kept", "dropped", "changed"]
FACETS = ("fate", "step", "reason", "source")
MOST_HELD = 24  # masks and row lists kept
MOST_SELECTIONS = 32


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that all hold; empty or None: no condition. text: part of id or caption. selection: rows that were
    picked on the map. sort: a numeric column, else table order."""

    fate: Fate = ""
    step: str = ""
    reason: str = ""
    source: str = ""
    text: str = ""
    cluster: int | None = None
    group: int | None = None
    selection: str = ""
    sort: str = ""
    descending: bool = False

    def without(self, facet: str) -> Query:
        return replace(self, **{facet: ""}, sort="", descending=False)  # type: ignore[arg-type]  # names of str fields


class Filter:
    """Answers queries. fates: () -> ((N,) kept now, (N,) changed by somebody, version of both)."""

    def __init__(self, table: Decisions, fates: Callable[[], tuple[BoolArray, BoolArray, int]]) -> None:
        self.table, self.fates = table, fates
        self._held: OrderedDict[Any, Any] = OrderedDict()
        self._selections: OrderedDict[str, IntArray] = OrderedDict()

    def select(self, rows: IntArray) -> str:
        """A name for these rows; the oldest selections are forgotten."""
        name = str(int(next(reversed(self._selections), "0")) + 1)
        self._selections[name] = np.unique(rows[(rows >= 0) & (rows < len(self.table))])
        while len(self._selections) > MOST_SELECTIONS:
            self._selections.popitem(last=False)
        return name

    def rows(self, query: Query) -> IntArray:
        """(n,) rows that fit, in the order asked for. Raises UserError for an unknown column or selection."""
        return self._once(("rows", query, self._version(query)), lambda: self._ordered(query))  # type: ignore[no-any-return]

    def counts(self, query: Query) -> dict[str, dict[str, int]]:
        """Facet -> word -> rows that fit all other conditions, most first."""
        kept, changed, _ = self.fates()
        found: dict[str, dict[str, int]] = {}
        for facet in FACETS:
            mask = self._mask(query.without(facet))
            if facet == "fate":
                stay = int((mask & kept).sum())
                found[facet] = {"kept": stay, "dropped": int(mask.sum()) - stay, "changed": int((mask & changed).sum())}
            else:
                codes, words = self.table.codes(facet)
                count = np.bincount(codes[mask], minlength=len(words))
                named = [(word, int(n)) for word, n in zip(words, count, strict=True) if word and n]
                found[facet] = dict(sorted(named, key=lambda pair: -pair[1]))
        return found

    def _ordered(self, query: Query) -> IntArray:
        rows = np.flatnonzero(self._mask(query))
        if not query.sort:
            return rows[::-1] if query.descending else rows
        if query.sort not in self.table.numeric():
            raise UserError(f"no column `{query.sort}` to sort by")
        values = self.table.numbers(query.sort)[rows]
        order: IntArray = np.argsort(-values if query.descending else values, kind="stable")  # NaN last
        return rows[order]

    def _mask(self, query: Query) -> BoolArray:
        query = replace(query, sort="", descending=False)
        return self._once(("mask", query, self._version(query)), lambda: self._make_mask(query))  # type: ignore[no-any-return]

    def _make_mask(self, query: Query) -> BoolArray:
        mask: BoolArray = np.ones(len(self.table), dtype=bool)
        kept, changed, _ = self.fates()
        if query.fate:
            mask &= {"kept": kept, "dropped": ~kept, "changed": changed}[query.fate]
        for facet in ("step", "reason", "source"):
            if word := getattr(query, facet):
                codes, words = self.table.codes(facet)
                mask &= codes == (words.index(word) if word in words else -1)
        for name, label in (("cluster", query.cluster), ("component", query.group)):
            if label is not None:
                mask &= self.table.whole(name) == label
        if query.text:
            mask &= self._once(("text", query.text), lambda: self.table.containing(query.text))
        if query.selection:
            if query.selection not in self._selections:
                raise UserError("that selection is forgotten", fix="draw it again")
            picked = np.zeros(len(self.table), dtype=bool)
            picked[self._selections[query.selection]] = True
            mask &= picked
        return mask

    def _version(self, query: Query) -> int:
        """Only a query about fates is out of date after an override."""
        return self.fates()[2] if query.fate else -1

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._held:
            self._held[key] = make()
            while len(self._held) > MOST_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]


def parse(words: Mapping[str, str]) -> Query:
    """A query from an address's parameters. Raises UserError for one that is none."""
    fate = words.get("fate", "")
    if fate not in ("", "kept", "dropped", "changed"):
        raise UserError(f"fate `{fate}` is not known", fix="kept, dropped or changed")
    return Query(
        fate=fate,  # type: ignore[arg-type]  # checked above
        **{name: words.get(name, "") for name in ("step", "reason", "source", "text", "selection", "sort")},
        cluster=_number(words, "cluster"),
        group=_number(words, "group"),
        descending=words.get("descending", "") == "1",
    )


def _number(words: Mapping[str, str], name: str) -> int | None:
    text = words.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f"{name} is a number, not `{text[:40]}`")
    return int(text)
