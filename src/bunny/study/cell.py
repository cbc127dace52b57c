"""One cell: learn from its set under the study's budget, answer all questions, keep what the report needs.

In: a cell and what all cells share. Out: an artifact with `answers/TASK.jsonl`, `metrics.jsonl`, scores while it
learnt, what it cost. A killed cell goes on from its last checkpoint; its weights go when its answers are there.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import Recipe
from bunny.core.store import Artifact, Store, fingerprint, write_atomic
from bunny.pipeline import flow, stages
from bunny.study.asking import ask, benchmarks_of
from bunny.study.cells import Cell
from bunny.study.shared import Shared, counted, finished, spent

CELLS, OUTCOME, RUN, FEATURES = "cells", "outcome", "run", "features"
CLOCK = "cpu_seconds.json"
ANSWERS, METRICS, EVALUATIONS = "answers", "metrics.jsonl", "evaluations.jsonl"
ENDLESS = 1e6  # epochs: the budget's steps end the training
LEFT_OUT = {"align": flow.HOW_ONLY, "tune": {*flow.HOW_ONLY, "max_steps"}}


def folder_of(shared: Shared, cell: Cell) -> Path:
    """Where the cell's artifact is."""
    return shared.folder / CELLS / cell.name / OUTCOME


def outcome_of(shared: Shared, cell: Cell) -> Artifact | None:
    """The cell's artifact, if it is finished and of this study as it stands."""
    settings, inputs = _made_from(shared, cell)
    return finished(folder_of(shared, cell), fingerprint(OUTCOME, settings, inputs))


def make_cell(shared: Shared, cell: Cell) -> Artifact:
    """The cell's artifact, made unless it is there."""
    settings, inputs = _made_from(shared, cell)
    store = Store(folder_of(shared, cell).parent)
    return store.make(OUTCOME, lambda folder: _build(shared, cell, folder), settings=settings, inputs=inputs)


def recipe_of(shared: Shared, cell: Cell, steps: int) -> Recipe:
    """The base recipe with all that is the cell's own."""
    choice = shared.choices[cell.selection]
    fixed = {"pool": None, "curate": None, "evaluate": None, "seed": cell.seed}
    changes = {**shared.study.sizes[cell.size], **choice.set, **fixed}
    recipe = shared.study.base({**changes, "tune.max_steps": steps, "tune.epochs": ENDLESS})
    if recipe.tune.vision_tower != "frozen":
        return recipe
    kept = {"feature_cache": str(shared.folder.resolve() / FEATURES)}
    return recipe.model_copy(update={"tune": recipe.tune.model_copy(update=kept)})


def steps_for(shared: Shared, cell: Cell, selection: Artifact) -> int:
    """Optimiser steps that the budget leaves. Raises UserError if the curation has taken all of it."""
    budget = shared.study.budget
    steps = budget.steps * shared.choices[cell.selection].times
    if budget.equal == "compute":
        assert budget.step_cpu_seconds
        taken = shared.curation_seconds(cell, selection) / budget.step_cpu_seconds
        if taken >= steps:
            raise UserError(
                f"{cell.name}: its curation takes as much as {taken:.0f} steps, and the budget is {steps:.0f}",
                fix="give a larger `budget.steps`, or compare at equal steps",
            )
        steps -= taken
    return max(1, math.floor(steps))


def _made_from(shared: Shared, cell: Cell) -> tuple[dict[str, Any], dict[str, str]]:
    """(settings, inputs) of the cell's fingerprint. How many steps `equal: compute` leaves is measured, not set."""
    study, choice = shared.study, shared.choices[cell.selection]
    recipe = recipe_of(shared, cell, study.budget.steps)
    settings = {
        **recipe.model_dump(mode="json", include={"seed", "model", "align", "tune"}, exclude=LEFT_OUT),
        "budget": study.budget.model_dump(mode="json"),
        "times": choice.times,
        "tasks": study.tasks,
        "max_new_tokens": study.max_new_tokens,
    }
    named = [*recipe.tune.data, {"start_projector": recipe.tune.start_projector}]
    named += [*(recipe.align.data if recipe.align else []), {"checkpoint": recipe.model.checkpoint}]
    files = stages.fingerprint_named(named, recipe)
    asked = fingerprint("tasks", [one.model_dump(mode="json") for one in benchmarks_of(study)], {})
    return settings, {"selection": shared.selection_mark(cell), "files": files, "tasks": asked}


def _build(shared: Shared, cell: Cell, folder: Path) -> Mapping[str, Any]:
    study, run = shared.study, folder / RUN
    selection = shared.selection(cell)
    steps = steps_for(shared, cell, selection)
    recipe = recipe_of(shared, cell, steps)
    clock = folder / CLOCK
    with counted(clock, "train"):
        flow.run(recipe, run, ("align", "tune"), curated=selection)
    with counted(clock, "ask"):
        rows = ask(run / "model", cell.name, benchmarks_of(study), study, recipe.tune.precision)
    (folder / ANSWERS).mkdir(exist_ok=True)
    for task, some in rows.items():
        write_atomic(folder / ANSWERS / f"{task}.jsonl", "".join(json.dumps(row) + "\n" for row in some))
    training = run / "model" / stages.TRAINING
    for name in (METRICS, EVALUATIONS):
        if (training / name).exists():
            shutil.copy(training / name, folder / name)
    tuned = Artifact.load(run / "model").manifest
    if not study.keep_models:
        shutil.rmtree(run)
    return {
        "cell": {"selection": cell.selection, "share": cell.share, "seed": cell.seed, "size": cell.size},
        "steps": steps,
        "rows": tuned["rows"],
        "kept": selection.manifest["kept"],
        "cpu_seconds": {"curate": shared.curation_seconds(cell, selection), **spent(clock)},
    }
