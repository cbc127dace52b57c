"""The picture in the README as code: pool -> curated set -> aligned projector -> tuned model -> scores.

In: a recipe and a run folder. Out: one artifact per stage, and `results.json`. A stage whose settings and inputs did
not change is kept; an unfinished one goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Block, Recipe, check_blocks
from bunny.core.store import MANIFEST, Artifact, Store, fingerprint, write_atomic
from bunny.pipeline import stages
from bunny.pipeline.check import check_recipe

STAGES = ("curate", "align", "tune", "evaluate")
FOLDERS = {"curate": "curated", "align": "aligned", "tune": "model", "evaluate": "scores"}


def run(recipe: Recipe, output: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run the recipe's stages (all, or the first few named in `only`) and return what `results.json` holds."""
    check_recipe(recipe)
    store = Store(output)
    wanted = [stage for stage in STAGES if not only or stage in only]
    made: dict[str, Artifact] = {}
    for stage in STAGES[: STAGES.index(wanted[-1]) + 1]:
        log.info("stage %s", stage)
        made[stage] = _make(stage, recipe, store, made)
    return _results(output, made)


def plan(recipe: Recipe, output: Path) -> list[dict[str, Any]]:
    """What `run` would do: per stage its state (done, unfinished, to do) and settings. Writes nothing."""
    check_blocks(recipe, recipe.name)
    out, known = [], True
    marks: dict[str, str] = {}
    for stage in STAGES:
        settings, inputs = _settings(stage, recipe), _inputs(stage, recipe, marks)
        mark = fingerprint(FOLDERS[stage], settings, inputs)
        manifest = output / FOLDERS[stage] / MANIFEST
        done = known and manifest.exists() and Artifact.load(manifest.parent).fingerprint == mark
        unfinished = (output / f".{FOLDERS[stage]}.{mark}").exists()
        state = "done" if done else "unfinished" if unfinished else "to do"
        out.append({"stage": stage, "state": state, "settings": settings})
        marks[stage], known = mark, known and done
    return out


def evaluate(model: str, tasks: Sequence[Block], output: Path, max_new_tokens: int = 32) -> dict[str, Any]:
    """Score a saved model on benchmarks, beside the majority answer and the same model blind."""
    Store(output)  # it says why if nothing can be written there
    scored = stages.score_folder(Path(model), tasks, output, Path.cwd(), max_new_tokens)
    content = {"tasks": scored["tasks"], "seconds": {}, "model": model, "report": str(output / "report.html")}
    write_atomic(output / "results.json", json.dumps(content, indent=1))
    return content


def _make(stage: str, recipe: Recipe, store: Store, made: Mapping[str, Artifact]) -> Artifact:
    build = {
        "curate": lambda folder: stages.curate(recipe, folder),
        "align": lambda folder: stages.align(recipe, folder, made["curate"]),
        "tune": lambda folder: stages.tune(recipe, folder, made["curate"], made["align"]),
        "evaluate": lambda folder: stages.evaluate(recipe, folder, made["tune"]),
    }[stage]
    marks = {name: artifact.fingerprint for name, artifact in made.items()}
    return store.make(FOLDERS[stage], build, settings=_settings(stage, recipe), inputs=_inputs(stage, recipe, marks))


def _settings(stage: str, recipe: Recipe) -> dict[str, Any]:
    """Everything of the recipe that the stage's outcome depends on."""
    sections: dict[str, tuple[str, ...]] = {
        "curate": ("pool", "curate"),
        "align": ("model", "align"),
        "tune": ("model", "tune"),
        "evaluate": ("evaluate",),
    }
    return {"seed": recipe.seed} | recipe.model_dump(mode="json", include=set(sections[stage]))


def _inputs(stage: str, recipe: Recipe, marks: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of what the stage reads: earlier artifacts and files that the recipe names."""
    parents = {"curate": (), "align": ("curate",), "tune": ("curate", "align"), "evaluate": ("tune",)}[stage]
    training = {"align": recipe.align, "tune": recipe.tune}.get(stage)
    named: list[Mapping[str, Any]] = []
    if stage == "curate":
        named = [recipe.pool.source]
    elif stage == "evaluate":
        named = list(recipe.evaluate.tasks)
    elif training:
        named = [*training.data, {"start_projector": training.start_projector}]
    return {name: marks[name] for name in parents} | {"files": stages.fingerprint_named(named, recipe)}


def _results(output: Path, made: Mapping[str, Artifact]) -> dict[str, Any]:
    content: dict[str, Any] = {"tasks": {}, "seconds": {}}
    for stage, artifact in made.items():
        content["seconds"][stage] = round(artifact.seconds, 1)
    if "tune" in made:
        content["model"] = str(made["tune"].path)
    if "evaluate" in made:
        content |= json.loads((made["evaluate"].path / "scores.json").read_text(encoding="utf-8"))
        content["report"] = str(made["evaluate"].path / "report.html")
        for shown in content.get("chat", []):
            shown["picture"] = str(made["evaluate"].path / shown["picture"])
    content["curation_report"] = str(made["curate"].path / "report.html")
    try:
        write_atomic(output / "results.json", json.dumps(content, indent=1))
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}", fix="make room there") from error
    return content
