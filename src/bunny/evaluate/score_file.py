"""Score an answers file: join its rows to the questions by id, read, score, and account for every row.

In: a benchmark with its profile, an answers file. Out: the script's numbers, a result with intervals, and how many
answers were guessed, not read, missing, of unknown questions, or given twice. Nothing depends on the order of the rows
except where the profile `bunny` repeats a script that does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import Answer, EvalResult, Interval, Parsed, Question
from bunny.evaluate.answers import Answers, Given, read_answers
from bunny.evaluate.official.benchmark import OfficialBenchmark, Read
from bunny.evaluate.runner import Guesses

SHOWN = 20
"""Ids named of each kind of trouble; all are counted."""


@dataclass(frozen=True)
class Joined:
    """An answers file beside the questions. given: aligned with questions, None where there is no answer.

    order: the rows with an answer, in the file's order. unknown, twice: ids as the file has them.
    """

    questions: Sequence[Question]
    given: Sequence[Given | None]
    order: Sequence[int]
    unknown: Sequence[str]
    twice: Sequence[str]
    unread: int


@dataclass(frozen=True)
class Scored:
    """One answers file under one profile."""

    benchmark: OfficialBenchmark
    joined: Joined
    read: Read
    result: EvalResult
    numbers: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """What `bunny eval score --json` prints."""
        result = self.result
        parts = Counter(part for question in self.joined.questions for part in self.benchmark.parts(question))
        return {
            "task": self.benchmark.name,
            "profile": self.benchmark.profile,
            "rule": self.benchmark.RULES.get(self.benchmark.profile, ""),
            "n": result.n,
            **self.numbers,
            "joined_by_id": {**_interval(result.headline), "clusters": result.clusters},
            "scores": {name: _interval(value) for name, value in result.scores.items()},
            "n_by_part": dict(parts),
            "reading": self.reading(),
        }

    def reading(self) -> dict[str, Any]:
        """Counts and rates of what went not as asked; rates are over all questions."""
        n, joined = max(self.result.n, 1), self.joined
        missing = [q.id for q, one in zip(joined.questions, joined.given, strict=True) if one is None]
        statuses = self.result.statuses
        counts = {
            "unparsed": statuses["empty"] + statuses["malformed"] + statuses["guessed"] - len(missing),
            "guessed": statuses["guessed"],
            "missing": len(missing),
            "unknown_ids": len(joined.unknown),
            "duplicate_ids": len(joined.twice),
            "unread_lines": joined.unread,
        }
        first = {"missing": missing, "unknown_ids": joined.unknown, "duplicate_ids": joined.twice}
        return {
            "counts": counts,
            "rates": {name: count / n for name, count in counts.items()},
            "statuses": {**statuses, "empty": statuses["empty"] - len(missing), "missing": len(missing)},
            "first": {name: list(ids[:SHOWN]) for name, ids in first.items() if ids},
        }


def score_file(benchmark: OfficialBenchmark, path: Path) -> Scored:
    """The answers in `path` under the benchmark's profile. Raises UserError if no row belongs to a question."""
    return score_answers(benchmark, read_answers(path))


def score_answers(benchmark: OfficialBenchmark, answers: Answers) -> Scored:
    """The same for a file that was read before."""
    joined = join_rows(benchmark, *benchmark.complete(answers))
    read = _read(benchmark, joined)
    return Scored(benchmark, joined, read, benchmark.score(read.questions, read.parsed), benchmark.numbers(read))


def join_rows(benchmark: OfficialBenchmark, questions: Sequence[Question], answers: Answers) -> Joined:
    """Rows beside their questions. Of two rows for one question the later counts, in the place of the first."""
    rows = {question.id: row for row, question in enumerate(questions)}
    if len(rows) < len(questions):
        twice = Counter(question.id for question in questions).most_common(1)[0][0]
        raise UserError(f"{benchmark.name}: question `{twice}` is there twice", fix="get its question file again")
    names = benchmark.aliases(questions)
    found: dict[int, Given] = {}
    unknown: list[str] = []
    repeated: list[str] = []
    for given in answers.given:
        key = benchmark.key(given)
        row = rows.get(names.get(key, key), rows.get(given.id))
        if row is None:
            unknown.append(given.id)
        else:
            repeated += [given.id] if row in found else []
            found[row] = given
    if not found:
        raise UserError(
            f"{answers.path}: none of its {len(answers.given)} answers belongs to a question of {benchmark.name}",
            fix=f"is it the right split? first id there `{answers.given[0].id}`, first question `{questions[0].id}`"
            if questions
            else "give the folder of the official files with --data",
        )
    aligned = [found.get(row) for row in range(len(questions))]
    return Joined(questions, aligned, list(found), unknown, repeated, answers.unread)


def _read(benchmark: OfficialBenchmark, joined: Joined) -> Read:
    parsed = [
        Parsed("", "empty") if given is None else benchmark.parse(question, Answer(question.id, given.text))
        for question, given in zip(joined.questions, joined.given, strict=True)
    ]
    if isinstance(benchmark, Guesses):
        said = [given.text if given else "" for given in joined.given]
        parsed = benchmark.guess(joined.questions, said, parsed, joined.order)
    return Read(joined.questions, joined.given, parsed, joined.order)


def with_profile(benchmark: OfficialBenchmark, profile: str) -> OfficialBenchmark:
    """The same benchmark under another profile."""
    return benchmark.model_copy(update={"profile": profile})


def submit(scored: Scored, path: Path) -> None:
    """Write the benchmark's submission file from a scored answers file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scored.benchmark.submission(scored.read, path)


def _interval(value: Interval) -> dict[str, float]:
    return {"score": value.score, "low": value.low, "high": value.high}
