"""What training left behind in each cell: losses, scores meanwhile, processor time.

In: results of cells. Out: curves and costs, each the mean over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bunny.study.cell import EVALUATIONS, METRICS
from bunny.study.findings import Arm, Result, by_arm

PARTS = ("curate", "train", "ask")


def losses_of(results: Sequence[Result], arms: Sequence[Arm]) -> dict[str, list[float]]:
    """Arm -> loss of each step."""
    found = {}
    for arm, some in by_arm(results).items():
        if arm in arms:
            runs = [[row["loss"] for row in _lines(one, METRICS) if "loss" in row] for one in some]
            length = min(map(len, runs))
            if length:
                found[arm.title] = np.mean([run[:length] for run in runs], axis=0).tolist()
    return found


def progress_of(results: Sequence[Result], arms: Sequence[Arm]) -> dict[str, list[tuple[int, float]]]:
    """Arm and task -> (step, score) of the evaluations while it learnt; empty if there were none."""
    found: dict[str, list[tuple[int, float]]] = {}
    for arm, some in by_arm(results).items():
        scores: dict[tuple[str, int], list[float]] = {}
        for one in some if arm in arms else ():
            for row in _lines(one, EVALUATIONS):
                for task, told in row["tasks"].items():
                    scores.setdefault((task, int(row["step"])), []).append(float(told["score"]))
        for (task, step), values in sorted(scores.items()):
            found.setdefault(f"{arm.title}: {task}", []).append((step, float(np.mean(values))))
    return found


def spent_by(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Arm -> CPU-seconds of curation, training and asking."""
    return {
        arm.title: {part: float(np.mean([one.facts["cpu_seconds"][part] for one in some])) for part in PARTS}
        for arm, some in by_arm(results).items()
    }


def _lines(result: Result, name: str) -> Iterator[dict[str, Any]]:
    path = Path(str(result.facts["folder"])) / name
    if path.exists():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
