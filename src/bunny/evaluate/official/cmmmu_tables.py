"""CMMMU's printed table: categories and kinds, and how much of the score was drawn at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bunny.evaluate.official.benchmark import Read
from bunny.evaluate.official.cmmmu_asking import BLANK, CATEGORIES, CHOICE, JUDGE


def tables(read: Read, points: Mapping[int, float], parts: Mapping[int, Sequence[str]], digits: int) -> dict[str, Any]:
    """All that the script prints. points: row -> credit of the rows that count; parts: row -> category and kind.

    digits: of the printed accuracies.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for row, point in points.items():
        for part in (*parts[row], "Overall"):
            groups[part].append(point)
    counts = {part: {"correct": int(sum(each)), "n": len(each)} for part, each in groups.items()}
    names = [name for name in (*CATEGORIES.values(), "Overall") if name in counts]
    rates = {name: round(counts[name]["correct"] / counts[name]["n"], digits) for name in names}
    table = {name: {**counts[name], "acc": rates[name]} for name in names}
    guessed = [row for row in points if read.parsed[row].status == "guessed"]
    right, lucky, n = sum(points.values()), sum(points[row] for row in guessed), max(len(points), 1)
    exact = {"cmmmu_val_pct": 100 * right / n}
    return {
        "headline": {"cmmmu_val_pct": round(exact["cmmmu_val_pct"], 4)},
        "exact": exact,
        "numbers": table,
        "per_type": {kind: counts[kind] for kind in (CHOICE, JUDGE, BLANK) if kind in counts},
        "n_random_fallback": len(guessed),
        "fallback_ids": [int(read.questions[row].id) for row in guessed],
        "acc_if_fallback_counted_wrong": (right - lucky) / n,
        "acc_if_fallback_counted_right": (right - lucky + len(guessed)) / n,
        "correct_ids": sorted(int(read.questions[row].id) for row, point in points.items() if point),
    }
