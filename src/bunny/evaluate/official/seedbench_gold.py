"""SEED-Bench answer tables that hold the gold letters (`gt_answer`), as its leader board publishes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bunny.core.types import Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.official.benchmark import ask


def gold_table(answers: Answers) -> tuple[Sequence[Question], Answers]:
    """Each row as a question of its own; an id that comes again gets its number behind it."""
    seen: Counter[str] = Counter()
    rows, questions = [], []
    for given in answers.given:
        seen[given.id] += 1
        id = f"{given.id} ({seen[given.id]})" if seen[given.id] > 1 else given.id
        medium = "video" if id.startswith("v") else "image"
        meta: dict[str, Any] = {"medium": medium, "kind": "", "options": dict.fromkeys("ABCD", "")}
        rows.append(replace(given, id=id))
        questions.append(ask(id, "", None, [given.row["gt_answer"]], **meta))
    return questions, replace(answers, given=rows)
