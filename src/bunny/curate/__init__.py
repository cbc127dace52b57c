"""From raw image-text pairs to a coreset: embed, decide step by step, say why. No torch here.

In: samples, what was rejected while reading them, an embedder, the recipe's steps; or a pool folder that is there. Out:
a `Selection`, and in the folder `decisions.parquet`, `report.html`, `rejected.jsonl`, `summary.json` and the pool.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bunny.core.errors import UserError
from bunny.core.protocols import Embedder, Engine
from bunny.core.recipe import Block
from bunny.core.store import write_atomic
from bunny.core.types import Place, Rejected, Sample
from bunny.curate.engine import Selection, Why, select
from bunny.curate.memory import peak
from bunny.curate.part_making import OpenImage
from bunny.curate.plan import plan
from bunny.curate.pool import PoolFolder, open_pool
from bunny.curate.table import write_table
from bunny.curate.vectors import embed_pool, make_pool, memory_of, seconds_of

__all__ = [
    "PoolFolder",
    "Selection",
    "Why",
    "choose",
    "curate",
    "embed_pool",
    "make_pool",
    "open_pool",
    "select",
    "write_outcome",
]


def curate(
    samples: Sequence[Sample],
    rejected: Sequence[Rejected],
    embedder: Embedder,
    steps: Sequence[Block],
    *,
    seed: int,
    folder: Path,
    open_image: OpenImage,
    threads: int = 0,
    vectors: Path | None = None,
) -> Selection:
    """The coreset of `samples`, and everything there is to know about how it came about, written into `folder`.

    rejected: rows the source could not read; they are listed and counted with the rest. steps: `{use: …}` blocks.
    vectors: where the pool is kept (default `folder/pool`); give a folder of its own to try other steps on the same
    vectors. threads: for decoding pictures, 0 = all cores. Raises UserError for a wrong step or setting.
    """
    plan(steps)  # a wrong step is found before hours of embedding
    where = vectors or folder / "pool"
    made = embed_pool(samples, rejected, embedder, where, open_image=open_image, threads=threads)
    return choose(made, steps, seed=seed, folder=folder, open_image=open_image)


def choose(
    made: PoolFolder,
    steps: Sequence[Block],
    *,
    seed: int,
    folder: Path,
    open_image: OpenImage,
    engine: Engine | None = None,
    work: Path | None = None,
    base: Path | None = None,
) -> Selection:
    """The coreset of a pool that is there, written into `folder`. engine, work: what runs the heavy steps, and where
    they keep their files (default: this process, and a folder that goes away). base: folder that relative paths of the
    steps are seen from (default: the working folder)."""
    place = Place(work, engine) if engine and work else None
    selection = select(made.pool(place), steps, seed, made.rejected(), base)
    write_outcome(selection, made, folder, open_image=open_image)
    return replace(selection, folder=folder)


def write_outcome(selection: Selection, made: PoolFolder, folder: Path, *, open_image: OpenImage) -> None:
    """Write the decision table, the rejected rows, the summary and the report."""
    from bunny.curate.report import write_report  # a third of what a worker process would import

    folder.mkdir(parents=True, exist_ok=True)
    seconds = {"embed": seconds_of(made), **{run.planned.label: run.seconds for run in selection.runs}}
    memory = {"embed": memory_of(made), **{run.planned.label: run.memory for run in selection.runs}}
    start = time.perf_counter()
    with peak() as held:
        write_table(selection, folder / "decisions.parquet")
        lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in selection.rejected]
        write_atomic(folder / "rejected.jsonl", "".join(lines))
    seconds["write"], memory["write"] = time.perf_counter() - start, held.bytes
    memory = {stage: most for stage, most in memory.items() if most}

    def thumbnail(sample: Sample) -> Image.Image:
        if not sample.images:
            raise UserError(f"{sample.id}: the source has its vectors, but no picture")
        return open_image(sample.images[0])

    report = folder / "report.html"
    write_report(
        selection,
        report,
        samples_of=made.samples,
        thumbnail=thumbnail,
        model=made.model,
        seconds=seconds,
        memory=memory,
    )
    told = {**_summary(selection, made, seconds), "memory": memory}
    write_atomic(folder / "summary.json", json.dumps(told, indent=1, ensure_ascii=False))


def _summary(selection: Selection, made: PoolFolder, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "samples": len(selection.pool) + len(selection.rejected),
        "rejected": dict(Counter(item.reason for item in selection.rejected).most_common()),
        "embedded": len(selection.pool),
        "embedder": made.model,
        "pool": {"key": made.info.get("key", ""), "parts": [part.name for part in made.parts]},
        "seed": selection.seed,
        "steps": [
            {
                "step": run.planned.label,
                "settings": run.planned.block,
                "in": len(run.rows),
                "out": int(run.decision.keep.sum()),
                "reasons": run.counts(),
                "notes": dict(run.decision.notes),
            }
            for run in selection.runs
        ],
        "kept": int(selection.kept().sum()),
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
