"""One curation from end to end: a source in, a pool, a selection and the samples that stay out.

In: the blocks of a recipe's `pool` and `curate` sections, or the arguments of `bunny.curate(…)` in a notebook. Out: a
folder with `samples.parquet`, `decisions.parquet`, `report.html`, `rejected.jsonl`, `summary.json`; beside it the pool,
and what the heavy steps keep for the next run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.protocols import Engine
from bunny.core.recipe import Block, CurateSection, check
from bunny.curate.engine import Selection
from bunny.curate.pool import PoolFolder

SAMPLES, CURATED = "samples.parquet", "curated"
POOL, WORK, RANKS = "pool", "work", ".ranks"


def engine_of(section: CurateSection, output: Path) -> Engine:
    """What runs the heavy work; ranks meet in a folder of the run unless the recipe names another."""
    from bunny.curate.engines import make_engine

    block = dict(section.engine or {"use": "local"})
    return make_engine({"folder": str(output / RANKS), **block} if block.get("use") == "ranks" else block)


def steps_of(section: CurateSection) -> list[Block]:
    """The steps: written out, or those of the preset."""
    from bunny.curate.plan import preset_steps

    return section.steps or (preset_steps(section.preset) if section.preset else [])


def curate_source(
    source: Block, base: Path, section: CurateSection, *, seed: int, folder: Path, run: Path, engine: Engine
) -> tuple[Selection, PoolFolder]:
    """Make the pool, run the steps, and write all files but the further formats and the card.

    base: folder that relative paths are seen from. folder: for the files. run: the folder of the run; the pool stands
    there, so that other steps on the same pictures embed nothing again. Raises UserError if nothing stays.
    """
    from bunny import curate as curation
    from bunny.curate.engines import release
    from bunny.curate.plan import plan
    from bunny.data.images import open_image
    from bunny.pipeline.pool_tasks import pool_of

    run = run.absolute()  # tasks carry paths, and may run in other folders
    steps = steps_of(section)
    plan(steps, base)  # a wrong step is found before hours of embedding
    try:
        made = pool_of(
            source, base, section.embedder, run / POOL, engine, part_rows=section.part_rows, threads=section.threads
        )
        selection = curation.choose(
            made, steps, seed=seed, folder=folder, open_image=open_image, engine=engine, work=run / WORK, base=base
        )
    finally:
        release(engine)
    kept = selection.kept()
    if not kept.any():
        reasons = dict(Counter(item.reason for item in selection.rejected).most_common())
        raise UserError(
            f"curation kept nothing of {len(made) + len(selection.rejected)} rows; rejected: {reasons or 0}",
            fix=f"{folder / 'report.html'} shows what dropped what",
        )
    made.write_samples(kept, folder / SAMPLES)
    return selection, made


def write_more(source: Block, section: CurateSection, *, seed: int, folder: Path, name: str) -> None:
    """Write the samples that stay in further formats, each into a folder of its name, and the card of the set."""
    from bunny.curate.card import write_card
    from bunny.pipeline.curated import CuratedRun
    from bunny.pipeline.exports import write

    for block in section.write:
        write(CuratedRun(folder, name), block, folder / str(block["use"]))
    told = section.model_dump(mode="json", exclude={"engine", "threads"})
    write_card(folder, name=Path(name).name, settings={"seed": seed, "pool": {"source": source}, "curate": told})


def curate(
    source: str | Path | Mapping[str, Any],
    *,
    output: str | Path,
    steps: Sequence[Mapping[str, Any]] | None = None,
    preset: str | None = None,
    embedder: Mapping[str, Any] | None = None,
    seed: int = 0,
    engine: Mapping[str, Any] | None = None,
    write: Sequence[Mapping[str, Any]] = (),
    threads: int = 0,
    part_rows: int | None = None,
) -> Selection:
    """`bunny.curate(…)`: a selection of the source's pairs, written to `output/curated`, its pool to `output/pool`.

    source: a folder, whose layout is found out, or a `{use: table, path: …}` block; relative paths are seen from the
    working folder. steps or preset: what to do. embedder: a block such as `{"use": "clip", "model": …}`; a source with
    vectors needs none, and a preset brings its own. engine, write, threads, part_rows: as in a recipe. The outcome
    knows its `ids()`, `why(id)`, and its `report`. Done before with the same settings, only the steps run again.
    Raises UserError.
    """
    from bunny.pipeline.curation import preset_embedder

    block = dict(source) if isinstance(source, Mapping) else _guessed(Path(source))
    if preset and embedder is None:
        embedder = preset_embedder(preset, block)
    given: dict[str, Any] = {
        "steps": None if steps is None else [dict(step) for step in steps],
        "preset": preset,
        "embedder": embedder,
        "engine": engine,
    }
    given |= {"write": [dict(block) for block in write], "threads": threads, "part_rows": part_rows}
    section = check(CurateSection, {key: value for key, value in given.items() if value is not None}, "curate")
    run = Path(output)
    selection, _ = curate_source(
        block, Path.cwd(), section, seed=seed, folder=run / CURATED, run=run, engine=engine_of(section, run)
    )
    write_more(block, section, seed=seed, folder=run / CURATED, name=str(run))
    return selection


def _guessed(folder: Path) -> Block:
    from bunny.data.guessing import guess_source

    return guess_source(folder.resolve())
