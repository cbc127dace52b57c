"""What a study will take, before it starts: hours, by timing a step and some answers here, and disk.

In: a study's file and folder. Out: the cells with their states, and hours and gigabytes of what is left. The model is
trained for two steps on made-up rows; what finished cells took counts more, where there are some.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.recipe import Recipe
from bunny.core.store import fingerprint, write_atomic
from bunny.core.types import IMAGE_MARK, ImageRef, Sample, Turn
from bunny.study.asking import answer_in, benchmarks_of
from bunny.study.cell import outcome_of, recipe_of
from bunny.study.cells import Cell, cells_of
from bunny.study.recipe import Study
from bunny.study.run import examine, states_of
from bunny.study.shared import Shared

MACHINE = "machine.json"
PER_PICTURE = 4  # made-up rows, and questions, about one picture
QUESTIONS = 48
OVERHEAD_SECONDS = 25.0  # of a cell, for loading, indexing and writing
ANSWER_BYTES, ROW_BYTES = 400, 600  # of a question in a cell's artifact, of a row in a selection's


def plan(path: Path, output: Path | None = None, pattern: str = "*") -> dict[str, Any]:
    """States of the cells, and what those that are not done will take. Writes what it has measured, nothing else."""
    study = Study.load(path)
    shared = Shared(study, output or Path("runs") / study.name)
    cells = cells_of(study, pattern)
    examine(shared, cells)
    states = states_of(shared, cells)
    left = [cell for cell in cells if states[cell.name] == "to do"]
    questions = sum(len(one.questions()) for one in benchmarks_of(study))
    per = _per_cell(shared, left, [cell for cell in cells if cell not in left], questions)
    return {
        "study": study.name,
        "cells": dict(states),
        "to_do": len(left),
        "questions": questions,
        "hours": {
            "curate": _curation_hours(shared),
            "train": sum(one["train"] for one in per) / 3600,
            "ask": sum(one["ask"] for one in per) / 3600,
            "begin and end": len(left) * OVERHEAD_SECONDS / 3600,
        },
        "measured": _measured(shared, left[0]) if left else {},
        "disk_gb": _disk(shared, left, questions),
    }


def _per_cell(shared: Shared, left: Sequence[Cell], done: Sequence[Cell], questions: int) -> list[Mapping[str, float]]:
    """Seconds of each cell that is left."""
    took: dict[str, list[Mapping[str, Any]]] = {}
    for cell in done:
        if found := outcome_of(shared, cell):
            took.setdefault(cell.size, []).append(found.manifest)
    per: list[Mapping[str, float]] = []
    for cell in left:
        steps = shared.study.budget.steps * shared.choices[cell.selection].times
        if known := took.get(cell.size):
            step = float(np.mean([one["cpu_seconds"]["train"] / one["steps"] for one in known]))
            per.append({"train": steps * step, "ask": float(np.mean([one["cpu_seconds"]["ask"] for one in known]))})
        else:
            rates = _measured(shared, cell)
            per.append({"train": steps * rates["step"], "ask": questions * rates["question"]})
    return per


def _curation_hours(shared: Shared) -> float:
    """Hours until all selections are there, by the rates of `bunny curate run --dry-run`; 0 for a pool that is made."""
    from bunny.pipeline.estimating import estimate_recipe

    if (shared.folder / "pool" / "pool.json").exists():
        return 0.0
    hours = float(estimate_recipe(shared.base)["total"]["hours"])
    how = shared.study.pollute
    return hours * (1 + how.copies) * (1 + how.junk) if how else hours


def _measured(shared: Shared, cell: Cell) -> dict[str, float]:
    """Seconds of a step and of a question on this machine; measured once for each size of model."""
    recipe = recipe_of(shared, cell, 2)
    told = recipe.model_dump(mode="json", include={"model", "tune"})
    mark = fingerprint("measured", told, {})
    path = shared.folder / MACHINE
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    if mark not in known:
        with tempfile.TemporaryDirectory() as folder:
            known[mark] = _measure(recipe, shared.study, Path(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(known, indent=1))
    return known[mark]


def _measure(recipe: Recipe, study: Study, folder: Path) -> dict[str, float]:
    """Train two steps on made-up rows, answer some questions; seconds of the second step and of a question."""
    from bunny.core.types import GenerationSettings, Question
    from bunny.data.images import open_image
    from bunny.infer.answerer import ModelAnswerer
    from bunny.infer.generate import Generator
    from bunny.pipeline.stages import assembled
    from bunny.train.stage import train_stage

    section = recipe.tune.model_copy(update={"evaluate": [], "preview_every_steps": None})
    model, processor = assembled(recipe, None)
    rows = _made_up(2 * section.rows_per_step, folder)
    trained = train_stage(section, model, processor, rows, open_image, folder, recipe.seed, "measure")
    figures = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    asked = [
        Question(row.id, row.turns[0].text.removeprefix(IMAGE_MARK).strip(), row.images, ("yes",))
        for row in _made_up(QUESTIONS, folder)
    ]
    settings = GenerationSettings(max_new_tokens=study.max_new_tokens)
    answer_in(trained.model, section.precision)
    generator = Generator(trained.model, processor)
    started = time.perf_counter()
    for _ in ModelAnswerer(generator, "measure", open_image, settings, study.batch_rows).answer(asked):
        pass
    answered = time.perf_counter() - started
    return {"step": float(figures[-1]["seconds"]), "question": answered / len(asked)}


def _made_up(count: int, folder: Path) -> list[Sample]:
    """Yes/no questions about plain pictures."""
    from PIL import Image

    rows = []
    for number in range(count):
        path = folder / f"{number // PER_PICTURE}.png"
        if not path.exists():
            Image.new("RGB", (64, 64), (7 * number % 256, 31 * number % 256, 99)).save(path)
        turns = (
            Turn("user", f"{IMAGE_MARK}\nIs there a number {number % 7} in the picture?"),
            Turn("assistant", "yes"),
        )
        rows.append(Sample(f"made-up/{number}", (ImageRef(str(path)),), turns))
    return [replace(row, source="made-up") for row in rows]


def _disk(shared: Shared, left: Sequence[Cell], questions: int) -> dict[str, float]:
    """GB: one cell's model and checkpoints at a time (all models, if they are kept), answers, selections."""
    from bunny.pipeline.doctor import examine as examined
    from bunny.pipeline.estimating import job_of

    if not left:
        return {"models": 0.0, "answers": 0.0, "selections": 0.0}
    rows = job_of(shared.base).rows * (1 + shared.study.pollute.copies if shared.study.pollute else 1)
    facts = examined(recipe_of(shared, left[0], 2), folder=shared.folder)["disk"]
    models = facts["checkpoints_gb"] + facts["models_gb"] * (len(left) if shared.study.keep_models else 1)
    parts = len({cell.part for cell in left})
    return {
        "models": models,
        "answers": len(left) * questions * ANSWER_BYTES / 1e9,
        "selections": parts * rows * ROW_BYTES / 1e9,
    }
