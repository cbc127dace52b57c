"""Published scores beside ours: the twelve Bunny models and the models that they were compared with in their time.

In: `published.yaml`, which names a source for every row, and our outcomes. Out: a small table whose first row is ours.
Published scores carry no interval, no answers and often another split or prompt: they are for orientation only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from bunny.core.recipe import Section, check
from bunny.evaluate.runner import Outcome

FILE = Path(__file__).with_name("published.yaml")


class Source(Section):
    """Where numbers were read."""

    what: str
    where: str


class Column(Section):
    """One published score. task, score: what of ours stands beside it; no task: only a server can measure it."""

    label: str
    task: str = ""
    score: str = "headline"
    note: str = ""


class Model(Section):
    """One published model. by_bunny: columns that Bunny's authors measured, not the model's own."""

    name: str
    kind: Literal["bunny", "small", "7B", "13B"]
    sources: tuple[str, ...]
    scores: dict[str, float]
    by_bunny: tuple[str, ...] = ()


class Published(Section):
    """The whole file."""

    sources: dict[str, Source]
    columns: dict[str, Column]
    models: tuple[Model, ...]


@cache
def published() -> Published:
    """The file, checked."""
    return check(Published, yaml.safe_load(FILE.read_text(encoding="utf-8")), FILE.name)


@dataclass(frozen=True)
class Beside:
    """Our scores and the published ones of the same benchmarks. rows: name, class (`ours` first), a cell a column."""

    columns: list[Column]
    rows: list[tuple[str, str, list[str]]]
    sources: list[Source]

    def as_json(self) -> dict[str, Any]:
        """Plain: columns with notes, rows of name, class and scores (null where nothing was published)."""
        rows = [
            {"model": name, "class": kind, "scores": [float(cell.rstrip("§")) if cell else None for cell in cells]}
            for name, kind, cells in self.rows
        ]
        columns = [column.model_dump() for column in self.columns]
        return {"columns": columns, "rows": rows, "sources": [source.model_dump() for source in self.sources]}


def beside(outcomes: Sequence[Outcome]) -> Beside | None:
    """The table for the benchmarks that were asked; None if none of them has published scores."""
    known, ours = published(), {outcome.result.task: outcome for outcome in outcomes}
    columns = {key: column for key, column in known.columns.items() if _score(column, ours) is not None}
    if not columns:
        return None
    models = [model for model in known.models if columns.keys() & model.scores.keys()]
    rows = [("this model", "ours", [f"{_score(column, ours):.1f}" for column in columns.values()])]
    rows += [(model.name, model.kind, [_cell(model, key) for key in columns]) for model in models]
    used = dict.fromkeys(source for model in models for source in model.sources)
    return Beside(list(columns.values()), rows, [known.sources[key] for key in used])


def _score(column: Column, ours: Mapping[str, Outcome]) -> float | None:
    """What of ours stands beside the column, if anything does."""
    if column.task not in ours:
        return None
    result = ours[column.task].result
    value = result.headline if column.score == "headline" else result.scores.get(column.score)
    return None if value is None else value.score


def _cell(model: Model, key: str) -> str:
    value = model.scores.get(key)
    return "" if value is None else f"{value:.1f}" + ("§" if key in model.by_bunny else "")
