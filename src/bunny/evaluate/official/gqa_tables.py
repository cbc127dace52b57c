"""GQA's official tables: accuracy by kind, a question's reasoning steps, how far answers are from their frequencies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bunny.core.types import Question
from bunny.evaluate.official.benchmark import Read, percent

TABLES: Mapping[str, Callable[[Question], str]] = {
    "Accuracy / structural type": lambda question: str(question.meta["structural"]),
    "Accuracy / semantic type": lambda question: str(question.meta["semantic"]),
    "Accuracy / steps number": lambda question: str(question.meta["steps"]),
    "Accuracy / words number": lambda question: str(question.meta["words"]),
}
_SEARCHES = ("exist", "query: name", "choose name")


def steps(fact: Mapping[str, Any]) -> int:
    """How many reasoning steps a question has; steps that only name what is asked for do not count."""
    named = [f"{step['operation']}: {step['argument']}" for step in fact["semantic"]]
    return sum(not any(search in step for search in _SEARCHES) for step in named)


def distance(read: Read) -> float:
    """Chi-square between how often answers are right and how often they are given, over groups of questions."""
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for question, parsed in zip(read.questions, read.parsed, strict=True):
        if question.meta["histogram"] is not None:
            gold[question.meta["histogram"]][question.gold[0]] += 1
            said[question.meta["histogram"]][parsed.value] += 1
    terms = [
        (sum((said[name][answer] - n) ** 2 / n for answer, n in counts.items()), counts.total())
        for name, counts in gold.items()
    ]
    total = sum(weight for _, weight in terms)
    return sum(term * weight for term, weight in terms) / total if total else 0.0


def by_kind(questions: Sequence[Question], points: Sequence[float]) -> dict[str, Any]:
    """The printed tables of accuracy by structure, meaning, number of steps and of words."""
    tables: dict[str, Any] = {}
    for title, kind_of in TABLES.items():
        groups: dict[str, list[float]] = defaultdict(list)
        for question, point in zip(questions, points, strict=True):
            groups[kind_of(question)].append(point)
        tables[title] = {kind: {"acc": percent(each, 2), "n": len(each)} for kind, each in sorted(groups.items())}
    return tables
