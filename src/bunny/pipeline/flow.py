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
from bunny.core.protocols import Engine
from bunny.core.recipe import Block, Recipe, check_blocks
from bunny.core.store import MANIFEST, Artifact, Store, fingerprint, write_atomic
from bunny.pipeline import answering, stages
from bunny.pipeline.check import check_recipe
from bunny.pipeline.together import Together, rank

LEARNING = ("align", "tune", "second")
"""Stages in which all processes of a run take part."""

HOW_ONLY = {
    "tokens_per_pass",
    "gradient_checkpointing",
    "feature_cache",
    "parallel",
    "deepspeed",
    "workers",
    "save_every_steps",
    "keep_checkpoints",
    "evaluate",
    "evaluate_every_steps",
    "preview_every_steps",
    "trackers",
}
"""Settings of a training stage that say how it is computed and watched, not what is learnt."""

NEXT = {
    "curate": "what stayed and why: {0}/report.html",
    "align": "the aligned projector: {0}/projector.safetensors; how it learnt: {0}/README.md",
    "tune": 'the model: {0}; next: bunny chat {0} PICTURE "What is in the picture?"; how it learnt: {0}/README.md',
    "second": "the second model: {0}; how it learnt: {0}/README.md",
    "merge": 'the model: {0}; next: bunny chat {0} PICTURE "What is in the picture?"',
    "evaluate": "scores: {0}/report.html",
}
"""Where a stage's result is and what to do next: the last line of its log. {0}: its folder."""

STAGES = ("curate", "align", "tune", "second", "merge", "evaluate")
FOLDERS = {"curate": "curated", "align": "aligned", "second": "second", "merge": "model", "evaluate": "scores"}
SECTIONS = {
    "curate": ("pool", "curate"),
    "align": ("model", "align"),
    "tune": ("model", "tune"),
    "second": ("model", "second"),
    "merge": ("merge",),
    "evaluate": ("evaluate",),
}
"""Parts of the recipe that a stage's outcome depends on. A stage whose last part is left out does not take place."""


def run(recipe: Recipe, output: Path, only: Sequence[str] = (), curated: Artifact | None = None) -> dict[str, Any]:
    """Run the recipe's stages (all, or the first few named in `only`) and return what `results.json` holds.

    curated: a curated set that is there already, for a recipe without `pool` and `curate`.
    """
    check_recipe(recipe)
    together = Together()
    store = Store(output) if rank() == 0 else None
    has = stages_of(recipe)
    wanted = [stage for stage in has if not only or stage in only]
    if not wanted:
        raise UserError(f"{recipe.name}: no {', '.join(only)} in this recipe", fix=f"it has {', '.join(has)}")
    made = {"curate": curated} if curated else {}
    with stages.leading(recipe, output) as engine:
        if engine is None:  # a rank that helped another one, which has written everything
            return {"tasks": {}, "seconds": {}}
        for stage in has[: has.index(wanted[-1]) + 1]:
            log.info("stage %s", stage)
            made[stage] = _make(stage, recipe, together, store, made, engine)
            log.info("%s: %s", stage, NEXT[stage].format(made[stage].path))
        return _results(output, made) if store else {"tasks": {}, "seconds": {}}


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that the recipe has, in order."""
    return [stage for stage in STAGES if getattr(recipe, SECTIONS[stage][-1]) is not None]


def folder_of(stage: str, recipe: Recipe) -> str:
    """A stage's folder in the run: the finished model is always `model`."""
    if stage == "tune":
        return "model" if recipe.merge is None else "tuned"
    return FOLDERS[stage]


def plan(recipe: Recipe, output: Path) -> list[dict[str, Any]]:
    """What `run` would do: per stage its state (done, unfinished, to do) and settings. Writes nothing."""
    check_blocks(recipe, recipe.name)
    out, known = [], True
    marks: dict[str, str] = {}
    for stage in stages_of(recipe):
        settings, inputs, name = _settings(stage, recipe), _inputs(stage, recipe, marks), folder_of(stage, recipe)
        mark = fingerprint(name, settings, inputs)
        manifest = output / name / MANIFEST
        done = known and manifest.exists() and Artifact.load(manifest.parent).fingerprint == mark
        unfinished = (output / f".{name}.{mark}").exists()
        state = "done" if done else "unfinished" if unfinished else "to do"
        out.append({"stage": stage, "state": state, "settings": settings})
        marks[stage], known = mark, known and done
    return out


