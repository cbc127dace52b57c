"""Two evaluated models beside each other: `bunny eval compare`. No model is loaded.

In: two report folders, or two answer files of one published benchmark. Out: the comparison as a plain tree, and
`compare.html`, `compare.md`, `compare.json` in a folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bunny.core.store import write_atomic
from bunny.core.types import Answer
from bunny.evaluate import compare, compare_page
from bunny.evaluate.runner import MISSING, Outcome
from bunny.evaluate.score_file import Scored, score_file
from bunny.pipeline.scoring import benchmark
from bunny.pipeline.thumbnail import thumbnail


def run(
    a: Path, b: Path, output: Path | None, task: str = "", data: Path | None = None, profile: str = "bunny"
) -> dict[str, Any]:
    """B against A. task: A and B are answer files of that published benchmark, scored here. output: where to write."""
    if task:
        one, other = (side(score_file(benchmark(task, data, profile), path)) for path in (a, b))
        found = compare.compare_sides(str(a), str(b), {task: one}, {task: other})
    else:
        found = compare.compare(a, b)
    content = found.as_json()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / "compare.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_atomic(output / "compare.md", compare_page.markdown(found))
        write_atomic(output / "compare.html", compare_page.html(found, thumbnail))
        content["page"] = str(output / "compare.html")
    return content


def side(scored: Scored) -> compare.Side:
    """A scored answers file as one side of a comparison."""
    read = scored.read
    answers = [
        Answer(question.id, given.text) if given else Answer(question.id, "", MISSING)
        for question, given in zip(read.questions, read.given, strict=True)
    ]
    outcome = Outcome("answers file", scored.result, tuple(read.questions), tuple(answers), tuple(read.parsed))
    return compare.side_of(outcome)
