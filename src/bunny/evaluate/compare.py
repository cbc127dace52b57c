"""Two models on the same questions: which answers one alone has right, and whether the gap can be trusted.

In: two report folders (`answers/TASK.jsonl`, as `report.write` leaves them). Out: a `Comparison` of every benchmark
that both have, joined by question id: verdicts, differences by category, and every question with both answers.
Everything is B minus A: A is what was, B is what is to be judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import EvalResult, FloatArray, Interval, Parsed, Question
from bunny.evaluate.runner import Outcome
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.verdict import Verdict, judge

Row = Mapping[str, Any]
Flip = Literal["won", "lost", "both wrong", "both right"]
FLIPS: tuple[Flip, ...] = ("won", "lost", "both wrong", "both right")


@dataclass(frozen=True)
class Side:
    """One model on one benchmark. rows: question id -> its line of `answers/TASK.jsonl`; result: with draws if kept."""

    rows: dict[str, Row]
    result: EvalResult


@dataclass(frozen=True)
class Pair:
    """One benchmark. rows: (A's line, B's line) of the questions that both were asked, in A's order."""

    task: str
    rows: list[tuple[Row, Row]]
    a: EvalResult
    b: EvalResult
    only: tuple[int, int]
    verdict: Verdict
    categories: list[dict[str, Any]]

    def flips(self) -> dict[Flip, int]:
        """How many questions went which way."""
        found = [flip(a, b) for a, b in self.rows]
        return {kind: found.count(kind) for kind in FLIPS}

    def as_json(self) -> dict[str, Any]:
        return {
            "n": len(self.rows),
            "clusters": self.a.clusters,
            "a": _interval(self.a.headline),
            "b": _interval(self.b.headline),
            **self.verdict.as_json(),
            "flips": self.flips(),
            "categories": self.categories,
            "only_a": self.only[0],
            "only_b": self.only[1],
            "won": [a["id"] for a, b in self.rows if flip(a, b) == "won"],
            "lost": [a["id"] for a, b in self.rows if flip(a, b) == "lost"],
        }


