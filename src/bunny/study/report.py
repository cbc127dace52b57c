"""The report of a study: one HTML page that needs nothing else, the same as Markdown, and all figures as JSON.

In: the folder of a study, with whatever cells are finished. Out: `report.html`, `report.md`, `report.json`, `figures/`.
"""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bunny.core.errors import UserError
from bunny.core.store import Artifact, write_atomic
from bunny.study import plots
from bunny.study.asking import benchmarks_of
from bunny.study.cell import ANSWERS, outcome_of
from bunny.study.cells import Cell, cells_of
from bunny.study.findings import Arm, Comparison, Result, Score, by_arm, comparisons_of, scores_of
from bunny.study.learning import losses_of, progress_of, spent_by
from bunny.study.pictures import walls
from bunny.study.recipe import Study
from bunny.study.shared import Shared, claimed
from bunny.study.telling import conclusion, influence_of, pollution_of

PAGE, TEXT, DATA, FIGURES = "report.html", "report.md", "report.json", "figures"


def report(path: Path, folder: Path) -> dict[str, Any]:
    """Write the report of the cells that are finished; where it is, and what it says in short.

    path: the study's file. Raises UserError if no cell is finished.
    """
    study = Study.load(path)
    shared = Shared(study, folder)
    cells = cells_of(study)
    results = results_of(shared, cells)
    if not results:
        raise UserError(f"{folder}: no cell is finished there", fix=f"bunny study {path}")
    scores = scores_of(results)
    comparisons = comparisons_of(results, study.against, study.measure)
    content: dict[str, Any] = {
        "study": study.name,
        "settings": study.model_dump(mode="json"),
        "machine": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "cells": {"finished": [one.cell.name for one in results], "all": len(cells)},
        "conclusion": conclusion(study, comparisons),
        "scores": [one.as_json() for one in scores],
        "comparisons": [one.as_json() for one in comparisons],
        "cost": spent_by(results),
        "selections": _selections(shared, results),
        "influence": influence_of(shared, results),
        "pollution": pollution_of(shared, results),
        "leaks": _leaks(shared),
    }
    with claimed(folder / ".report.lock"):
        _write(folder, content, _draw(folder / FIGURES, study, results, scores, comparisons), walls(shared, results))
    return {
        "report": str(folder / PAGE),
        "finished": len(results),
        "cells": len(cells),
        "conclusion": content["conclusion"],
        "comparisons": content["comparisons"],
    }


def _write(folder: Path, content: dict[str, Any], figures: Mapping[str, Path], shown: Sequence[Any]) -> None:
    """The three forms of the report. shown: walls of pictures, for the page alone."""
    told = [{key: value for key, value in one.items() if key != "thumbs"} for one in content["influence"]]
    write_atomic(folder / DATA, json.dumps({**content, "influence": told}, indent=1, ensure_ascii=False))
    page = {**content, "walls": shown, "tested": content["settings"]["measure"]}
    write_atomic(folder / PAGE, _render("report.html.j2", page, {name: _inline(p) for name, p in figures.items()}))
    local = {name: f"{FIGURES}/{path.name}" for name, path in figures.items()}
    write_atomic(folder / TEXT, _render("report.md.j2", page, local))


def results_of(shared: Shared, cells: Sequence[Cell]) -> list[Result]:
    """The finished cells with their answers."""
    found = []
    for cell in cells:
        outcome = outcome_of(shared, cell)
        if outcome is not None:
            found.append(Result(cell, {**outcome.manifest, "folder": str(outcome.path)}, _answers(outcome)))
    return found


def _answers(outcome: Artifact) -> dict[str, list[dict[str, Any]]]:
    files = sorted((outcome.path / ANSWERS).glob("*.jsonl"))
    return {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files}


def _selections(shared: Shared, results: Sequence[Result]) -> list[dict[str, Any]]:
    """What each arm has learnt from: rows of the pool, training rows, steps; means over seeds."""
    found = []
    for arm, some in by_arm(results).items():
        mean = {key: sum(float(one.facts[key]) for one in some) / len(some) for key in ("kept", "rows", "steps")}
        found.append({"arm": arm.title, "size": arm.size, "seeds": len(some), **mean, "pool": len(shared.pool)})
    return found


def _leaks(shared: Shared) -> dict[str, Any]:
    """Held-out pictures that the pool has, as good as."""
    from bunny.study.influence import Nearness

    questions = [question for one in benchmarks_of(shared.study) for question in one.questions()]
    near = Nearness(shared, questions)
    found = near.leaks()
    return {"pictures": len(near.pictures), "found": [list(one) for one in found[:20]], "count": len(found)}


def _draw(
    folder: Path,
    study: Study,
    results: Sequence[Result],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
) -> dict[str, Path]:
    """The figures: name -> file."""
    made: dict[str, Path] = {}
    for task in results[0].rows:
        tested = [one for one in comparisons if one.task == task and one.measure == study.measure]
        if tested:
            made[f"differences: {task}"] = folder / f"differences-{task}.png"
            plots.forest(tested, made[f"differences: {task}"], f"{task}, {study.measure}: differences at equal budget")
        some = [one for one in scores if one.task == task and one.measure == study.measure]
        made[f"scores: {task}"] = folder / f"scores-{task}.png"
        plots.by_share(some, made[f"scores: {task}"], f"{task}, {study.measure}")
    main = _main_arms(study, results)
    made["loss"] = folder / "loss.png"
    plots.curves(losses_of(results, main), made["loss"], "training loss, mean over seeds")
    if progress := progress_of(results, main):
        made["progress"] = folder / "progress.png"
        plots.progress(progress, made["progress"], "scores while learning, mean over seeds")
    made["cost"] = folder / "cost.png"
    plots.costs(spent_by(results), made["cost"], "cost of one cell")
    return made


def _main_arms(study: Study, results: Sequence[Result]) -> list[Arm]:
    """Those of the written selections: ablations would crowd a plot of curves."""
    return [arm for arm in by_arm(results) if arm.selection in study.selections]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _render(name: str, content: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(content=content, figures=figures)