def evaluate(
    model: str,
    tasks: Sequence[Block],
    output: Path,
    *,
    endpoint: str = "",
    batch_rows: int = 32,
    max_new_tokens: int | None = None,
) -> dict[str, Any]:
    """Score a model on benchmarks, beside the majority answer and the same model blind.

    model: a folder, or with an endpoint's address the name that it goes by there. Of several processes all answer, and
    the first gets the outcome.
    """
    Store(output)  # it says why if nothing can be written there
    who = answering.Endpoint(endpoint, model) if endpoint else answering.open_folder(Path(model), batch_rows)
    scored = answering.score(who, tasks, output, Path.cwd(), max_new_tokens=max_new_tokens, together=True)
    if not scored:
        return {}
    content = {"tasks": scored["tasks"], "seconds": {}, "model": model, "report": str(output / "report.html")}
    write_atomic(output / "results.json", json.dumps(content, indent=1))
    return content


def _make(
    stage: str,
    recipe: Recipe,
    together: Together,
    store: Store | None,
    made: Mapping[str, Artifact],
    engine: Engine,
) -> Artifact:
    build = {
        "curate": lambda folder: stages.curate(recipe, folder, engine),
        "align": lambda folder: stages.align(recipe, folder, made.get("curate")),
        "tune": lambda folder: stages.tune(recipe, recipe.tune, folder, made.get("curate"), made.get("align")),
        "second": lambda folder: stages.tune(recipe, recipe.second, folder, made.get("curate"), made.get("align")),
        "merge": lambda folder: stages.merge(recipe, folder, made["tune"], made["second"]),
        "evaluate": lambda folder: stages.evaluate(recipe, folder, made["merge" if recipe.merge else "tune"]),
    }[stage]
    marks = {name: artifact.fingerprint for name, artifact in made.items()}
    name = folder_of(stage, recipe)
    return together.make(
        store,
        name,
        build,
        all_take_part=stage in LEARNING,
        settings=_settings(stage, recipe),
        inputs=_inputs(stage, recipe, marks),
    )


def _settings(stage: str, recipe: Recipe) -> dict[str, Any]:
    """Everything of the recipe that the stage's outcome depends on; who does the work is no such thing."""
    left_out = {"curate": {"engine", "threads"}, **dict.fromkeys(LEARNING, HOW_ONLY)}
    return {"seed": recipe.seed} | recipe.model_dump(mode="json", include=set(SECTIONS[stage]), exclude=left_out)


def _inputs(stage: str, recipe: Recipe, marks: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of what the stage reads: earlier artifacts and files that the recipe names."""
    parents = {
        "curate": (),
        "align": ("curate",),
        "tune": ("curate", "align"),
        "second": ("curate", "align"),
        "merge": ("tune", "second"),
        "evaluate": ("merge" if recipe.merge else "tune",),
    }[stage]
    training = {"align": recipe.align, "tune": recipe.tune, "second": recipe.second}.get(stage)
    named: list[Mapping[str, Any]] = []
    read: list[Path] = []
    if stage == "curate" and recipe.pool:
        named, read = [recipe.pool.source], stages.step_inputs(recipe)
    elif stage == "evaluate" and recipe.evaluate:
        named = list(recipe.evaluate.tasks)
    elif training:
        makers = stages.makers_of(training, recipe, stage)
        read = [path for maker in makers for path in maker.inputs()]
        named = [*training.data, {"start_projector": training.start_projector}, {"checkpoint": recipe.model.checkpoint}]
    files = {"files": stages.fingerprint_named(named, recipe, read)}
    return {name: marks[name] for name in parents if name in marks} | files


def _results(output: Path, made: Mapping[str, Artifact]) -> dict[str, Any]:
    content: dict[str, Any] = {"tasks": {}, "seconds": {}}
    for stage, artifact in made.items():
        content["seconds"][stage] = round(artifact.seconds, 1)
    if "tune" in made:
        content["model"] = str(made["merge" if "merge" in made else "tune"].path)
    if "evaluate" in made:
        content |= json.loads((made["evaluate"].path / "scores.json").read_text(encoding="utf-8"))
        content["report"] = str(made["evaluate"].path / "report.html")
        for shown in content.get("chat", []):
            shown["picture"] = str(made["evaluate"].path / shown["picture"])
    if "curate" in made:
        content["curation_report"] = str(made["curate"].path / "report.html")
    try:
        write_atomic(output / "results.json", json.dumps(content, indent=1))
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror}", fix="make room there") from error
    return content
