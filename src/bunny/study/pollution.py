"""How well each step finds what was spoilt: precision and recall by kind, from a decision table with the truth in it.

In: the decision table of a curation of a polluted pool. Out: one record a step. Of a picture and its near-duplicates
one is wanted, no matter which: the first that goes beyond that is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Row = Mapping[str, Any]
KINDS = ("copies", "swapped", "junk")


@dataclass(frozen=True, slots=True)
class Found:
    """One step. seen: rows that came to it; dropped: of those. right, spoilt: spoilt rows among the dropped and among
    all that came: a step that drops at random has a precision of spoilt / seen. there, removed: by kind, how many
    spoilt rows came to it, and how many of them went."""

    step: str
    seen: int
    dropped: int
    right: int
    spoilt: int
    there: dict[str, int]
    removed: dict[str, int]

    @property
    def precision(self) -> float | None:
        return self.right / self.dropped if self.dropped else None

    @property
    def chance(self) -> float | None:
        """The precision of dropping at random."""
        return self.spoilt / self.seen if self.seen else None

    def recall(self, kind: str) -> float | None:
        return self.removed[kind] / self.there[kind] if self.there[kind] else None

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "precision": self.precision,
            "chance": self.chance,
            "recall": {kind: self.recall(kind) for kind in KINDS},
        }


def found_by(rows: Sequence[Row], steps: Sequence[str]) -> list[Found]:
    """What each step found, and at last all of them together. rows: of the decision table: step (empty where kept),
    pollution, swapped, origin."""
    order = {step: place for place, step in enumerate(steps)}
    gone = [order.get(row["step"] or "", len(steps)) for row in rows]  # the place of the step where a row went
    found = []
    for step, place in order.items():
        here = [row for row, end in zip(rows, gone, strict=True) if end >= place]
        found.append(_found(step, here, [row for row in here if row["step"] == step]))
    every = [row for row, end in zip(rows, gone, strict=True) if end < len(steps)]
    return [*found, _found("all steps", rows, every)]


def _found(step: str, seen: Sequence[Row], dropped: Sequence[Row]) -> Found:
    families, lost = (Counter(row["origin"] for row in some if row["origin"]) for some in (seen, dropped))
    needless = {origin: min(lost[origin], size - 1) for origin, size in families.items()}  # one of each may stay
    there = {
        "copies": sum(size - 1 for size in families.values()),
        "swapped": sum(bool(row["swapped"]) for row in seen),
        "junk": sum(_junk(row) for row in seen),
    }
    removed = {
        "copies": sum(needless.values()),
        "swapped": sum(bool(row["swapped"]) for row in dropped),
        "junk": sum(_junk(row) for row in dropped),
    }
    spare = {origin: size - 1 for origin, size in families.items()}
    return Found(step, len(seen), len(dropped), _right(dropped, needless), _right(seen, spare), there, removed)


def _right(dropped: Sequence[Row], needless: Mapping[str, int]) -> int:
    """How many of these rows are spoilt. needless: how many of each family are."""
    counted: Counter[str] = Counter()
    right = 0
    for row in sorted(dropped, key=lambda row: bool(row["swapped"])):
        spare = bool(row["origin"]) and counted[row["origin"]] < needless[row["origin"]]
        counted[row["origin"]] += spare
        right += spare or bool(row["swapped"]) or _junk(row)
    return right


def _junk(row: Row) -> bool:
    return str(row["pollution"] or "").startswith("junk")
