"""The same answers under five readings, and the questions on which the readings part.

In: a benchmark, an answers file. Out: each reading's headline numbers, and every question that is not worth the same
under all of them, with what each reading took the answer for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunny.core.types import Parsed
from bunny.evaluate.answers import read_answers
from bunny.evaluate.official.benchmark import PROFILES, OfficialBenchmark
from bunny.evaluate.score_file import Scored, score_answers, with_profile

STATUSES = {
    "ok": "",
    "fallback": "found in the answer",
    "guessed": "drawn at random",
    "empty": "empty answer",
    "malformed": "not read",
}


@dataclass(frozen=True)
class Difference:
    """One question that the readings value differently. values: profile -> what it read; worth: profile -> credit."""

    id: str
    answer: str
    gold: tuple[str, ...]
    values: dict[str, str]
    worth: dict[str, float]

    @property
    def why(self) -> str:
        """In words: which readings count it, and what each took it for."""
        groups: dict[str, list[str]] = {}
        for profile, value in self.values.items():
            groups.setdefault(f"{value} = {self.worth[profile]:g}", []).append(profile)
        return "; ".join(f"{', '.join(profiles)}: {value}" for value, profiles in groups.items())


@dataclass(frozen=True)
class Audit:
    """The readings of one answers file, and where they differ. answered: questions that have an answer."""

    task: str
    readings: dict[str, Scored]
    differences: list[Difference]

    def as_json(self) -> dict[str, Any]:
        """What `bunny eval audit --json` prints."""
        return {
            "task": self.task,
            "n": next(iter(self.readings.values())).result.n,
            "readings": {
                profile: {
                    "rule": scored.benchmark.RULES.get(profile, ""),
                    "headline": scored.numbers["headline"],
                    "joined_by_id": scored.result.headline.score,
                    "reading": scored.reading()["counts"],
                }
                for profile, scored in self.readings.items()
            },
            "n_differences": len(self.differences),
            "patterns": self.patterns(),
            "differences": [
                {
                    "id": each.id,
                    "answer": each.answer,
                    "gold": list(each.gold[:3]),
                    "worth": each.worth,
                    "why": each.why,
                }
                for each in self.differences
            ],
        }

    def patterns(self) -> dict[str, int]:
        """Which readings count an answer and which do not -> on how many questions."""
        kinds = Counter(
            "counted by " + (", ".join(profile for profile, worth in each.worth.items() if worth) or "none")
            for each in self.differences
        )
        return dict(kinds.most_common())


def audit(benchmark: OfficialBenchmark, path: Path) -> Audit:
    """All readings of the answers in `path`."""
    answers = read_answers(path)
    readings: dict[str, Scored] = {
        profile: score_answers(with_profile(benchmark, profile), answers) for profile in PROFILES
    }
    first = next(iter(readings.values()))
    differences = []
    for row, question in enumerate(first.read.questions):
        given = first.read.given[row]
        if given is None:
            continue
        worth = {profile: _worth(scored, row) for profile, scored in readings.items()}
        if len({round(value, 6) for value in worth.values()}) > 1:
            values = {profile: _said(scored.read.parsed[row]) for profile, scored in readings.items()}
            differences.append(Difference(question.id, given.text, question.gold, values, worth))
    return Audit(benchmark.name, readings, differences)


def _worth(scored: Scored, row: int) -> float:
    return scored.benchmark.credit(scored.read.questions[row], scored.read.parsed[row])


def _said(parsed: Parsed) -> str:
    note = STATUSES[parsed.status]
    value = f"`{parsed.value[:60]}`" if parsed.value else "nothing"
    return f"{value} ({note})" if note else value
