"""New settings on a finished curation: the same pool, no new embeddings; what the steps left on disk serves again.

In: a run folder and settings such as `dedup.above=0.9`. Out: a run folder of its own, and what differs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Block
from bunny.core.store import Store
from bunny.pipeline.curated import CURATED, SAMPLES, WORK, CuratedRun, find_run
from bunny.pipeline.difference import compare
from bunny.pipeline.exports import parsed, write_card_of

AGAIN = "again"
SEED = "seed"


def again(run: Path, settings: Sequence[str], output: Path | None = None) -> dict[str, Any]:
    """Run the steps with other settings; where the result is, and what differs. output: default RUN/again/SETTINGS.

    Raises UserError for an unknown run, step or setting, and if the run's pool is gone.
    """
    earlier = find_run(run)
    changes = _changes(earlier, settings)
    steps = _changed(earlier, changes)
    if earlier.pool is None:
        raise UserError(f"{run}: its pool is not there any more", fix="curate again: `bunny curate run RECIPE`")
    seed = int(changes.get((SEED, ""), earlier.summary.get("seed", 0)))
    target = output or Path(earlier.name) / AGAIN / ",".join(one.replace("/", "-") for one in settings)
    if target.resolve() == Path(earlier.name).resolve():
        raise UserError(f"{target} is the earlier run itself", fix="choose another folder with --output")
    recipe = dict(earlier.manifest.get("settings", {}))
    told = {**recipe, "seed": seed, "curate": {**dict(recipe.get("curate") or {}), "steps": steps, "preset": None}}
    mark = str(earlier.manifest.get("fingerprint", earlier.name))
    Store(target).make(
        CURATED,
        lambda folder: _curate(earlier, steps, seed, folder, target / CURATED),
        settings=told,
        inputs={"curate": mark},
    )
    later = find_run(target)
    write_card_of(later)
    return {"run": str(target), **compare(earlier, later)}


def _curate(earlier: CuratedRun, steps: Sequence[Block], seed: int, folder: Path, final: Path) -> Mapping[str, Any]:
    """The stage's work: choose from the pool that is there, on the files that its steps left."""
    from bunny import curate as curation
    from bunny.curate.engines import make_engine
    from bunny.data.images import open_image

    assert earlier.pool
    made = curation.PoolFolder(earlier.pool)
    work = earlier.pool.parent / WORK
    selection = curation.choose(
        made, steps, seed=seed, folder=folder, open_image=open_image, engine=make_engine(), work=work
    )
    kept = selection.kept()
    if not kept.any():
        raise UserError("with these settings nothing stays", fix=f"{folder / 'report.html'} shows what dropped what")
    made.write_samples(kept, folder / SAMPLES)
    place = os.path.relpath(earlier.pool, final.resolve())
    return {"pairs": len(made), "rejected": len(selection.rejected), "kept": int(kept.sum()), "pool_folder": place}


def _changes(run: CuratedRun, settings: Sequence[str]) -> dict[tuple[str, str], Any]:
    """(step, field) -> value; (`seed`, "") for the seed. Raises UserError."""
    if not settings:
        raise UserError(f"{run.name}: what shall change?", fix="name it, e.g. --set dedup.above=0.9")
    if not run.steps:
        raise UserError(f"{run.name}: no summary.json beside its table", fix="curate again: `bunny curate run RECIPE`")
    found: dict[tuple[str, str], Any] = {}
    for setting in settings:
        key, value = parsed(setting)
        label, _, field = key.partition(".")
        if not field and label != SEED:
            known = [f"{one}.{name}" for one, block in zip(run.labels, run.steps, strict=True) for name in block]
            raise UserError(f"`{key}` names no step's setting", fix=nearest(key, [*known, SEED]))
        found[label, field] = value
    return found


def _changed(run: CuratedRun, changes: Mapping[tuple[str, str], Any]) -> list[Block]:
    """The steps with other settings. Raises UserError that names the step and key at fault."""
    from bunny.curate.plan import changed, plan

    overrides: dict[str, dict[str, Any]] = {}
    for (label, field), value in changes.items():
        if label != SEED:
            overrides.setdefault(label, {})[field] = value
    return [dict(one.block) for one in changed(plan(run.steps), overrides)]
