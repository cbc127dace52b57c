"""MME's score: for each of 14 tasks, accuracy plus the share of pictures with both questions right, each out of 100.

In: right or wrong, pair by pair. Out: the official table, and the same with intervals over pictures. `file_pairs` is
the script's own pairing: two neighbouring lines of a text file, among those with exactly four cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bunny.core.types import EvalResult, FloatArray, Parsed, Question
from bunny.evaluate.official.benchmark import Read
from bunny.evaluate.official.yes_no import mme
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters, ratio

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
KINDS = {"Perception": PERCEPTION, "Cognition": COGNITION}

Pairs = Sequence[Sequence[bool]]
"""Right or wrong of the questions about each picture."""


def table(pairs: Mapping[str, Pairs]) -> dict[str, Any]:
    """Kind -> its tasks' scores and their sum. A task without answers scores 0."""
    tree = {}
    for kind, tasks in KINDS.items():
        scores = {task: _score(pairs[task]) for task in tasks if pairs.get(task)}
        tree[kind] = {"tasks": scores, "total": sum(scores.values())}
    return tree


def _score(pairs: Pairs) -> float:
    hits = [hit for pair in pairs for hit in pair]
    return sum(hits) / len(hits) * 100 + sum(len(pair) == 2 and all(pair) for pair in pairs) / len(pairs) * 100


def id_pairs(read: Read, right: Sequence[bool]) -> dict[str, list[list[bool]]]:
    """Questions about one picture of one task belong together."""
    pairs: dict[tuple[str, str], list[bool]] = {}
    for question, hit in zip(read.questions, right, strict=True):
        pairs.setdefault((question.meta["task"], question.group), []).append(hit)
    tasks: dict[str, list[list[bool]]] = {}
    for (task, _), pair in pairs.items():
        tasks.setdefault(task, []).append(pair)
    return tasks


def file_pairs(read: Read) -> dict[str, list[list[bool]]]:
    """As the original writes and reads its text files: an answer's tab spoils its line, a line break its rest, and
    all lines after a spoilt one are paired anew. (Where a line is left over, the original stops with an error.)"""
    tasks: dict[str, list[bool]] = {}
    for row in read.order:
        question, given = read.questions[row], read.given[row]
        assert given is not None
        line = "\t".join(("", "", question.gold[0].lower(), given.text)).replace("\r", "\n").partition("\n")[0]
        cells = f"{line}\n".split("\t")
        if len(cells) == 4:
            tasks.setdefault(question.meta["task"], []).append(mme(cells[3]) == cells[2])
    return {task: [hits[at : at + 2] for at in range(0, len(hits), 2)] for task, hits in tasks.items()}


def with_intervals(name: str, questions: Sequence[Question], parsed: Sequence[Parsed], right: list[bool]) -> EvalResult:
    """Headline: the sum over perception tasks, with cognition and every task beside it."""
    clusters = Clusters([question.group for question in questions])
    tasks = [task for task in (*PERCEPTION, *COGNITION) if any(question.meta["task"] == task for question in questions)]
    columns = {task: _columns(questions, right, task) for task in tasks}
    scores = {task: clusters.bootstrap(values, _sum_of_tasks) for task, values in columns.items()}
    result = mean_score(name, questions, parsed, right, scores=scores)
    for kind, label in ((COGNITION, "cognition"), (PERCEPTION, "perception")):
        members = [columns[task] for task in kind if task in columns]
        if members:
            every = np.concatenate(members, axis=1)  # (N, 4 × tasks)
            total = clusters.bootstrap(every, _sum_of_tasks)
            scores = {**result.scores, label: total}
            result = replace(result, headline=total, scores=scores, draws=clusters.draws(every, _sum_of_tasks))
    return result


def _columns(questions: Sequence[Question], right: Sequence[bool], task: str) -> FloatArray:
    """(N, 4): right, asked, pairs right, pairs; a pair counts in the row of its first question."""
    columns = np.zeros((len(questions), 4))
    pairs: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        if question.meta["task"] == task:
            columns[row, :2] = right[row], 1
            pairs.setdefault(question.group, []).append(row)
    for rows in pairs.values():
        columns[rows[0], 2:] = len(rows) == 2 and all(right[row] for row in rows), 1
    return columns


def _sum_of_tasks(sums: FloatArray) -> FloatArray:
    """(…, 4 × tasks) -> (…)."""
    starts = range(0, sums.shape[-1], 4)
    parts = [ratio(sums[..., at], sums[..., at + 1]) + ratio(sums[..., at + 2], sums[..., at + 3]) for at in starts]
    return np.asarray(np.sum(parts, axis=0))
