"""MMBench's circular score: a question counts if the model is right in every order of its choices.

In: rows that ask one question each with the choices turned on; `meta["question"]` is the number of the first pass.
Out: accuracy over questions, over first passes alone (`vanilla`), and for each ability, with intervals over questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bunny.core.types import EvalResult, Question
from bunny.evaluate.official.benchmark import Read, headlined
from bunny.evaluate.stats import Clusters

ABBREVIATIONS = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}


def all_passes(questions: Sequence[Question], right: Sequence[bool]) -> dict[int, bool]:
    """Row of a question's first pass -> whether it and all its other passes are right."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(questions, right, strict=True):
        groups[question.meta["question"]].append(hit)
    firsts = {row: question.meta["question"] for row, question in enumerate(questions) if question.meta["first"]}
    return {row: all(groups[name]) for row, name in firsts.items()}


def with_intervals(result: EvalResult, questions: Sequence[Question]) -> EvalResult:
    """The circular headline of a result whose points are those of single passes."""
    assert result.points is not None
    hits = all_passes(questions, [point > 0 for point in result.points])
    circular, first = np.zeros(len(questions)), np.zeros(len(questions), dtype=bool)
    for row, hit in hits.items():
        circular[row], first[row] = hit, True
    clusters = Clusters([question.group for question in questions])
    scores = {"vanilla": clusters.rate(result.points * first, first)}
    for name in sorted({question.meta["l2"] for question in questions}):
        members = first & np.array([question.meta["l2"] == name for question in questions])
        scores[ABBREVIATIONS.get(name, name)] = clusters.rate(circular * members, members)
    whole = headlined(replace(result, points=circular, scores={}), questions, first)
    return replace(whole, points=result.points, scores=scores)


def table(read: Read, right: Sequence[bool], every_pass: bool) -> dict[str, object]:
    """The official table, shares from 0 to 1. every_pass: circular, else first passes alone."""
    hits = all_passes(read.questions, right)
    groups: dict[str, list[bool]] = defaultdict(list)
    for row, hit in hits.items():
        meta = read.questions[row].meta
        for name in ("Overall", meta["l2"], meta["category"]):
            groups[ABBREVIATIONS.get(name, name)].append(hit if every_pass else right[row])
    splits = {read.questions[row].meta["split"] for row in hits} or {""}
    means = {name: sum(each) / len(each) for name, each in groups.items()}
    return {"split": "+".join(sorted(splits)), **means}
