"""ScienceQA's official table: accuracy by subject, context, grade and topic, as lupantech/ScienceQA prints it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bunny.evaluate.official.benchmark import percent

Fact = Mapping[str, Any]
GRADES = {"grade_1_6": range(1, 7), "grade_7_12": range(7, 13)}
_TOPICS = """
punctuation literacy-in-science verbs pronouns civics culture word-study economics physics units-and-measurement
science-and-engineering-practices reading-comprehension global-studies grammar figurative-language us-history
writing-strategies world-history reference-skills biology earth-science phonological-awareness capitalization chemistry
vocabulary geography
"""

PARTS: dict[str, Callable[[Fact], bool]] = {
    **{
        name: lambda fact, name=name: fact.get("subject") == f"{name} science"  # type: ignore[misc]
        for name in ("natural", "social", "language")
    },
    "has_text": lambda fact: bool(fact.get("hint")),
    "has_image": lambda fact: bool(fact.get("image")),
    "no_context": lambda fact: not fact.get("hint") and not fact.get("image"),
    **{
        name: lambda fact, known=known: fact.get("grade") in {f"grade{n}" for n in known}  # type: ignore[misc]
        for name, known in GRADES.items()
    },
    "average": lambda fact: True,
    **{topic: lambda fact, topic=topic: fact.get("topic") == topic for topic in _TOPICS.split()},  # type: ignore[misc]
}


def official_table(facts: Sequence[Fact], points: Sequence[float]) -> dict[str, str]:
    """Part -> accuracy with two digits, or "-1" where a part has no questions."""
    table = {}
    for name, belongs in PARTS.items():
        members = [point for fact, point in zip(facts, points, strict=True) if belongs(fact)]
        table[name] = f"{percent(members):.2f}" if members else "-1"
    return table