@dataclass(frozen=True)
class Comparison:
    """All benchmarks that both have. alone: those that only one has."""

    a: str
    b: str
    pairs: list[Pair]
    alone: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain: what `compare.json` holds."""
        tasks = {pair.task: pair.as_json() for pair in self.pairs}
        return {"a": self.a, "b": self.b, "correction": "Holm", "tasks": tasks, "alone": self.alone}


def flip(a: Row, b: Row) -> Flip:
    """What became of one question: credit is compared, so that of two half-right answers the better one wins."""
    if a["points"] != b["points"]:
        return "won" if b["points"] > a["points"] else "lost"
    return "both right" if a["points"] >= 1 else "both wrong"


def compare(a: Path, b: Path) -> Comparison:
    """Raises UserError if a folder has no answers, or if no benchmark was asked in both."""
    one, other = _folder(a), _folder(b)
    return compare_sides(_name(a, b), _name(b, a), {n: read_side(p) for n, p in one.items()}, other)


def compare_sides(a: str, b: str, one: Mapping[str, Side], other: Mapping[str, Side | Path]) -> Comparison:
    """The same of sides that were read before (or still lie in a file)."""
    shared = [task for task in one if task in other]
    if not shared:
        raise UserError(f"{a} and {b}: no benchmark in common", fix=f"A has {', '.join(one)}; B has {', '.join(other)}")
    sides = []
    for task in shared:
        second = other[task]
        sides.append((task, one[task], read_side(second) if isinstance(second, Path) else second))
    joined = [(task, first, second, *_join(task, first, second)) for task, first, second in sides]
    verdicts = judge([(at, bt) for *_, at, bt in joined])
    pairs = [
        Pair(task, rows, at, bt, (len(first.rows) - len(rows), len(second.rows) - len(rows)), verdict, _parts(rows))
        for (task, first, second, rows, at, bt), verdict in zip(joined, verdicts, strict=True)
    ]
    return Comparison(a, b, pairs, sorted(one.keys() ^ other.keys()))


def side_of(outcome: Outcome) -> Side:
    """An outcome in memory, as `report.write` and `read_side` would give it back."""
    rows = [json.loads(line) for line in outcome.lines()]
    return Side({row["id"]: row for row in rows}, outcome.result)


def read_side(path: Path) -> Side:
    """One `TASK.jsonl`, with the draws that lie beside it. Raises UserError for torn lines and lines without points."""
    rows: dict[str, Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows[row["id"]] = {"group": "", "category": "", **row, "points": float(row["points"])}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: no line of scored answers", fix="evaluate again") from None
    if not rows:
        raise UserError(f"{path}: empty", fix="evaluate again")
    return Side(rows, _kept(path, _mean(path.stem, list(rows.values()))))


def _kept(path: Path, mean: EvalResult) -> EvalResult:
    """The headline and draws that the run has kept; else those of the mean credit."""
    try:
        kept = json.loads((path.parents[1] / "tasks.json").read_text(encoding="utf-8"))[path.stem]
        draws: FloatArray = np.load(path.parents[1] / "draws" / f"{path.stem}.npy", allow_pickle=False)
        headline = Interval(kept["score"], kept["low"], kept["high"])
    except (OSError, ValueError, KeyError):
        return mean
    return replace(mean, headline=headline, draws=draws, clusters=int(kept["clusters"]))


def _join(task: str, a: Side, b: Side) -> tuple[list[tuple[Row, Row]], EvalResult, EvalResult]:
    """Rows of the common questions and both results on them: the kept ones where all questions are common."""
    rows = [(row, b.rows[id]) for id, row in a.rows.items() if id in b.rows]
    if not rows:
        raise UserError(f"{task}: not one question in common", fix="compare answers to the same questions")
    if len(rows) == len(a.rows) == len(b.rows) and a.result.clusters == b.result.clusters:
        return rows, a.result, b.result
    return rows, _mean(task, [one for one, _ in rows]), _mean(task, _grouped(rows))


def _grouped(rows: Sequence[tuple[Row, Row]]) -> list[Row]:
    """B's lines in A's groups, so that both are resampled alike."""
    return [{**b, "group": a["group"]} for a, b in rows]


def _mean(task: str, rows: Sequence[Row]) -> EvalResult:
    questions = [Question(row["id"], "", (), (), row["group"]) for row in rows]
    parsed = [Parsed(row.get("value", ""), row.get("status", "ok")) for row in rows]
    return mean_score(task, questions, parsed, [row["points"] for row in rows])


def _parts(rows: Sequence[tuple[Row, Row]]) -> list[dict[str, Any]]:
    """Mean credit by category, largest change first. Intervals are for looking: there are too many to test."""
    groups: dict[str, list[tuple[Row, Row]]] = {}
    for a, b in rows:
        groups.setdefault(a["category"], []).append((a, b))
    if len(groups) < 2:
        return []
    found = []
    for name, some in groups.items():
        one, other = _mean(name, [a for a, _ in some]), _mean(name, _grouped(some))
        (verdict,) = judge([(one, other)])
        scores = {"a": one.headline.score, "b": other.headline.score, "difference": _interval(verdict.gap)}
        found.append({"category": name or "(none)", "n": len(some), **scores})
    return sorted(found, key=lambda each: (-abs(each["difference"]["score"]), each["category"]))


def _folder(path: Path) -> dict[str, Path]:
    """Benchmark -> its file of answers; baselines (`TASK.NAME.jsonl`) are left out."""
    for folder in (path / "answers", path / "scores" / "answers"):
        files = sorted(file for file in folder.glob("*.jsonl") if "." not in file.stem)
        if files:
            return {file.stem: file for file in files}
    raise UserError(
        f"{path}: no scored answers there",
        fix="give the folder of a report (with `answers/TASK.jsonl`), see `bunny eval`",
    )


def _name(path: Path, beside: Path) -> str:
    """The folder's name, longer where both have the same."""
    mine, theirs = path.resolve().parts, beside.resolve().parts
    for length in range(1, len(mine) + 1):
        if mine[-length:] != theirs[-length:]:
            return "/".join(mine[-length:])
    return str(path)


def _interval(value: Interval) -> dict[str, float]:
    return {"score": value.score, "low": value.low, "high": value.high}
