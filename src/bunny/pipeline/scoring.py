"""Answers that exist already: score them, audit them, and see which official files are missing. No model is loaded.

In: a task, an answers file, the folder of the task's official files. Out: plain trees, as the commands print them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import check, find, names
from bunny.evaluate import BENCHMARKS
from bunny.evaluate.audit import audit as audit_file
from bunny.evaluate.doctor import examine
from bunny.evaluate.official.benchmark import PROFILES, ROOT, OfficialBenchmark
from bunny.evaluate.score_file import score_file, submit


def score(
    task: str, answers: Path, data: Path | None = None, profile: str = "bunny", submission: Path | None = None
) -> dict[str, Any]:
    """The numbers of one answers file under one profile. submission: also write the file the task's server takes."""
    scored = score_file(benchmark(task, data, profile), answers)
    if submission is not None:
        submit(scored, submission)
    return {**scored.as_json(), "answers": str(answers)}


def audit(task: str, answers: Path, data: Path | None = None) -> dict[str, Any]:
    """The same answers under every reading, and the questions on which the readings differ."""
    return {**audit_file(benchmark(task, data), answers).as_json(), "answers": str(answers)}


def doctor(tasks: Sequence[str] = (), root: Path | None = None) -> dict[str, Any]:
    """What each published benchmark has and lacks below the root. Raises UserError if no root is known."""
    folder = root or (Path(os.environ[ROOT]) if os.environ.get(ROOT) else None)
    if folder is None:
        raise UserError(
            f"no folder for benchmark files: {ROOT} is not set", fix=f"export {ROOT}=/folder/of/your/choice"
        )
    known = [benchmark(task) for task in tasks or published()]
    files = [found.as_json() for one in known for found in examine(one, folder / one.name)]
    return {"root": str(folder), "files": files, "problems": sum(file["state"] != "there" for file in files)}


def published() -> list[str]:
    """The names of the published benchmarks."""
    return [name for name in names(BENCHMARKS) if issubclass(find(name, BENCHMARKS, name), OfficialBenchmark)]


def benchmark(task: str, data: Path | None = None, profile: str = "bunny") -> OfficialBenchmark:
    """The published benchmark of that name. Raises UserError for other names, and for unknown profiles."""
    if profile not in PROFILES:
        raise UserError(f"--profile {profile}: no such profile, {nearest(profile, PROFILES)}")
    if data is not None and not data.is_dir():
        raise UserError(f"{data}: no such folder", fix="give the folder of the official files with --data")
    kind = find(task, BENCHMARKS, "task")
    if not issubclass(kind, OfficialBenchmark):
        raise UserError(f"{task}: makes its own questions; there are no answer files of it", fix="use a published one")
    return check(kind, {"data": data, "profile": profile}, where=task)
