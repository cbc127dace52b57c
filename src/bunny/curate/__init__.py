"""From raw image-text pairs to a coreset: embed, decide step by step, say why. No torch here.

In: samples, what was rejected while reading them, an embedder, the recipe's steps. Out: a `Selection`, and in the
folder `decisions.parquet`, `report.html`, `rejected.jsonl`, `summary.json` and the vectors.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from bunny.core.protocols import Embedder
from bunny.core.recipe import Block
from bunny.core.store import write_atomic
from bunny.core.types import Rejected, Sample
from bunny.curate.engine import Selection, Why, select
from bunny.curate.plan import plan
from bunny.curate.report import write_report
from bunny.curate.table import write_table
from bunny.curate.vectors import Embedding, OpenImage, build_pool, embed_pool

__all__ = ["Embedding", "Selection", "Why", "build_pool", "curate", "embed_pool", "select", "write_outcome"]


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
    vectors: where the embedding is kept (default `folder/vectors`); give a folder of its own to try other steps on
    the same vectors. threads: for decoding pictures, 0 = all cores. Raises UserError for a wrong step or setting.
    """
    plan(steps)  # a wrong step is found before hours of embedding
    embedding = embed_pool(samples, embedder, vectors or folder / "vectors", open_image=open_image, threads=threads)
    selection = select(build_pool(embedding), steps, seed, [*rejected, *embedding.rejected])
    write_outcome(selection, embedding, folder, open_image=open_image)
    return selection


def write_outcome(selection: Selection, embedding: Embedding, folder: Path, *, open_image: OpenImage) -> None:
    """Write the decision table, the rejected rows, the summary and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {"embed": embedding.seconds, **{run.planned.label: run.seconds for run in selection.runs}}
    start = time.perf_counter()
    write_table(selection, folder / "decisions.parquet")
    lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in selection.rejected]
    write_atomic(folder / "rejected.jsonl", "".join(lines))
    seconds["write"] = time.perf_counter() - start

    def thumbnail(sample: Sample) -> Image.Image:
        return open_image(sample.images[0])

    model = embedding.vectors.model
    report = folder / "report.html"
    write_report(selection, embedding.samples, report, thumbnail=thumbnail, model=model, seconds=seconds)
    write_atomic(folder / "summary.json", json.dumps(_summary(selection, model, seconds), indent=1, ensure_ascii=False))


def _summary(selection: Selection, model: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "samples": len(selection.pool) + len(selection.rejected),
        "rejected": dict(Counter(item.reason for item in selection.rejected).most_common()),
        "embedded": len(selection.pool),
        "embedder": model,
        "seed": selection.seed,
        "steps": [
            {
                "step": run.planned.label,
                "settings": run.planned.block,
                "in": len(run.rows),
                "out": int(run.decision.keep.sum()),
                "reasons": run.counts(),
            }
            for run in selection.runs
        ],
        "kept": int(selection.kept().sum()),
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
